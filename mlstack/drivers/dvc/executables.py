"""Which outputs and dependencies are executable files: `dvc.lock` records that beside their hash."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Lock

from mlstack.drivers.dvc.lockfile import read_lock
from mlstack.drivers.dvc.objects import is_executable
from mlstack.graph.graph import LockEntry


class Executables:
    """What is known of one project: the workspace knows best, then this command, then `dvc.lock`."""

    def __init__(self, root: Path, directories: Collection[str], *, cache_folder: Path | None) -> None:
        self._root, self._directories, self._cache_folder = root, directories, cache_folder
        self._learnt: dict[str, bool] = {}
        self._recorded: set[str] | None = None
        self._lock = Lock()

    def learn(self, known: Mapping[str, bool]) -> None:
        """Note what was seen of outputs."""
        with self._lock:
            self._learnt |= known

    def in_entry(self, entry: LockEntry) -> frozenset[str]:
        """Return the paths that have, or had when they were recorded, the execute bit."""
        paths = [dep.path for dep in entry.key.deps] + [out.path for out in entry.outs]
        return frozenset(path for path in paths if self._is(path))

    def was(self, path: str) -> bool:
        """Whether a path was recorded with an execute bit, by this command or in `dvc.lock` before it."""
        with self._lock:
            if path in self._learnt:
                return self._learnt[path]
            if self._recorded is None:
                locks = (read_lock(self._root, each, cache_folder=self._cache_folder) for each in self._directories)
                self._recorded = {path for lock in locks for found in lock.stages.values() for path in found.executable}
            return path in self._recorded

    def _is(self, path: str) -> bool:
        full = f"{self._root}/{path}"
        return is_executable(full) if os.path.lexists(full) else self.was(path)
