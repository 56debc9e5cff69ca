"""The drivers of one apply, made from a graph: what the executor's `Hands` asks for."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import Driver, ResultStore, RunOrder, Say, SupportsRun
from mlstack.drivers.dvc.orphans import forget_dataset
from mlstack.drivers.dvc.store import DvcResults
from mlstack.drivers.elsewhere import RemoteOrder, SupportsRemoteRun
from mlstack.drivers.local.admission import StageAdmission
from mlstack.drivers.local.capacity import resources_of
from mlstack.drivers.local.environments import ensure_environment, python_variables
from mlstack.drivers.local.run_folder import folder_of
from mlstack.drivers.local.stage_environment import build_stage_environment
from mlstack.drivers.open_runs import target_of
from mlstack.drivers.registry import driver_for, driver_named, make_driver, pool_of, stack_driver, stack_engine
from mlstack.drivers.stacks import Provider, StackDriver, StackEngine
from mlstack.graph.digest import Digester
from mlstack.graph.graph import EntryKey, LockEntry, ResourceGraph
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Dataset, Endpoint, Image, Pool, Stage
from mlstack.state.environment_folder import OWN_FOLDER
from mlstack.state.state import RunRecord


class LocalHands:
    """Stages, results and endpoints on this machine.

    With `recording` False (`mlstack run`) results go into the cache and the run-cache, and into no file that Git
    tracks. With `publishing` False nothing goes to the remote.
    """

    def __init__(self, graph: ResourceGraph, *, root: Path, recording: bool = True, publishing: bool = True) -> None:
        cache = root / OWN_FOLDER / "cache"
        store = DvcResults(root, graph, cache_folder=cache, publishing=recording and publishing)
        self.results: ResultStore = store if recording else _Unrecorded(store)
        self.admission = StageAdmission(graph)
        self._graph, self._root, self._store = graph, root, store
        self._is_recording = recording
        self._hashes = HashCache(cache / "digests")
        self._runners: dict[str, SupportsRun] = {}

    def forget_dataset(self, address: Address, path: str) -> None:
        """Drop the record of a dataset that is not declared any more, or not at this path; its data stays."""
        if self._is_recording:
            forget_dataset(self._root, address, path)

    def runner(self, stage: Stage) -> SupportsRun:
        """Return what runs this stage; one for each target."""
        return self._runner(pool_of(stage, self._graph).target)

    def _runner(self, target: str) -> SupportsRun:
        if target not in self._runners:
            self._runners.setdefault(target, make_driver(Kind.STAGE, target, root=self._root))
        return self._runners[target]

    def runner_of(self, run: RunRecord) -> SupportsRun:
        """Return what started a run, also of a stage that is not declared any more."""
        return self._runner(target_of(run))

    def remote_runner(self, stage: Stage) -> SupportsRemoteRun | None:
        """Return what runs this stage elsewhere; None for a stage that runs on this machine."""
        return self._elsewhere(pool_of(stage, self._graph).target)

    def remote_runner_of(self, run: RunRecord) -> SupportsRemoteRun | None:
        """Return what follows or cancels a run elsewhere, also of a stage that is not declared any more."""
        return self._elsewhere(run.remote.target) if run.remote is not None else None

    def _elsewhere(self, target: str) -> SupportsRemoteRun | None:
        runner: object = self._runner(target)
        return runner if isinstance(runner, SupportsRemoteRun) else None

    def remote_order(self, stage: Stage, key: EntryKey, *, image: str, runner: str, again: str) -> RemoteOrder:
        """Decide everything about a run elsewhere but the number of its attempt."""
        pool = pool_of(stage, self._graph)
        return RemoteOrder(
            stage=stage,
            pool=pool,
            graph=self._graph,
            key=key,
            root=self._root,
            image=image,
            runner=runner,
            resources=resources_of(stage, pool),
            again=again,
        )

    def order(
        self,
        stage: Stage,
        fingerprint: str,
        *,
        attempt: int,
        extra: Mapping[str, str],
        say: Say,
        image: str | None = None,
    ) -> RunOrder:
        """Decide everything about one run. Its Python environment is made if it needs one and it is not there yet.

        `extra` are the variables that go with its share (GPUs); what the stage itself sets goes before them. `image` is
        what its container is made from, with its Python.
        """
        resources = resources_of(stage, pool_of(stage, self._graph))
        environment = build_stage_environment(
            stage,
            self._graph,
            root=self._root,
            resources=resources,
            attempt=attempt,
            python=self._python_variables(stage, say) if image is None else None,
            inherited={**self.runner(stage).inherited(os.environ), **extra},
        )
        order = self._order(stage, fingerprint, attempt=attempt, resources=resources, environment=environment)
        return msgspec.structs.replace(order, image=image)

    def order_of(self, stage: Stage, run: RunRecord) -> RunOrder:
        """Return what is needed to follow a run that was started before: nothing is made."""
        return self._order(stage, run.fingerprint, attempt=run.attempt, resources={}, environment={})

    def _order(
        self,
        stage: Stage,
        fingerprint: str,
        *,
        attempt: int,
        resources: dict[str, float],
        environment: dict[str, str],
    ) -> RunOrder:
        return RunOrder(
            stage=stage,
            pool=pool_of(stage, self._graph),
            fingerprint=fingerprint,
            folder=folder_of(self._root / OWN_FOLDER / "runs", stage.address, fingerprint),
            root=self._root,
            resources=resources,
            environment=environment,
            attempt=attempt,
        )

    def _python_variables(self, stage: Stage, say: Say) -> Mapping[str, str] | None:
        identity = self._graph.environments.get(stage.address)
        if stage.python.system or identity is None:
            return None
        ensure_environment(stage.python, identity, root=self._root, directory=stage.directory, say=say)
        return python_variables(
            stage.python,
            identity,
            root=self._root,
            directory=stage.directory,
            search_path=os.environ.get("PATH", os.defpath),
        )

    def driver(self, resource: Endpoint | Image | Pool) -> Driver:
        """Return the driver of an endpoint, an image or a pool that is made."""
        return driver_for(resource, self._graph, root=self._root)

    def stack_driver(self, resource: Endpoint | Pool) -> StackDriver | None:
        """Return the driver of what is made in a stack; None for everything else."""
        return stack_driver(resource, self._graph, root=self._root)

    def stack_engine(self, providers: Sequence[Provider]) -> StackEngine:
        """Return what makes stacks. Raises `MlstackError` when it cannot be used."""
        return stack_engine(self._graph.spec, root=self._root, providers=providers)

    def driver_named(self, name: str) -> Driver:
        """Return the driver that wrote a record whose declaration is gone."""
        return driver_named(name, root=self._root)

    def changed_inputs(self, key: EntryKey) -> tuple[str, ...]:
        """Return the inputs whose content in the workspace is not the one in `key`."""
        digester = Digester(self._root, cache=self._hashes)
        changed = []
        for dep in key.deps:
            found = digester.digest(dep.path)
            if found is None or found.md5 != dep.digest.md5:
                changed.append(dep.path)
        return tuple(changed)

    def metrics_of(self, address: Address, entry: LockEntry) -> dict[str, float]:
        """Read the metrics that an entry records."""
        return self._store.metrics_of(address, entry)


class _Unrecorded:
    """A result store for tries: everything but the files that Git tracks."""

    def __init__(self, store: DvcResults) -> None:
        self.bring = store.bring
        self.obtain = store.obtain
        self.publish = store.publish
        self.publish_result = store.publish_result
        self.provide = store.provide
        self.adopt = store.adopt
        self.occupied = store.occupied
        self.prepare = store.prepare
        self.commit = store.commit
        self.lookup = store.lookup
        self._store = store

    @property
    def notices(self) -> Sequence[Diagnostic]:
        """Return what people should know afterwards."""
        return self._store.notices

    def add_dataset(self, dataset: Dataset, *, say: Say) -> FileDigest:
        """Bring its content; neither `.dvc` file nor pin."""
        return self._store.add_dataset(dataset, say=say, recording=False)

    def record(self, entries: Mapping[Address, LockEntry], *, forget: Sequence[Address] = ()) -> None:
        """Record nothing."""

    def flush(self) -> None:
        """Write nothing."""

    def write_definitions(
        self, *, moved: Mapping[Address, LockEntry] | None = None, forget: Collection[Address] | None = None
    ) -> Sequence[str]:
        """Write nothing."""
        del moved, forget
        return ()
