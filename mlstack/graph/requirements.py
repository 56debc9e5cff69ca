"""`requirements.txt` as `uv pip compile` and `pip-compile` write it: exact versions, with or without hashes."""

import re
from collections.abc import Callable, Iterator
from posixpath import dirname, normpath
from typing import NamedTuple

from mlstack.diagnostics import Diagnostic, Position
from mlstack.graph.lock_faults import broken_pin, malformed_requirement
from mlstack.graph.packages import LockedPackage, Resolution, normal_name

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXACT = re.compile(rf"({_NAME})\s*(?:\[[^\]]*\])?\s*(?:===?)\s*([A-Za-z0-9.!+_-]+)\s*(?:;\s*(.*))?")
_DIRECT = re.compile(rf"({_NAME})\s*(?:\[[^\]]*\])?\s*@\s*(\S+)\s*(?:;\s*(.*))?")
_NAMED = re.compile(rf"({_NAME})(?=\s*(?:[\[;<>=!~]|$))")
_HASH = re.compile(r"\s--hash[= ](\S+)")
_OPTION = re.compile(r"\s--(?:hash|config-settings?|global-option)[= ]\S+")
_REST = re.compile(r"\s(--\S*)")
_INCLUDE = re.compile(r"(?:-r|--requirement)[= ]*(\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)[= ]*(\S+)")
_FRAGMENT = re.compile(r"#(?:\S*&)?(md5|sha\d+)=([^&\s;]*)")
_COMMIT = re.compile(r"@([0-9a-f]{40})(?:#|$)")
_DEEPEST = 50
_URL = re.compile(r"(?:\w+\+)?\w+://")
_CREDENTIALS = re.compile(r"//[^/@]*@")

ReadText = Callable[[str], str | None]
"""Reads a file of the project by its path; None if there is none."""


class _Line(NamedTuple):
    file: str
    number: int
    text: str


def resolve_requirements(file: str, read: ReadText) -> Resolution:
    """Return what `file` (and what it includes with `-r`) pins. Options such as `--index-url` change nothing."""
    packages: list[LockedPackage] = []
    folders: list[str] = []
    problems: list[Diagnostic] = []
    unhashed: list[_Line] = []
    is_hashed = False
    for item in _lines(file, read, (file,), {file}):
        if isinstance(item, Diagnostic):
            problems.append(item)
            continue
        is_hashed = is_hashed or (item.file == file and "--hash" in item.text)
        local = _local_folder(item.text)
        if local is not None:
            folders.append(local)
            if normpath(local) != ".":
                packages.append(LockedPackage(name=normpath(local), source=f"directory {normpath(local)}"))
            continue
        fault = _fault(item)
        package = _parse(item.text)
        if fault is not None:
            problems.append(fault)
        elif package is None:
            problems.append(_unpinned(item))
        else:
            packages.append(package)
            unhashed += [item] if _lacks_hash(package) else []
    if is_hashed:  # then uv wants one for everything
        problems += [_malformed(item, "it has no hash, and the others have") for item in unhashed]
    return Resolution(
        packages=tuple(packages),
        folders=tuple(folder for folder in folders if normpath(folder) != "."),
        diagnostics=tuple(problems),
    )


