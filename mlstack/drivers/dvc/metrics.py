"""Recorded metrics. What a file of a given hash says never changes, so it is remembered by hash."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import md5
from pathlib import Path
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.drivers.dvc.objects import Objects
from mlstack.graph.graph import LockEntry, StageInputs
from mlstack.graph.hash_cache import read_cache_file, write_cache_file
from mlstack.graph.safe_git import ask_git
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.plain_files import read_plain

_LARGEST = 16 << 20
_PATIENCE = 20.0


class MetricsReader:
    """Reads the metrics files of stages by the hash that was recorded for them."""

    def __init__(
        self,
        root: Path,
        objects: Objects,
        in_workspace: Callable[[str], FileDigest | None],
        *,
        cache_folder: Path | None = None,
    ) -> None:
        self.found: dict[Address, dict[str, float]] = {}
        self._root, self._objects, self._in_workspace = root, objects, in_workspace
        self._cache = cache_folder / "dvc" / "metrics.json" if cache_folder else None
        self._by_hash = _load(self._cache)
        self._committed: dict[str, bytes | None] = {}
        self._changed = False

    def read(self, inputs: StageInputs, recorded: LockEntry) -> dict[str, float]:
        """Return and keep a stage's metrics: names as `join_metrics` gives them → number."""
        digests = recorded.digests()
        files = {
            out.path: self._read_file(out.path, digest)
            for out in inputs.outs
            if out.role == "metric" and (digest := digests.get(out.path)) is not None and not digest.is_folder
        }
        values = join_metrics(files)
        if values:
            self.found[inputs.address] = values
        return values

    def in_commit(self, path: str, wanted_md5: str) -> bytes | None:
        """Return the file of the last commit at `path` if it has this hash."""
        if path not in self._committed:
            # not `git show`, which would convert the text by a program of the user's settings
            self._committed[path] = ask_git(self._root, "cat-file", "blob", f"HEAD:./{path}", patience=_PATIENCE)
        content = self._committed[path]
        if content is None or md5(content, usedforsecurity=False).hexdigest() != wanted_md5:
            return None
        return content

    def save(self) -> None:
        """Remember what was read. Never fails."""
        if self._cache is not None and self._changed:
            write_cache_file(self._cache, msgspec.json.encode(self._by_hash))

    def _read_file(self, path: str, digest: FileDigest) -> Mapping[str, float]:
        suffix = path[path.rfind(".") :].lower()
        name = f"{digest.md5}{suffix}"
        if name not in self._by_hash:
            content = self._content(path, digest)
            if content is None:
                return {}
            self._by_hash[name] = parse_metrics(content, suffix)
            self._changed = True
        return self._by_hash[name]

    def _content(self, path: str, digest: FileDigest) -> bytes | None:
        if digest.size > _LARGEST:
            return None
        for base, place in ((self._objects.folder, self._objects.find(digest.md5)), (self._root, path)):
            try:
                content = read_plain(base, place, most=_LARGEST) if place is not None else b""
            except OSError:
                continue
            if md5(content, usedforsecurity=False).hexdigest() == digest.md5:
                return content
        return self.in_commit(path, digest.md5)


def parse_metrics(content: bytes, suffix: str) -> dict[str, float]:
    """Return the numbers in a metrics file (JSON, YAML, TOML, or Python literals are not read), by dotted path.

    Lists count by index, as in DVC. What is not such a file has no metrics.
    """
    try:
        return dict(_flatten(_parse(content, suffix), ""))
    except (ValueError, OverflowError, RecursionError):
        return {}


def join_metrics(files: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of all files of one stage: by their dotted path in the file.

    One that several files have is no metric of the stage: each of them stands under `FILE:PATH`.
    """
    holders = Counter(name for values in files.values() for name in values)
    return {
        name if holders[name] == 1 else f"{file}:{name}": value
        for file, values in sorted(files.items())
        for name, value in values.items()
    }


def _parse(content: bytes, suffix: str) -> Any:
    if suffix == ".toml":
        from tomllib import loads

        return loads(content.decode())
    if suffix == ".json":
        from json import loads as loads_json  # Python's reads NaN, which metrics hold

        return loads_json(content)
    from yaml import YAMLError

    from mlstack.drivers.dvc.yaml_text import load_yaml

    try:
        return load_yaml(content)
    except YAMLError as error:
        raise ValueError(str(error)) from error


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield prefix, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{prefix}.{index}" if prefix else str(index))


def _load(cache: Path | None) -> dict[str, dict[str, float]]:
    data = read_cache_file(cache) if cache else None
    if data is None:
        return {}
    try:
        return decoding.decode(data, dict[str, dict[str, float]])
    except msgspec.DecodeError:
        return {}
