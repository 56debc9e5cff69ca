"""`uv.lock`: the packages that the project and chosen dependency groups need, found by walking the locked graph.

Packages that are only there for development change the bytes of the file, not what is found here.
Format: uv.lock version 1, any revision (https://docs.astral.sh/uv/concepts/projects/layout/#the-lockfile).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from mlstack.diagnostics import Diagnostic, Position
from mlstack.graph.lock_faults import broken_hashes
from mlstack.graph.lock_shapes import UvLock, wrong_shape
from mlstack.graph.packages import LockedPackage, Resolution, normal_name, unknown_group

_LOCAL = ("editable", "virtual", "directory")
_KNOWN_VERSION = 1

Table = dict[str, Any]


def resolve_uv_lock(lock: Table, *, file: str, groups: Sequence[str], text: str = "") -> Resolution:
    """Return what the project with `groups` needs. `file` is the path of the lock, `text` its text, for diagnostics."""
    version = lock.get("version")
    if version != _KNOWN_VERSION:
        return Resolution(diagnostics=(_unknown_format(file, version),))
    misshapen = wrong_shape(lock, UvLock, file=file)
    if misshapen is not None:
        return Resolution(diagnostics=(misshapen,))
    walk = _Walk(lock)
    roots = walk.roots()
    manifest = _groups_of(lock.get("manifest", {}).get("dependency-groups"))
    known = set(manifest)
    for root in roots:  # a group without packages is only named in the metadata
        known |= _groups_of(root.get("dev-dependencies")).keys()
        known |= _groups_of(root.get("metadata", {}).get("requires-dev")).keys()
    extras = {extra for root in roots for extra in root.get("optional-dependencies", {})}
    problems: list[Diagnostic] = []
    for root in roots:
        walk.add(root.get("dependencies", []))
    for group in groups:
        if normal_name(group) not in known:
            problems.append(unknown_group(file, group, known, extras=extras))
            continue
        walk.add(manifest.get(normal_name(group), []))
        for root in roots:
            walk.add(_groups_of(root.get("dev-dependencies")).get(normal_name(group), []))
    walk.finish()
    packages = tuple(walk.packages())
    hashes = ((package.name, digest) for package in packages for digest in package.hashes)
    problems.extend(broken_hashes(hashes, file=file, text=text))
    return Resolution(
        packages=packages,
        folders=tuple(walk.folders()),
        requires_python=str(lock.get("requires-python", "")),
        diagnostics=tuple(problems),
    )


def root_packages(lock: Table) -> list[Table]:
    """Return the project of the lock; for a workspace without a project at its root, all members."""
    packages: list[Table] = [each for each in lock.get("package", []) if isinstance(each, dict)]
    for each in packages:
        source = each.get("source", {})
        if any(source.get(kind) == "." for kind in _LOCAL):
            return [each]
    members = set(lock.get("manifest", {}).get("members", []))
    return [each for each in packages if each.get("name") in members]


class _Walk:
    """Which packages are reached, under which markers and with which extras."""

    def __init__(self, lock: Table) -> None:
        self._lock = lock
        self._by_name: dict[str, list[Table]] = {}
        for each in lock.get("package", []):
            self._by_name.setdefault(str(each.get("name")), []).append(each)
        self._markers: dict[int, set[str]] = {}
        self._reached: dict[int, Table] = {}
        self._extras: set[tuple[int, str]] = set()
        self._waiting: list[tuple[Table, str]] = []

    def roots(self) -> list[Table]:
        roots = root_packages(self._lock)
        for root in roots:  # the project itself is not part of its environment: its code is found by imports
            self._reached[id(root)] = root
            self._markers[id(root)] = set()
        self._root_ids = {id(root) for root in roots}
        return roots

    def add(self, edges: Iterable[Table]) -> None:
        for edge in edges:
            for package in self._targets(edge):
                self._markers.setdefault(id(package), set()).add(str(edge.get("marker", "")))
                if id(package) not in self._reached:
                    self._reached[id(package)] = package
                    self._waiting.append((package, ""))
                for extra in edge.get("extra", []):
                    if (id(package), extra) not in self._extras:
                        self._extras.add((id(package), extra))
                        self._waiting.append((package, extra))

    def finish(self) -> None:
        while self._waiting:
            package, extra = self._waiting.pop()
            if extra:
                self.add(package.get("optional-dependencies", {}).get(extra, []))
            else:
                self.add(package.get("dependencies", []))

    def packages(self) -> Iterable[LockedPackage]:
        for key, package in self._reached.items():
            if key not in self._root_ids:
                yield LockedPackage(
                    name=str(package.get("name")),
                    version=str(package.get("version", "")),
                    source=_source_text(package.get("source", {})),
                    hashes=tuple(_hashes(package)),
                    markers=tuple(sorted(self._markers[key])),
                )

    def folders(self) -> Iterable[str]:
        for key, package in self._reached.items():
            source = package.get("source", {})
            folder = next((source[kind] for kind in _LOCAL if kind in source), None)
            if key not in self._root_ids and isinstance(folder, str):
                yield folder

    def _targets(self, edge: Table) -> Iterable[Table]:
        """Return the packages of an edge; version and source are only given where the name alone is ambiguous."""
        for package in self._by_name.get(str(edge.get("name")), []):
            if all(key not in edge or edge[key] == package.get(key) for key in ("version", "source")):
                yield package


def _groups_of(table: object) -> dict[str, list[Table]]:
    """Return group → edges with normalised names."""
    return {normal_name(str(name)): edges for name, edges in table.items()} if isinstance(table, dict) else {}


def _source_text(source: Table) -> str:
    """Return what identifies the content beyond name, version and hashes. An index is not part of it."""
    for kind in (*_LOCAL, "path", "git", "url"):
        if kind in source:
            # `git` is `<url>?<what was asked>#<commit>`: only repository and commit say what it is
            address, _, commit = str(source[kind]).partition("#")
            text = f"{address.partition('?')[0]}#{commit}" if kind == "git" else str(source[kind])
            inner = f" {source['subdirectory']}" if "subdirectory" in source else ""
            return f"{'directory' if kind in _LOCAL else kind} {text}{inner}"
    return ""


def _hashes(package: Table) -> Iterable[str]:
    for file in (package.get("sdist"), *package.get("wheels", [])):
        if isinstance(file, dict) and "hash" in file:
            yield str(file["hash"])


def _unknown_format(file: str, version: object) -> Diagnostic:
    return Diagnostic(
        code="lock-format",
        summary="The lock has a format that this version of mlstack does not know",
        detail=f"{file} has version {version}; known is {_KNOWN_VERSION}.",
        hint="Upgrade mlstack, or make the lock with an older uv.",
        position=Position(file, 1, 1),
    )
