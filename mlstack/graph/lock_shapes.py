"""The kinds of values in `uv.lock`, `pylock.toml` and `pyproject.toml`, as far as they are read."""

from typing import Any

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, Position
from mlstack.graph.lock_faults import malformed_lock

Table = dict[str, Any]


class _File(msgspec.Struct):
    hash: str = ""
    hashes: dict[str, str] = {}


class _Edge(msgspec.Struct):
    """A package that another one needs, or a requirement that was locked."""

    name: str
    extra: list[str] = []
    extras: list[str] = []


class _Metadata(msgspec.Struct, rename="kebab"):
    requires_dist: list[_Edge] = []
    requires_dev: dict[str, list[_Edge]] = {}


class _Package(msgspec.Struct, rename="kebab"):
    name: str
    source: Table = {}
    directory: Table = {}
    vcs: Table = {}
    archive: _File | None = None
    sdist: _File | None = None
    wheels: list[_File] = []
    dependencies: list[_Edge] = []
    optional_dependencies: dict[str, list[_Edge]] = {}
    dev_dependencies: dict[str, list[_Edge]] = {}
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _Manifest(msgspec.Struct, rename="kebab"):
    members: list[str] = []
    dependency_groups: dict[str, list[_Edge]] = {}


class UvLock(msgspec.Struct):
    """What is read of a `uv.lock`."""

    package: list[_Package] = []
    manifest: _Manifest = msgspec.field(default_factory=_Manifest)


class Pylock(msgspec.Struct, rename="kebab"):
    """What is read of a `pylock.toml`."""

    packages: list[_Package] = []
    dependency_groups: list[str] = []
    default_groups: list[str] = []
    extras: list[str] = []


class _Project(msgspec.Struct, rename="kebab"):
    dynamic: list[str] = []
    dependencies: list[str] = []
    optional_dependencies: dict[str, list[str]] = {}


class _Uv(msgspec.Struct, rename="kebab"):
    dev_dependencies: list[str] = []


class _Tool(msgspec.Struct):
    uv: _Uv = msgspec.field(default_factory=_Uv)


class Pyproject(msgspec.Struct, rename="kebab"):
    """What is read of a `pyproject.toml`."""

    project: _Project = msgspec.field(default_factory=_Project)
    dependency_groups: dict[str, list[str | Table]] = {}
    tool: _Tool = msgspec.field(default_factory=_Tool)


def wrong_shape(table: Table, shape: type[msgspec.Struct], *, file: str) -> Diagnostic | None:
    """Return what is of another kind than it has to be; None if nothing is."""
    try:
        decoding.convert(table, shape)
    except msgspec.ValidationError as error:
        return malformed_lock(f"{file}: {error}.", Position(file, 1, 1))
    return None
