"""`pylock.toml` (PEP 751): the packages that are installed for chosen dependency groups.

Which groups a package belongs to is told by markers such as `'train' in dependency_groups`. Those are decided here;
everything else in a marker stays text, since it depends on the machine.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mlstack.diagnostics import Diagnostic, Position
from mlstack.graph.lock_faults import broken_hashes
from mlstack.graph.lock_shapes import Pylock, wrong_shape
from mlstack.graph.packages import LockedPackage, Resolution, normal_name, unknown_group

Table = dict[str, Any]

_TOKEN = re.compile(r"""\s*(\(|\)|'[^']*'|"[^"]*"|not\s+in\b|[A-Za-z_][\w.]*|[<>=!~]=?=?)""")


def resolve_pylock(lock: Table, *, file: str, groups: Sequence[str], text: str = "") -> Resolution:
    """Return what is installed for `groups`; without any, for the lock's own default groups.

    `text` is the file's, to tell the line of what is wrong.
    """
    version = str(lock.get("lock-version", ""))
    if version.partition(".")[0] != "1":
        return Resolution(diagnostics=(_unknown_format(file, version),))
    misshapen = wrong_shape(lock, Pylock, file=file)
    if misshapen is not None:
        return Resolution(diagnostics=(misshapen,))
    known = {normal_name(str(name)) for name in lock.get("dependency-groups", [])}
    problems = [
        unknown_group(file, group, known, extras=lock.get("extras", []))
        for group in groups
        if normal_name(group) not in known
    ]
    chosen = {normal_name(str(name)) for name in (groups or lock.get("default-groups", []))}
    packages: list[LockedPackage] = []
    folders: list[str] = []
    for table in lock.get("packages", []):
        marker = str(table.get("marker", ""))
        if marker and is_excluded(marker, groups=chosen):
            continue
        folder = table.get("directory", {}).get("path")
        if folder == ".":
            continue  # the project itself: its code is found by imports
        if isinstance(folder, str):
            folders.append(folder)
        packages.append(
            LockedPackage(
                name=normal_name(str(table.get("name"))),
                version=str(table.get("version", "")),
                source=_source_text(table),
                hashes=tuple(_hashes(table)),
                markers=(marker,),
            )
        )
    hashes = ((package.name, digest) for package in packages for digest in package.hashes)
    problems.extend(broken_hashes(hashes, file=file, text=text))
    return Resolution(
        packages=tuple(packages),
        folders=tuple(folders),
        requires_python=str(lock.get("requires-python", "")),
        diagnostics=tuple(problems),
    )


def is_excluded(marker: str, *, groups: Iterable[str]) -> bool:
    """Whether a marker is false on every machine because of the chosen groups (no extras are ever chosen)."""
    tokens = list(_tokens(marker))
    return bool(tokens) and _Decision(tokens, set(groups)).either() is False


class _Decision:
    """Evaluates a marker in three values: True, False, or None (depends on the machine)."""

    def __init__(self, tokens: list[str], groups: set[str]) -> None:
        self._tokens = tokens
        self._groups = groups
        self._at = 0

    def either(self) -> bool | None:
        value = self._both()
        while self._take("or"):
            other = self._both()
            value = True if True in {value, other} else (None if None in {value, other} else False)
        return value

    def _both(self) -> bool | None:
        value = self._atom()
        while self._take("and"):
            other = self._atom()
            value = False if False in {value, other} else (None if None in {value, other} else True)
        return value

    def _atom(self) -> bool | None:
        if self._take("("):
            value = self.either()
            self._take(")")
            return value
        left, operator, right = self._next(), self._next(), self._next()
        if right not in {"dependency_groups", "extras"} or operator not in {"in", "not in"}:
            return None
        is_in = right == "dependency_groups" and normal_name(left.strip("'\"")) in self._groups
        return is_in if operator == "in" else not is_in

    def _take(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == token:
            self._at += 1
            return True
        return False

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else ""


def _tokens(marker: str) -> Iterator[str]:
    for found in _TOKEN.finditer(marker):
        yield re.sub(r"\s+", " ", found[1])


def _source_text(table: Table) -> str:
    vcs, folder, archive = table.get("vcs"), table.get("directory"), table.get("archive")
    match (vcs, folder, archive):
        case (dict(), _, _):
            place = vcs.get("url") or vcs.get("path") or ""
            text = f"{vcs.get('type', 'git')} {place}#{vcs.get('commit-id', '')}"
        case (_, dict(), _):
            text = f"directory {folder.get('path', '')}"
        case (_, _, dict()):
            text = f"url {archive.get('url') or archive.get('path') or ''}"
        case _:
            return ""
    inner = (vcs or folder or archive or {}).get("subdirectory")
    return f"{text} {inner}" if inner else text


def _hashes(table: Table) -> Iterator[str]:
    for file in (table.get("sdist"), table.get("archive"), *table.get("wheels", [])):
        if isinstance(file, dict):
            for algorithm, value in file.get("hashes", {}).items():
                yield f"{algorithm}:{value}"


def _unknown_format(file: str, version: str) -> Diagnostic:
    return Diagnostic(
        code="lock-format",
        summary="The lock has a format that this version of mlstack does not know",
        detail=f"{file} has lock-version {version or '(none)'}; known is 1.x.",
        hint="Upgrade mlstack, or make the lock again.",
        position=Position(file, 1, 1),
    )
