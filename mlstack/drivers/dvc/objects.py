"""DVC's cache, read: objects by hash, folder listings, run-cache entries. Imports nothing of DVC.

Layout (DVC 3): `files/md5/ab/cdef…`, folders as `….dir` holding a JSON list of `{md5, relpath}`; objects of DVC 2 lie
at `ab/cdef…`. Run-cache: `runs/ab/<key>/<value>`, YAML in the shape of one entry of `dvc.lock`.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mlstack import decoding
from mlstack.drivers.dvc.entries import MalformedEntryError, RecordedStage, is_hash, read_entry, run_cache_key
from mlstack.drivers.dvc.yaml_text import load_yaml
from mlstack.graph.graph import EntryKey
from mlstack.graph.sources import FileDigest
from mlstack.spec.plain_files import read_plain

DIR_SUFFIX = ".dir"
_LIST_FROM = 256


class TreeEntry(msgspec.Struct, frozen=True):
    """One file of a folder."""

    md5: str
    relpath: str


class Objects:
    """The objects in one cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = f"{folder}/files/md5/"
        self._legacy = f"{folder}/"
        self._trees: dict[str, tuple[TreeEntry, ...] | None] = {}

    def path_of(self, md5: str) -> str:
        """Return where the object of a hash lies (whether it is there or not)."""
        return f"{self._files}{md5[:2]}/{md5[2:]}"

    def find(self, md5: str) -> str | None:
        """Return the file of an object, in DVC 3's place or DVC 2's, or None."""
        for path in (self.path_of(md5), f"{self._legacy}{md5[:2]}/{md5[2:]}"):
            if os.path.exists(path):  # noqa: PTH110 - asked for every output of every plan
                return path
        return None

    def has(self, digest: FileDigest) -> bool:
        """Whether this content is in the cache: the object and, for a folder, all of its files.

        An object whose size is not the recorded one is damaged and counts as missing.
        """
        if digest.is_folder:
            tree = self.tree(digest.md5)
            return tree is not None and not self.missing(entry.md5 for entry in tree)
        try:
            return os.stat(self.path_of(digest.md5)).st_size == digest.size or digest.size == 0  # noqa: PTH116
        except OSError:
            return self.find(digest.md5) is not None

    def tree(self, md5: str) -> tuple[TreeEntry, ...] | None:
        """Return the listing of a folder, sorted by path; None if it is not in the cache or damaged."""
        if md5 not in self._trees:
            self._trees[md5] = self._read_tree(md5)
        return self._trees[md5]

    def missing(self, md5s: Iterable[str]) -> list[str]:
        """Return those that are not in the cache. Many are looked up by listing the cache's 256 folders once."""
        wanted = list(dict.fromkeys(md5s))
        if len(wanted) < _LIST_FROM:
            return [md5 for md5 in wanted if self.find(md5) is None]
        listed: dict[str, set[str]] = {}
        absent = []
        for md5 in wanted:
            head = md5[:2]
            if head not in listed:
                listed[head] = _names(self._files + head)
            if md5[2:] not in listed[head]:
                absent.append(md5)
        return [md5 for md5 in absent if self.find(md5) is None]

    def forget(self, md5: str) -> None:
        """Forget what was read of a folder's listing."""
        self._trees.pop(md5, None)

    def _read_tree(self, md5: str) -> tuple[TreeEntry, ...] | None:
        path = self.find(md5)
        if path is None:
            return None
        try:
            return parse_tree(read_plain(self.folder, path))
        except OSError:
            return None

    # ------------------------------------------------------------------------------------------------ run-cache

    def run_folder(self, key: EntryKey, directory: str, executable: Iterable[str]) -> str:
        """Return the folder of the run-cache in which results for this key lie."""
        name = run_cache_key(key, directory, executable=frozenset(executable))
        return f"{self.folder}/runs/{name[:2]}/{name}"

    def runs(self, key: EntryKey, directory: str, executable: Iterable[str]) -> list[RecordedStage]:
        """Return the run-cache's results for exactly this key, newest first; damaged files are skipped.

        DVC leaves every `size` and `nfiles` out of its key, in params too, so that the key alone is not proof.
        """
        folder = self.run_folder(key, directory, executable)
        try:
            with os.scandir(folder) as found:
                files = sorted((-entry.stat().st_mtime, entry.path) for entry in found if entry.is_file())
        except OSError:
            return []
        results = (self._read_run(path, directory) for _, path in files)
        return [result for result in results if result and result.entry and is_same_key(result.entry.key, key)]

    def _read_run(self, path: str, directory: str) -> RecordedStage | None:
        import yaml

        try:
            return read_entry(load_yaml(read_plain(self.folder, path)), directory)
        except (OSError, yaml.YAMLError, MalformedEntryError, ValueError):
            return None


def parse_tree(content: bytes) -> tuple[TreeEntry, ...] | None:
    """Return the listing of a folder; None if it is damaged, or names files outside of that folder."""
    try:
        tree = decoding.decode(content, tuple[TreeEntry, ...])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return tree if all(is_hash(entry.md5) and _stays_inside(entry.relpath) for entry in tree) else None


def _stays_inside(relpath: str) -> bool:
    """Whether a name in a folder's listing is one below that folder: listings come from other people's caches."""
    return bool(relpath) and not {"", ".", ".."}.intersection(relpath.split("/")) and "\0" not in relpath


def is_same_key(one: EntryKey, other: EntryKey) -> bool:
    """Whether two keys name the same computation; sizes follow from hashes and do not count."""
    return (
        one.cmd == other.cmd
        and [(dep.path, dep.digest.md5) for dep in one.deps] == [(dep.path, dep.digest.md5) for dep in other.deps]
        and one.out_paths == other.out_paths
        and one.params == other.params
        # 1, 1.0 and True are equal in Python
        and (not one.params or _canonical(one.params) == _canonical(other.params))
    )


def _canonical(params: object) -> bytes:
    return msgspec.json.encode(params, order="deterministic")


def tree_bytes(entries: Iterable[TreeEntry]) -> bytes:
    """Return a folder's listing as DVC writes and hashes it (`dvc_data.hashfile.tree.Tree.as_bytes`)."""
    from json import dumps

    rows = [{"md5": entry.md5, "relpath": entry.relpath} for entry in sorted(entries, key=lambda entry: entry.relpath)]
    return dumps(rows, sort_keys=True).encode()


def tree_md5(entries: Iterable[TreeEntry]) -> str:
    """Return the hash of a folder's listing, `.dir` appended."""
    from hashlib import md5

    return md5(tree_bytes(entries), usedforsecurity=False).hexdigest() + DIR_SUFFIX


def is_executable(path: str) -> bool:
    """Whether a file has an execute bit (`dvc_objects.fs.utils.is_exec`); False if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked for every path of every recorded stage
    except OSError:
        return False
    return bool(status.st_mode & 0o111) and status.st_mode & 0o170000 == 0o100000


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names only
    except OSError:
        return set()