def _lines(file: str, read: ReadText, open_files: tuple[str, ...], seen: set[str]) -> Iterator[_Line | Diagnostic]:
    """Yield the lines of a file and of what it includes: each file once, since what it pins twice is pinned."""
    if len(open_files) > _DEEPEST:
        yield _too_deep(file)
        return
    text = read(file)
    if text is None:
        yield _missing_include(file, open_files[-2] if len(open_files) > 1 else file)
        return
    for number, line in _joined(text):
        include = _INCLUDE.fullmatch(line)
        if include is not None:
            inner = normpath(f"{dirname(file)}/{include[1]}") if dirname(file) else normpath(include[1])
            if inner not in seen:
                seen.add(inner)
                yield from _lines(inner, read, (*open_files, inner), seen)
        elif _EDITABLE.fullmatch(line) or not line.startswith("-"):
            yield _Line(file, number, line)


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Return the number and text of each logical line: continued lines are joined, comments dropped."""
    pending, start = "", 0
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        start = start or number
        if line.endswith("\\"):
            pending += f"{line[:-1]} "
            continue
        whole = (pending + line).strip()
        if whole:
            yield start, whole
        pending, start = "", 0
    if pending.strip():
        yield start, f"{pending.strip()} \\"


def _local_folder(line: str) -> str | None:
    editable = _EDITABLE.fullmatch(line)
    text = editable[1] if editable is not None else line.split(";", maxsplit=1)[0].split(" --", maxsplit=1)[0].strip()
    text = text.removeprefix("file://") if text.startswith("file://.") else text
    is_path = text.startswith(("./", "../")) or text in {".", ".."} or (editable is not None and "://" not in text)
    return text.partition("[")[0] if is_path and not text.endswith((".whl", ".gz", ".zip")) else None


def _fault(line: _Line) -> Diagnostic | None:
    """Return what no installer would take: a hash or condition that is cut off, a version that is none."""
    text = _OPTION.sub("", line.text).strip()
    hashes = [*_HASH.findall(line.text), *(":".join(found) for found in _FRAGMENT.findall(text))]
    rest = _REST.search(text)
    exact = _EXACT.fullmatch(text)
    if rest is not None:
        fault: str | None = f"{rest[1]} is not understood"
    elif exact is not None:
        version = None if "===" in text else exact[2]
        fault = broken_pin(text, version=version, marker=(exact[3] or "").strip(), hashes=hashes)
    else:
        fault = broken_pin(text, version=None, marker="", hashes=hashes)
    return _malformed(line, fault) if fault is not None else None


def _lacks_hash(package: LockedPackage) -> bool:
    """Whether uv would miss a hash: not where a condition may leave it out, or a commit or folder stands for it."""
    if package.hashes or any(package.markers):
        return False
    return not package.source.startswith("git ") and not _FRAGMENT.search(package.source)


def _malformed(line: _Line, fault: str) -> Diagnostic:
    text = _OPTION.sub("", line.text).strip()
    named = _NAMED.match(text)
    what = named[1] if named is not None else _CREDENTIALS.sub("//", text.partition(" ")[0])
    return malformed_requirement(what, fault, Position(line.file, line.number, 1), _CREDENTIALS.sub("//", line.text))


def _parse(line: str) -> LockedPackage | None:
    hashes = tuple(_HASH.findall(line))
    text = _OPTION.sub("", line).strip()
    exact = _EXACT.fullmatch(text)
    if exact is not None:
        return LockedPackage(
            name=normal_name(exact[1]), version=exact[2], hashes=hashes, markers=((exact[3] or "").strip(),)
        )
    direct = _DIRECT.fullmatch(text)
    editable = _EDITABLE.fullmatch(text)
    url = direct[2] if direct is not None else (editable[1] if editable is not None else text.partition(" ;")[0])
    marker = (direct[3] if direct is not None else text.partition(" ;")[2]) or ""
    if not _URL.match(url) and not url.startswith(("./", "../")):
        return None
    commit = _COMMIT.search(url)
    if url.startswith("git+") and commit is None:
        return None
    bare = _CREDENTIALS.sub("//", url)
    name = normal_name(direct[1]) if direct is not None else bare.partition("#")[0].rpartition("/")[2]
    source = f"git {bare.partition('@')[0].removeprefix('git+')}#{commit[1]}" if commit is not None else f"url {bare}"
    return LockedPackage(name=name, source=source, hashes=hashes, markers=(marker.strip(),))


def _unpinned(line: _Line) -> Diagnostic:
    named = _NAMED.match(line.text)
    what = named[1] if named is not None else _CREDENTIALS.sub("//", line.text)
    return Diagnostic(
        code="unpinned-requirement",
        summary="A requirement is not pinned",
        detail=f"{what} has no exact version (name==1.2.3) or commit, so the environment would differ from day to day.",
        hint="Keep what you ask for in requirements.in, and compile it:",
        command=f"uv pip compile requirements.in --generate-hashes --output-file {line.file}",
        position=Position(line.file, line.number, 1),
        source_line=_CREDENTIALS.sub("//", line.text),
    )


def _too_deep(file: str) -> Diagnostic:
    return Diagnostic(
        code="includes-too-deep",
        summary="Requirements files include each other too deeply",
        detail=f"{file} is included over more than {_DEEPEST} other files.",
        hint="Compile them into one file.",
        position=Position(file, 1, 1),
    )


def _missing_include(file: str, by: str) -> Diagnostic:
    return Diagnostic(
        code="missing-lock",
        summary="A lock file does not exist",
        detail=f"{by} includes {file}: there is no such file in the project.",
        hint="Correct the path after -r, or add the file.",
        position=Position(by, 1, 1),
    )
