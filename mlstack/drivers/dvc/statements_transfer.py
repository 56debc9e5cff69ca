"""Provenance between cache and remote: small files that are only ever added, under the same names on both sides."""

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from mlstack import decoding
from mlstack.drivers.dvc.remote import Remote, explained
from mlstack.drivers.dvc.statements import LARGEST, SBOM_ENDING, STATEMENT, Statements, provenance_files
from mlstack.drivers.dvc.transfer import side_by_side

_TOGETHER = 16
_SBOM = re.compile(r"(provenance/[0-9a-f]{2}/[0-9a-f]{64})/[0-9a-f]{32}\.cdx\.json")
_NAME = re.compile(r"[0-9a-f]{32,64}[a-z0-9.]{1,60}")
"""What files are called that mlstack writes there: no other name of a remote becomes a path here."""


class _Named(msgspec.Struct):
    name: str = ""


class _Definition(msgspec.Struct, rename="camel"):
    resolved_dependencies: list[_Named] = []


class _Predicate(msgspec.Struct, rename="camel"):
    build_definition: _Definition


class _Statement(msgspec.Struct):
    """The part of a statement that names other files of the same folder of a cache."""

    predicate: _Predicate


def push_statements(remote: Remote, statements: Statements, folders: Sequence[str]) -> int:
    """Copy what the cache has below these folders (of `provenance_folders`) into the remote; return how many were new.

    Bills of materials that these statements name go along. Raises `MlstackError` when the remote cannot be written.
    """
    found = provenance_files(statements.cache, folders)
    found += provenance_files(statements.cache, _named(statements, found))
    here = sorted({place for place in found if _is_ours(place)})
    there = set(_listed(remote, sorted({place.rpartition("/")[0] for place in here})))
    wanted = [place for place in here if place not in there]
    with explained(remote.place):
        from dvc_objects.fs import generic
        from dvc_objects.fs.local import localfs

        def copy(part: Sequence[str]) -> None:
            targets = [remote.fs.join(remote.path, *place.split("/")) for place in part]
            for folder in {remote.fs.parent(target) for target in targets}:
                remote.fs.makedirs(folder)
            sources = [str(statements.path(place)) for place in part]
            generic.copy(localfs, sources, remote.fs, targets, batch_size=remote.jobs)

        side_by_side(remote, wanted, copy)
    return len(wanted)


def fetch_statements(remote: Remote, statements: Statements, folders: Sequence[str]) -> int:
    """Copy what the remote has below these folders into the cache; return how many were new.

    Raises `MlstackError` when the remote cannot be asked, or the cache cannot be written.
    """

    def take(place: str) -> bool:
        path = remote.fs.join(remote.path, *place.split("/"))
        with explained(remote.place):
            if int(remote.fs.info(path).get("size") or 0) > LARGEST:
                return False
            content = bytes(remote.fs.cat_file(path))
        return statements.write(place, content)

    taken = 0
    with ThreadPoolExecutor(min(_TOGETHER, remote.jobs)) as pool:
        taken += sum(pool.map(take, [place for place in _listed(remote, folders) if not statements.has(place)]))
        named = _named(statements, provenance_files(statements.cache, folders))
        taken += sum(pool.map(take, [place for place in _listed(remote, named) if not statements.has(place)]))
    return taken


def _named(statements: Statements, places: Iterable[str]) -> list[str]:
    """Return the folders of the bills of materials that statements name."""
    folders: set[str] = set()
    for place in places:
        content = statements.read(place) if place.endswith(STATEMENT) and not place.endswith(SBOM_ENDING) else None
        try:
            found = decoding.decode(content, _Statement) if content is not None else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        for each in found.predicate.build_definition.resolved_dependencies if found is not None else ():
            matched = _SBOM.fullmatch(each.name)
            if matched is not None:
                folders.add(matched[1])
    return sorted(folders)


def _listed(remote: Remote, folders: Sequence[str]) -> list[str]:
    def listed(folder: str) -> list[str]:
        try:
            found = remote.fs.find(remote.fs.join(remote.path, *folder.split("/")))
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [str(path).replace(os.sep, "/").rpartition("/")[2] for path in found]
        return [f"{folder}/{name}" for name in names if _is_ours(name)]

    with explained(remote.place), ThreadPoolExecutor(min(_TOGETHER, remote.jobs)) as pool:
        remote.fs.fs.invalidate_cache()
        return [place for found in pool.map(listed, folders) for place in found]


def _is_ours(place: str) -> bool:
    return _NAME.fullmatch(place.rpartition("/")[2]) is not None
