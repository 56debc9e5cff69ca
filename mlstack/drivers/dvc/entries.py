"""One stage's entry, between DVC's shape (paths relative to its folder) and ours (relative to the project)."""

import re
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from json import dumps
from posixpath import join, normpath, relpath
from typing import Any

import msgspec

from mlstack.graph.graph import EntryKey, Hashed, LockEntry
from mlstack.graph.sources import FileDigest

DEFAULT_PARAMS = "params.yaml"
_HASH = re.compile(r"[0-9a-f]{32}(?:\.dir)?")


class RecordedStage(msgspec.Struct, frozen=True):
    """One entry of `dvc.lock` or of the run-cache.

    `entry` is None for what mlstack cannot express (an external dependency, for example). `executable` are the paths
    that had the execute bit: DVC records it, and it is part of DVC's run-cache key. `is_normalised` says that
    the command is written in another form there: as a list, or with blanks around it.
    """

    entry: LockEntry | None
    executable: frozenset[str] = frozenset()
    is_normalised: bool = False


class MalformedEntryError(ValueError):
    """An entry lacks what every entry has; says what."""


def is_hash(text: str) -> bool:
    """Whether this is a hash as DVC writes it: it becomes part of a path in the cache, so nothing else will do."""
    return _HASH.fullmatch(text) is not None


def to_project(path: str, directory: str) -> str:
    """Turn a path relative to `directory` into one relative to the project folder."""
    if directory == "." and not path.startswith(".") and "//" not in path and not path.endswith("/"):
        return path
    return normpath(join(directory, path))


def to_directory(path: str, directory: str) -> str:
    """Turn a path relative to the project folder into one relative to `directory`."""
    return path if directory == "." else relpath(path, directory)


def read_entry(data: Mapping[str, Any], directory: str) -> RecordedStage:
    """Read one entry as DVC wrote it. Raises `MalformedEntryError` for what DVC itself would refuse or misread."""
    if not isinstance(data, Mapping) or not data.get("cmd"):
        raise MalformedEntryError("it has no `cmd`")
    written = data["cmd"]
    cmd = ("\n".join(map(str, written)) if isinstance(written, list) else str(written)).strip()
    deps, outs = data.get("deps") or [], data.get("outs") or []
    executable: set[str] = set()
    hashed_deps = _read_items(deps, directory, executable)
    hashed_outs = _read_items(outs, directory, executable)
    params = data.get("params") or {}
    if not isinstance(params, dict) or not all(isinstance(values, dict) for values in params.values()):
        raise MalformedEntryError("its `params` are not a map of files")
    entry = None
    if hashed_deps is not None and hashed_outs is not None:
        key = EntryKey(
            cmd=cmd,
            deps=hashed_deps,
            params=params,
            out_paths=tuple(out.path for out in hashed_outs),
        )
        entry = LockEntry(key=key, outs=hashed_outs)
    return RecordedStage(entry, frozenset(executable), cmd != written)


def _read_items(items: Any, directory: str, executable: set[str]) -> tuple[Hashed, ...] | None:
    """Read deps or outs, sorted by path; None if one of them is not content under an MD5."""
    if not isinstance(items, list):
        raise MalformedEntryError("its `deps` or `outs` are not a list")
    found: list[Hashed] = []
    is_known = True
    for item in items:
        if not isinstance(item, dict) or "path" not in item:
            raise MalformedEntryError("one of its `deps` or `outs` has no `path`")
        md5 = item.get("md5")
        if not isinstance(md5, str):
            if not item.keys() & {"etag", "checksum", "files", "dataset", "version_id", "cloud"}:
                raise MalformedEntryError(f"{item['path']} has no hash")
            is_known = False
            continue
        if not is_hash(md5):
            raise MalformedEntryError(f"the hash of {item['path']} is not an MD5")
        if not isinstance(item["path"], str):
            raise MalformedEntryError("one of its `deps` or `outs` has a `path` that is not text")
        path = to_project(item["path"], directory)
        if not all(isinstance(item.get(name) or 0, int) for name in ("size", "nfiles")):
            raise MalformedEntryError(f"the size of {path} is not a number")
        if item.get("isexec"):
            executable.add(path)
        digest = FileDigest(md5=md5, size=item.get("size") or 0, nfiles=item.get("nfiles"))
        found.append(Hashed(path=path, digest=digest))
    return tuple(sorted(found, key=lambda hashed: hashed.path)) if is_known else None


def write_entry(entry: LockEntry, directory: str, *, executable: Collection[str] = ()) -> dict[str, Any]:
    """Return the entry as DVC itself would dump it: same keys, same order."""
    data: dict[str, Any] = {"cmd": entry.key.cmd}
    if entry.key.deps:
        data["deps"] = _write_items(entry.key.deps, directory, executable)
    params = write_params(entry.key.params)
    if params:
        data["params"] = params
    if entry.outs:
        data["outs"] = _write_items(entry.outs, directory, executable)
    return data


def write_params(params: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Order params as DVC does: the default file first, then by name; keys sorted."""
    files = sorted(params, key=lambda file: (file != DEFAULT_PARAMS, file))
    return {file: {key: params[file][key] for key in sorted(params[file])} for file in files}


def _write_items(items: Iterable[Hashed], directory: str, executable: Collection[str]) -> list[dict[str, Any]]:
    written = []
    for hashed in items:
        digest = hashed.digest
        item: dict[str, Any] = {
            "path": to_directory(hashed.path, directory),
            "hash": "md5",
            "md5": digest.md5,
            "size": digest.size,
        }
        if digest.nfiles is not None:
            item["nfiles"] = digest.nfiles
        if hashed.path in executable:
            item["isexec"] = True
        written.append(item)
    return sorted(written, key=lambda item: str(item["path"]))


def run_cache_key(key: EntryKey, directory: str, *, executable: Collection[str] = ()) -> str:
    """Return the name of the key in DVC's run-cache (`dvc.stage.cache._get_cache_hash(..., key=True)`)."""
    outs = tuple(Hashed(path=path, digest=_NO_CONTENT) for path in key.out_paths)
    data = write_entry(LockEntry(key=key, outs=outs), directory, executable=executable)
    data["outs"] = [item["path"] for item in data.get("outs", ())]
    return _hash(data)


def run_cache_value(data: Mapping[str, Any]) -> str:
    """Return the name of an entry (as `write_entry` gives it) below its key."""
    return _hash(data)


_NO_CONTENT = FileDigest(md5="", size=0)


def _hash(data: Any) -> str:
    return sha256(dumps(_without_sizes(data), sort_keys=True).encode()).hexdigest()


def _without_sizes(data: Any) -> Any:
    """Drop `size` and `nfiles` at every depth, in params too, as DVC does."""
    if isinstance(data, list):
        return [_without_sizes(item) for item in data]
    if isinstance(data, dict):
        return {name: _without_sizes(value) for name, value in data.items() if name not in {"size", "nfiles"}}
    return data
