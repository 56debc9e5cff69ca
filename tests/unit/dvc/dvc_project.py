"""A small project with real Git and real DVC, and the shortest possible apply."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlstack.drivers.base import Absent
from mlstack.drivers.dvc.objects import is_same_key
from mlstack.drivers.dvc.read import ResultReadings, read_results
from mlstack.drivers.dvc.store import DvcResults
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import EntryKey, LockEntry, ResourceGraph, entry_key
from mlstack.graph.resolve import resolve
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep, Out, Param, Pool, Resource, Spec, Stage
from mlstack.state.state import Entry

POOL = Address("compute.local")
DVC = [sys.executable, "-m", "dvc"]


def environment(home: Path) -> dict[str, str]:
    """Variables that keep Git and DVC to the test's own folders."""
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "system"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
    }


def stage(name: str, cmd: str, *, deps: Sequence[str | Dep] = (), outs: Sequence[str | Out] = (), **more: Any) -> Stage:
    """A stage with paths in short form."""
    return Stage(
        address=Address(f"stages.{name}"),
        cmd=cmd,
        pool=POOL,
        deps=tuple(dep if isinstance(dep, Dep) else Dep(dep) for dep in deps),
        outs=tuple(out if isinstance(out, Out) else Out(path=out) for out in outs),
        **more,
    )


class Project:
    """Files, a graph made from them, and what apply does with it."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.variables = {**os.environ, **environment(home)}
        self.cache_folder = root / ".mlstack" / "cache"
        self.resources: dict[Address, Resource] = {POOL: Pool(address=POOL)}
        self.directories: tuple[str, ...] = (".",)

    def start(self) -> "Project":
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "a@example.org")
        self.git("config", "user.name", "A")
        self.dvc("init", "-q")
        self.dvc("config", "core.analytics", "false")
        self.write(".mlstack/.gitignore", "*\n")
        return self

    def declare(self, *resources: Stage | Dataset) -> "Project":
        for resource in resources:
            self.resources[resource.address] = resource
        return self

    def forget(self, address: str) -> None:
        del self.resources[Address(address)]

    def write(self, path: str, text: str | bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        return target

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def git(self, *arguments: str) -> str:
        return self._run(["git", *arguments])

    def dvc(self, *arguments: str, check: bool = True) -> str:
        return self._run([*DVC, *arguments], check=check)

    def _run(self, command: list[str], *, check: bool = True) -> str:
        done = subprocess.run(command, cwd=self.root, env=self.variables, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def commit_all(self, message: str = "x") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    # ------------------------------------------------------------------------------------------------ mlstack

    def graph(self) -> ResourceGraph:
        spec = Spec(
            file="mlstack.yaml",
            project="test",
            environment="local",
            resources=dict(self.resources),
            directories=self.directories,
        )
        return resolve(spec, digest_sources(spec, root=self.root, cache_folder=self.cache_folder))

    def readings(self, pending: Sequence[Entry] = ()) -> ResultReadings:
        return read_results(self.graph(), root=self.root, pending=pending, cache_folder=self.cache_folder)

    def store(self, graph: ResourceGraph | None = None, **more: Any) -> DvcResults:
        return DvcResults(self.root, graph or self.graph(), cache_folder=self.cache_folder, **more)

    def apply(self) -> dict[str, str]:
        """Add datasets, restore or run what is not up to date, and record it. Returns what was done by address."""
        graph = self.graph()
        store = self.store(graph)
        store.write_definitions()
        done: dict[str, str] = {}
        for dataset in graph.spec.of(Dataset).values():
            if dataset.address in graph.datasets:
                store.add_dataset(dataset, say=print)
                done[dataset.address] = "added"
        graph = self.graph()
        store = self.store(graph)
        readings = read_results(graph, root=self.root, cache_folder=self.cache_folder)
        known = {
            dataset.path: found
            for address, dataset in graph.spec.of(Dataset).items()
            if (found := graph.datasets.get(address)) is not None
        }
        for address in graph.order:
            if address not in graph.stages:
                continue
            inputs = graph.stages[address]
            key = entry_key(inputs, known)
            assert isinstance(key, EntryKey), key
            reading = readings.stages[address]
            recorded = reading.recorded
            entry: LockEntry | None
            if recorded and is_same_key(recorded.key, key) and not isinstance(reading.outs, Absent):
                entry, what = recorded, "unchanged"
            elif (entry := store.lookup(address, key)) is not None:
                store.bring(entry.digests(), say=print)
                what = "restored"
            else:
                entry, what = self.run(store, address, key), "ran"
            store.record({address: entry})
            known.update(entry.digests())
            done[address] = what
        store.flush()
        return done

    def run(self, store: DvcResults, address: Address, key: EntryKey) -> LockEntry:
        resource = self.resources[address]
        assert isinstance(resource, Stage)
        store.bring({dep.path: dep.digest for dep in key.deps}, say=print)
        store.prepare(address)
        subprocess.run(resource.cmd, cwd=self.root / resource.directory, shell=True, check=True)
        return store.commit(address, key)


def params(values: Mapping[str, Any], *, file: str | None = None) -> tuple[Param, ...]:
    """Params in short form."""
    return tuple(Param(key=key, value=value, file=file) for key, value in values.items())
