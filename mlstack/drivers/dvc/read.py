"""What DVC's files say about stages and datasets, without importing DVC and without writing anything but caches."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Absent, DatasetReading, NotChecked, Observation, Present, StageReading
from mlstack.drivers.dvc.datasets import read_dataset
from mlstack.drivers.dvc.definitions import Definitions
from mlstack.drivers.dvc.entries import RecordedStage, run_cache_key
from mlstack.drivers.dvc.lockfile import LockFile, read_lock
from mlstack.drivers.dvc.metrics import MetricsReader
from mlstack.drivers.dvc.objects import Objects, is_executable, is_same_key
from mlstack.drivers.dvc.orphans import orphan_datasets
from mlstack.drivers.dvc.presence import NOWHERE, Elsewhere, ask_remote
from mlstack.drivers.dvc.settings import DvcSettings, read_settings
from mlstack.graph.digest import Digester
from mlstack.graph.graph import EntryKey, LockEntry, ResourceGraph, StageInputs, entry_key
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Out
from mlstack.state.state import Entry


class ResultReadings(NamedTuple):
    """What `read_results` found. `stages` and `datasets` also hold what mlstack wrote and the graph has no more."""

    stages: dict[Address, StageReading]
    datasets: dict[Address, DatasetReading]
    metrics: dict[Address, dict[str, float]]
    diagnostics: tuple[Diagnostic, ...]


def read_results(
    graph: ResourceGraph,
    *,
    root: Path,
    pending: Sequence[Entry] = (),
    cache_folder: Path | None = None,
    hashes: HashCache | None = None,
    refresh: bool = True,
) -> ResultReadings:
    """Read stages, datasets and metrics of a project at `root`.

    `pending` is the journal of an apply that did not end: its lock entries are laid over `dvc.lock` where they fit the
    key that a stage has now. `cache_folder` (`.mlstack/cache`) keeps what was parsed; `hashes` what was hashed. The
    remote is asked, once for all, for what is not here; with `refresh=False` that counts as not checked. Where results
    are made on merge, its run-cache is asked too: once more for each stage that needs one found there. Nothing is
    raised for damaged files: they are in `diagnostics`, and what they hold counts as absent.
    """
    own_hashes = hashes if hashes is not None else HashCache(cache_folder / "digests" if cache_folder else None)
    left = {entry.address: entry.lock_entry for entry in pending if entry.address and entry.lock_entry}
    elsewhere = NOWHERE
    while True:
        reader = _Reader(graph, root, cache_folder=cache_folder, hashes=own_hashes, elsewhere=elsewhere)
        reader.walk(left)
        asked = reader.ask(refresh=refresh)
        if asked is NOWHERE:
            break
        elsewhere = asked
    if hashes is None:
        own_hashes.save()
    reader.metrics.save()
    return ResultReadings(reader.stages, reader.datasets, reader.metrics.found, tuple(reader.diagnostics))


class Availability:
    """Whether content can be had by hash: from the cache, because the workspace holds it, or from the remote.

    `lacking` collects what is not on this machine: what the remote is asked for.
    """

    def __init__(self, objects: Objects, digester: Digester, elsewhere: frozenset[str] = frozenset()) -> None:
        self.lacking: dict[str, None] = {}
        self._objects = objects
        self._digester = digester
        self._elsewhere = elsewhere

    def has(self, path: str, digest: FileDigest) -> bool:
        """Whether `digest` is in the cache, is what lies at `path`, or is known to be in the remote."""
        if digest.md5 in self._elsewhere or self._objects.has(digest):
            return True
        present = self.in_workspace(path)
        if present is not None and present.md5 == digest.md5:
            return True
        self.lacking[digest.md5] = None
        return False

    def in_workspace(self, path: str) -> FileDigest | None:
        """Return what lies at `path`; None also for what cannot be read."""
        try:
            return self._digester.digest(path)
        except MlstackError:
            return None

    def has_all(self, entry: LockEntry) -> bool:
        """Whether every output of an entry can be had."""
        lacking = [out for out in entry.outs if not self.has(out.path, out.digest)]  # all of them go to `lacking`
        return not lacking


def find_cached(
    key: EntryKey, directory: str, *, root: Path, objects: Objects, available: Availability
) -> RecordedStage | None:
    """Return the newest result in the run-cache for exactly this key of which every output can be had by hash."""
    executable = [dep.path for dep in key.deps if is_executable(f"{root}/{dep.path}")]
    for found in objects.runs(key, directory, executable):
        if found.entry is not None and available.has_all(found.entry):
            return found
    return None


class _Reader:
    """One walk through the graph in topological order, with what is known by then."""

    def __init__(
        self,
        graph: ResourceGraph,
        root: Path,
        *,
        cache_folder: Path | None,
        hashes: HashCache,
        elsewhere: Elsewhere = NOWHERE,
    ) -> None:
        self.stages: dict[Address, StageReading] = {}
        self.datasets: dict[Address, DatasetReading] = {}
        self.diagnostics: list[Diagnostic] = []
        self._graph, self._root, self._cache_folder = graph, root, cache_folder
        self._elsewhere = elsewhere
        self._unknown_runs: dict[str, None] = {}
        self._dvc = self._settings()
        self._objects = Objects(self._dvc.cache)
        self._available = Availability(self._objects, Digester(root, cache=hashes), elsewhere.present)
        self.metrics = MetricsReader(root, self._objects, self._available.in_workspace, cache_folder=cache_folder)
        self._definitions = Definitions(graph, root, cache_folder=cache_folder)
        self.diagnostics += self._definitions.problems
        self._locks: dict[str, LockFile] = {}
        self._known: dict[str, FileDigest] = {}

    def _settings(self) -> DvcSettings:
        try:
            return read_settings(self._root)
        except MlstackError as error:
            self.diagnostics += error.diagnostics
            return DvcSettings(top=self._root, cache=self._root / ".dvc" / "cache")

    def ask(self, *, refresh: bool) -> Elsewhere:
        """Ask the remote for what the walk did not find here; `NOWHERE` when there is nothing new to ask, or nobody."""
        before = self._elsewhere
        lacking = [md5 for md5 in self._available.lacking if md5 not in before.asked]
        if before.not_checked or not (lacking or self._unknown_runs):
            return NOWHERE
        answer = ask_remote(
            lacking,
            runs=self._unknown_runs,
            declared=self._graph.spec.remote,
            settings=self._dvc,
            root=self._root,
            objects=self._objects,
            refresh=refresh,
        )
        if answer is NOWHERE:
            return NOWHERE
        return msgspec.structs.replace(
            answer,
            present=before.present | answer.present,
            asked=before.asked | answer.asked,
            runs={**before.runs, **answer.runs},
        )

    def walk(self, pending: Mapping[Address, Mapping[str, object]]) -> None:
        """Read everything."""
        for address in self._graph.order:
            resource = self._graph.resources.get(address)
            if isinstance(resource, Dataset):
                self._read_dataset(resource)
            elif address in self._graph.stages:
                self._read_stage(self._graph.stages[address], pending.get(address))
        orphans = orphan_datasets(self._graph, root=self._root, cache_folder=self._cache_folder)
        for address, (path, dataset) in orphans.items():
            if address in self._graph.resources:
                declared = self.datasets.get(address, DatasetReading())
                self.datasets[address] = msgspec.structs.replace(declared, path=path, left=dataset.digest)
            else:
                self.datasets[address] = DatasetReading(recorded=dataset.digest, source=dataset.source, path=path)
        for address, place in self._definitions.orphans.items():
            found = self._lock(place.directory).stages.get(place.name)
            recorded = found.entry if found else None
            missing = self._missing(recorded, None)
            self.stages[address] = StageReading(
                recorded=recorded, outs=self._availability(recorded, missing), missing=missing
            )
        if self._elsewhere.diagnostic is not None:
            self.diagnostics.append(self._elsewhere.diagnostic)

    def _lock(self, directory: str) -> LockFile:
        if directory not in self._locks:
            try:
                self._locks[directory] = read_lock(self._root, directory, cache_folder=self._cache_folder)
            except MlstackError as error:
                self.diagnostics += error.diagnostics
                self._locks[directory] = LockFile()
        return self._locks[directory]

    # ------------------------------------------------------------------------------------------------ datasets

    def _read_dataset(self, dataset: Dataset) -> None:
        if dataset.address not in self._graph.datasets:
            return
        recorded: FileDigest | None = None
        try:
            found = read_dataset(self._root, dataset.path, cache_folder=self._cache_folder)
            recorded, source = (found.digest, found.source) if found else (None, None)
        except MlstackError as error:
            self.diagnostics += error.diagnostics
            source = None
        content: Observation = Absent(reason="nothing was recorded")
        if recorded is not None:
            content = Present()
            if not self._available.has(dataset.path, recorded):
                content = self._not_here(f"{recorded.md5} is neither at {dataset.path} nor in DVC's cache")
        self.datasets[dataset.address] = DatasetReading(recorded=recorded, source=source, content=content)
        digest = self._graph.datasets[dataset.address] or recorded
        if digest is not None:
            self._known[dataset.path] = digest

    # ------------------------------------------------------------------------------------------------ stages

    def _read_stage(self, inputs: StageInputs, pending: Mapping[str, object] | None) -> None:
        key = entry_key(inputs, self._known)
        complete = key if isinstance(key, EntryKey) else None
        in_lock = self._lock(inputs.directory).stages.get(inputs.entry_name)
        recorded = self._lay_over(in_lock.entry if in_lock else None, pending, complete)
        missing = self._missing(recorded, inputs.outs)
        is_current = recorded is not None and complete is not None and is_same_key(recorded.key, complete)
        outs = self._availability(recorded, missing)
        gone = isinstance(outs, Absent)
        cached: LockEntry | None = None
        if complete is not None and (not is_current or gone):
            cached = self._find_cached(complete, inputs)
        self.stages[inputs.address] = StageReading(
            recorded=recorded,
            cached=cached,
            outs=outs,
            missing=missing if gone else (),
            defined=self._definitions.is_defined(inputs),
        )
        result = recorded if is_current and not gone else cached
        if result is not None:
            self._known.update(result.digests())
        if recorded is not None:
            self.metrics.read(inputs, recorded)

    def _lay_over(
        self, recorded: LockEntry | None, pending: Mapping[str, object] | None, key: EntryKey | None
    ) -> LockEntry | None:
        """Prefer an entry from the journal of a killed apply, if it is for the key that the stage has now."""
        if pending is None or key is None:
            return recorded
        try:
            left = decoding.convert(pending, LockEntry)
        except msgspec.ValidationError:
            return recorded
        return left if is_same_key(left.key, key) else recorded

    def _missing(self, recorded: LockEntry | None, outs: Iterable[Out] | None) -> tuple[str, ...]:
        """Return the outputs that cannot be had. `outs` of None: not known, so any of them may be kept in Git."""
        if recorded is None:
            return ()
        in_git = {out.path for out in recorded.outs} if outs is None else {out.path for out in outs if not out.cache}
        return tuple(
            out.path
            for out in recorded.outs
            if not self._available.has(out.path, out.digest)
            and not (out.path in in_git and self.metrics.in_commit(out.path, out.digest.md5) is not None)
        )

    def _find_cached(self, key: EntryKey, inputs: StageInputs) -> LockEntry | None:
        found = find_cached(key, inputs.directory, root=self._root, objects=self._objects, available=self._available)
        if found is not None:
            return found.entry
        return self._find_made_elsewhere(key, inputs) if self._graph.spec.results == "on-merge" else None

    def _find_made_elsewhere(self, key: EntryKey, inputs: StageInputs) -> LockEntry | None:
        """Return a result that the remote's run-cache has for this key and of which every output can be had."""
        from mlstack.drivers.dvc.run_cache import parse_run

        executable = frozenset(dep.path for dep in key.deps if is_executable(f"{self._root}/{dep.path}"))
        name = run_cache_key(key, inputs.directory, executable=executable)
        if name not in self._elsewhere.runs:
            self._unknown_runs[name] = None
            return None
        for text in self._elsewhere.runs[name]:
            found = parse_run(text, inputs.directory)
            if found and found.entry and is_same_key(found.entry.key, key) and self._available.has_all(found.entry):
                return found.entry
        return None

    def _availability(self, recorded: LockEntry | None, missing: Sequence[str]) -> Observation:
        if recorded is None:
            return Absent(reason="nothing is recorded")
        if missing:
            return self._not_here(f"{', '.join(missing)} is neither in the workspace nor in DVC's cache")
        return Present()

    def _not_here(self, where: str) -> Absent | NotChecked:
        """Say what is known of a content that is not on this machine: a remote that was not asked may have it."""
        if self._elsewhere.not_checked:
            return NotChecked(reason=self._elsewhere.not_checked)
        return Absent(reason=f"{where}, nor in the remote" if self._elsewhere.remote else where)
