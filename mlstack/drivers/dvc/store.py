"""Results and datasets kept by DVC: what apply writes. Implements `mlstack.drivers.base.ResultStore`.

Cache objects, run-cache, `dvc.lock`, `.dvc` files and `.gitignore` are written directly in DVC's formats (its own calls
take 200 ms a stage); the remote is `sharing.py`'s, which imports the DVC library when it is asked.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import RLock

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.attempts import left_until, newest_change
from mlstack.drivers.dvc.checkout import Workspace, damaged_object, fetched_again
from mlstack.drivers.dvc.datasets import RecordedDataset, dataset_file, dataset_text, foreign_dataset, read_dataset
from mlstack.drivers.dvc.definitions import Definitions, Place
from mlstack.drivers.dvc.documents import write_durably
from mlstack.drivers.dvc.entries import RecordedStage, run_cache_value, write_entry
from mlstack.drivers.dvc.executables import Executables
from mlstack.drivers.dvc.gitignore import check_untracked, ignore
from mlstack.drivers.dvc.lock_writer import LockWriter
from mlstack.drivers.dvc.lockfile import read_lock
from mlstack.drivers.dvc.locking import RepositoryLock
from mlstack.drivers.dvc.metrics import MetricsReader
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.read import Availability, find_cached
from mlstack.drivers.dvc.saving import Saver
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.dvc.sharing import Sharing
from mlstack.drivers.dvc.store_problems import held_twice, not_made, unwritable
from mlstack.drivers.dvc.yaml_text import dump_yaml
from mlstack.drivers.elsewhere import RemoteResult
from mlstack.graph.digest import Digester
from mlstack.graph.graph import EntryKey, Hashed, LockEntry, ResourceGraph
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, slug
from mlstack.spec.spec import Dataset, Out

WRITE_EVERY = 1.0


class DvcResults:
    """The results of one project during one apply. Every method may be called from any thread."""

    def __init__(
        self,
        root: Path,
        graph: ResourceGraph,
        *,
        cache_folder: Path | None = None,
        repository_lock: RepositoryLock | None = None,
        publishing: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._graph, self._cache_folder, self._clock = root, graph, cache_folder, clock
        self.publishing = publishing
        self._settings = read_settings(root)
        self._objects = Objects(self._settings.cache)
        self.sharing = Sharing(root, self._settings, self._objects, declared=graph.spec.remote)
        self._saver = Saver(root, self._settings, self._objects)
        self._hashes = HashCache(cache_folder / "digests" if cache_folder else None)
        self._digester = Digester(root, cache=self._hashes)
        self._available = Availability(self._objects, self._digester)
        self._workspace = Workspace(root, self._objects, self._digester, links=self._settings.links)
        self._metrics = MetricsReader(root, self._objects, self._available.in_workspace, cache_folder=cache_folder)
        self._lock = repository_lock if repository_lock is not None else RepositoryLock(self._settings)
        self._mutex = RLock()
        self._writers: dict[str, LockWriter] = {}
        self._written_at = clock() - WRITE_EVERY
        self._unwritten: dict[str, FileDigest] = {}
        self._orphans: dict[Address, Place] = {}
        directories = {inputs.directory for inputs in graph.stages.values()}
        self._executables = Executables(root, directories, cache_folder=cache_folder)

    @property
    def notices(self) -> Sequence[Diagnostic]:
        """What people should know: things that were moved aside, or found damaged."""
        return tuple(self._workspace.notices)

    # ------------------------------------------------------------------------------------------------ workspace

    def holds(self, path: str, digest: FileDigest) -> bool:
        """Whether the workspace has this content at `path`."""
        with self._mutex:
            return self._workspace.holds(path, digest)

    def bring(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Make the workspace hold these contents. Raises `MlstackError` for what cannot be had."""
        with self._mutex:
            differing = {path: digest for path, digest in wanted.items() if not self._workspace.holds(path, digest)}
            absent = {path: digest for path, digest in differing.items() if not self._objects.has(digest)}
        if absent:
            self.sharing.fetch(absent, say=say)  # may take long: others go on meanwhile
        damaged = self._check_out(differing, say)
        if damaged and self.sharing.place is not None:
            self.sharing.fetch(damaged, say=say)
            self._workspace.notices.extend(fetched_again(path, damaged[path].md5) for path in sorted(damaged))
            damaged = self._check_out(damaged, say)
        if damaged:
            raise MlstackError(*(damaged_object(path, digest.md5) for path, digest in sorted(damaged.items())))

    def _check_out(self, wanted: Mapping[str, FileDigest], say: Say) -> dict[str, FileDigest]:
        if not wanted:
            return {}
        with self._mutex, self._lock.held(self._absolute(wanted)):
            return self._workspace.check_out_all(wanted, executable=self._executables.was, say=say)

    def obtain(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Have contents (name → digest) on this machine; without a remote, whoever needs them says what is missing."""
        with self._mutex:
            lacking = {name: digest for name, digest in wanted.items() if not self._available.has(name, digest)}
        if lacking and self.sharing.place is not None:
            self.sharing.fetch(lacking, say=say)

    def publish(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Make sure that the remote has these contents. Raises `MlstackError` when it cannot get everything."""
        if self.publishing and self.sharing.place is not None:
            self.sharing.publish(wanted, say=say)

    def publish_result(self, address: Address, entry: LockEntry, *, say: Say) -> None:
        """Push what a stage made (metrics that Git keeps too, as DVC restores), then run-cache entry and provenance."""
        if self.publishing and self.sharing.place is not None:
            here = {out.path: out.digest for out in entry.outs if self._objects.find(out.digest.md5) is not None}
            self.sharing.publish(here, say=say)
            directory = self._graph.stages[address].directory
            folder = self._objects.run_folder(entry.key, directory, self._executables.in_entry(entry))
            self.sharing.push_record(Path(folder).name, entry)

    def provide(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Put contents of this machine into the remote, which a run elsewhere needs. Raises `MlstackError`."""
        if wanted:
            self.sharing.publish(wanted, say=say)

    def adopt(self, address: Address, result: RemoteResult, *, say: Say) -> LockEntry:
        """Take a result over that is in the remote: what Git keeps comes into the workspace, the rest stays there.

        The run-cache has it afterwards, here and in the remote, so that another branch restores it.
        """
        inputs, entry = self._graph.stages[address], result.entry
        self._executables.learn({out.path: out.path in result.executable for out in entry.outs})
        in_git = {out.path for out in inputs.outs if not out.cache}
        self.bring({out.path: out.digest for out in entry.outs if out.path in in_git}, say=say)
        if entry.outs and not self._is_always(address):
            with self._lock.held():
                self._keep_run(entry, inputs.directory)
            folder = self._objects.run_folder(entry.key, inputs.directory, self._executables.in_entry(entry))
            self.sharing.push_runs_of(Path(folder).name)
        return entry

    def occupied(
        self, address: Address, *, run: str, say: Say, stop: Callable[[], bool]
    ) -> AbstractContextManager[Callable[[int], None] | None]:
        """Keep `dvc` commands out of what a stage reads and writes here (`ResultStore.occupied`)."""
        inputs = self._graph.stages[address]
        return self._lock.occupied(
            f"mlstack {address} {run}",
            read=self._absolute(dep.path for dep in inputs.deps),
            write=self._absolute(out.path for out in inputs.outs),
            on_wait=say,
            stop=stop,
        )

    def prepare(self, address: Address) -> None:
        """Remove the stage's outputs and make their parent folders.

        DVC deletes whatever lies at an output. So does this, but what is neither in the cache nor in the last commit,
        and was not left behind by an attempt of mlstack's that failed, is moved to `.mlstack/kept/` (see `notices`).
        """
        inputs = self._graph.stages[address]
        mark = self._attempt_mark(address)
        with self._mutex, self._lock.held(self._absolute(out.path for out in inputs.outs)):
            ours_until = left_until(mark)
            for out in inputs.outs:
                self._workspace.clear(out.path, keep=newest_change(self._root / out.path) > ours_until)
                _make_parent(self._root / out.path)
            try:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            except OSError as error:
                raise MlstackError(unwritable(mark, error)) from error

    def _attempt_mark(self, address: Address) -> Path:
        """Return the file that says: what lies at the outputs was made by a run of ours that did not end well."""
        return self._root / ".mlstack" / "runs" / slug(address) / "prepared"

    # ------------------------------------------------------------------------------------------------ results

    def commit(self, address: Address, entry_key: EntryKey, *, keep_in_run_cache: bool = True) -> LockEntry:
        """Put the outputs into the cache and the run-cache. Raises `MlstackError` naming outputs that are not there."""
        inputs = self._graph.stages[address]
        absent = [out.path for out in inputs.outs if not (self._root / out.path).exists()]
        if absent:
            raise MlstackError(not_made(address, absent))
        with self._lock.held(self._absolute(out.path for out in inputs.outs)):
            outs = [self._save(out, keep=keep_in_run_cache) for out in sorted(inputs.outs, key=lambda out: out.path)]
            entry = LockEntry(key=entry_key, outs=tuple(outs))
            if keep_in_run_cache and outs and not self._is_always(address):
                self._keep_run(entry, inputs.directory)
        self._attempt_mark(address).unlink(missing_ok=True)
        return entry

    def _save(self, out: Out, *, keep: bool) -> Hashed:
        # What Git keeps goes into the cache too, as a copy: the run-cache restores it from there, as DVC does.
        saved = self._saver.save(out.path, store=out.cache or keep)
        self._executables.learn({out.path: saved.executable})
        linked = self._settings.links[0] in {"hardlink", "symlink"}
        if linked and out.cache and not self._is_linked(out.path):
            self._workspace.relink(out.path, saved.digest)
        return Hashed(path=out.path, digest=saved.digest)

    def _is_linked(self, path: str) -> bool:
        return (self._root / path).is_symlink()

    def _keep_run(self, entry: LockEntry, directory: str) -> None:
        executable = self._executables.in_entry(entry)
        data = write_entry(entry, directory, executable=executable)
        folder = self._objects.run_folder(entry.key, directory, executable)
        self._saver.write_run(folder, run_cache_value(data), dump_yaml(data).encode())

    def _is_always(self, address: Address) -> bool:
        return bool(getattr(self._graph.resources.get(address), "always", False))

    def lookup(self, address: Address, entry_key: EntryKey) -> LockEntry | None:
        """Return the newest result in the run-cache for this key if all its outputs can be had by hash."""
        directory = self._graph.stages[address].directory
        with self._mutex:
            found = find_cached(entry_key, directory, root=self._root, objects=self._objects, available=self._available)
        if found is None or found.entry is None:
            return None
        self._executables.learn({out.path: out.path in found.executable for out in found.entry.outs})
        return found.entry

    def metrics_of(self, address: Address, entry: LockEntry) -> dict[str, float]:
        """Return the metrics in an entry's outputs: dotted path → number."""
        with self._mutex:
            return self._metrics.read(self._graph.stages[address], entry)

    # ------------------------------------------------------------------------------------------------ dvc.lock

    def record(self, entries: Mapping[Address, LockEntry], *, forget: Sequence[Address] = ()) -> None:
        """Have entries written to `dvc.lock`, about once a second; the caller has them in its journal."""
        with self._mutex:
            for address, entry in entries.items():
                inputs = self._graph.stages[address]
                self._writer(inputs.directory).put(inputs.entry_name, entry, self._executables.in_entry(entry))
                self._unwritten |= {out.path: out.digest for out in entry.outs}
            for address in forget:
                self._forget(address)
            if self._clock() - self._written_at >= WRITE_EVERY:
                self._write_locks()

    def flush(self) -> None:
        """Write what `record` still holds, and what was learnt about files."""
        with self._mutex:
            self._write_locks()
            self._hashes.save()
            self._metrics.save()

    def _forget(self, address: Address) -> None:
        place = self._orphans.pop(address, None)
        if place is None and address in self._graph.stages:
            inputs = self._graph.stages[address]
            place = Place(inputs.directory, inputs.entry_name)
        if place is not None:
            self._writer(place.directory).remove(place.name)

    def _write_locks(self) -> None:
        waiting = [writer for writer in self._writers.values() if writer.is_dirty]
        if waiting:
            with self._lock.held():
                self._save_again()
                for writer in waiting:
                    writer.write()
        self._written_at = self._clock()

    def _save_again(self) -> None:
        """Put back what a `dvc gc` removed between saving and writing `dvc.lock`, which is what it goes by."""
        for path, digest in self._unwritten.items():
            if not self._objects.has(digest) and self._workspace.holds(path, digest):
                self._saver.save(path)
        self._unwritten.clear()

    def _writer(self, directory: str) -> LockWriter:
        if directory not in self._writers:
            self._writers[directory] = LockWriter(self._root, directory, cache_folder=self._cache_folder)
        return self._writers[directory]

    # ------------------------------------------------------------------------------------------------ definitions

    def write_definitions(
        self, *, moved: Mapping[Address, LockEntry] | None = None, forget: Collection[Address] | None = None
    ) -> Sequence[str]:
        """Write `dvc.yaml`, the generated params and `.gitignore`; entries of stages in `forget` are dropped.

        `moved` are in `dvc.lock` before anything else is written, so that a kill in between loses no result. Raises
        `MlstackError`, with nothing written, where something of the user's is in the way.
        """
        with self._mutex:
            definitions = Definitions(self._graph, self._root, cache_folder=self._cache_folder)
            if forget is not None:
                definitions.keep([address for address in definitions.orphans if address not in forget])
            held = {
                out.path: address for address, inputs in self._graph.stages.items() for out in inputs.outs if out.cache
            }
            problems = [*definitions.problems, *check_untracked(self._root, held), *self._foreign_files(held)]
            if problems:
                raise MlstackError(*problems)
            odd = self._written_otherwise(definitions)
            for address, entry in (moved or {}).items():
                inputs = self._graph.stages[address]
                self._writer(inputs.directory).put(inputs.entry_name, entry, self._executables.in_entry(entry))
            self._write_locks()
            with self._lock.held():
                written = definitions.write()
                written += ignore(self._root, held)
            self._orphans |= definitions.orphans
            for address in list(definitions.orphans):
                self._forget(address)
            for (directory, name), found in odd.items():
                if found.entry is not None:
                    self._writer(directory).put(name, found.entry, found.executable)
            self._write_locks()
            return tuple(dict.fromkeys(written))

    def _written_otherwise(self, definitions: Definitions) -> dict[Place, RecordedStage]:
        """Return entries that DVC would take for changed, because it wrote the same command in another form."""
        return {
            Place(directory, name): found
            for directory, stages in definitions.stages.items()
            for name, found in read_lock(self._root, directory, cache_folder=self._cache_folder).stages.items()
            if found.is_normalised and name in stages
        }

    def _foreign_files(self, outs: Mapping[str, Address]) -> list[Diagnostic]:
        return [
            held_twice(path, address) for path, address in outs.items() if (self._root / dataset_file(path)).exists()
        ]

    # ------------------------------------------------------------------------------------------------ datasets

    def add_dataset(self, dataset: Dataset, *, say: Say, recording: bool = True) -> FileDigest:
        """Fetch or add a dataset: content into the cache, `.dvc` file, `.gitignore`, and the pin of a source.

        Without `recording` (a try) only its content is brought: no file that Git tracks is written.
        """
        from mlstack.drivers.dvc.add import DatasetAdder

        problems = check_untracked(self._root, {dataset.path: dataset.address})
        if problems:
            raise MlstackError(*problems)
        adder = DatasetAdder(self._root, self._graph, cache_folder=self._cache_folder)
        fetched: Path | None = None
        if dataset.source is not None:
            fetched = adder.fetch(dataset, is_here=self.holds, say=say)  # others go on meanwhile
        with self._mutex:
            with self._lock.held(self._absolute([dataset.path])):
                before = read_dataset(self._root, dataset.path, cache_folder=self._cache_folder)
                if fetched is not None:
                    self._workspace.clear(dataset.path)
                    _make_parent(self._root / dataset.path)
                    fetched.rename(self._root / dataset.path)
                if not recording:
                    if fetched is not None:
                        say("a try pins nothing, so the next one fetches it again; `mlstack lock` pins it")
                    return self._saver.save(dataset.path, say=say).digest
                digest = self._record_dataset(dataset, before, say)
            adder.pin(dataset, digest)
            return digest

    def _record_dataset(self, dataset: Dataset, before: RecordedDataset | None, say: Say) -> FileDigest:
        saved = self._saver.save(dataset.path, say=say)
        if before is not None and before.address is None:
            if before.digest.md5 == saved.digest.md5:
                return saved.digest
            raise MlstackError(foreign_dataset(dataset.path, dataset.address))
        now = RecordedDataset(digest=saved.digest, address=dataset.address, source=dataset.source)
        file = self._root / dataset_file(dataset.path)
        text = dataset_text(dataset.path, now, executable=saved.executable).encode()
        if not file.exists() or file.read_bytes() != text:
            write_durably(file, text)
        ignore(self._root, [dataset.path])
        if self._settings.links[0] in {"hardlink", "symlink"} and not self._is_linked(dataset.path):
            self._workspace.relink(dataset.path, saved.digest)
        return saved.digest

    def _absolute(self, paths: Iterable[str]) -> list[str]:
        return [f"{os.path.realpath(self._root)}/{path}" for path in paths]  # as DVC writes them


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MlstackError(unwritable(path, error)) from error
