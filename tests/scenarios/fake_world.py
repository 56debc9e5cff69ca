"""A world in memory for scenario and property tests: DVC, processes and endpoints without their engines.

The file, the loader, the digests, the planner, the executor and the state are the real ones; only the drivers are not.
A "run" gives outputs that depend on the fingerprint alone, unless the stage is `constant`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import md5
from pathlib import Path
from threading import Event, Lock
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import (
    Absent,
    DatasetReading,
    Driver,
    ImageReading,
    Observation,
    Present,
    Readings,
    RunOrder,
    RunResult,
    Say,
    StageReading,
    StepContext,
)
from mlstack.drivers.elsewhere import RemoteOrder, RemoteResult, SupportsRemoteRun
from mlstack.drivers.stacks import Provider, StackDriver, StackEngine
from mlstack.graph.change import Change
from mlstack.graph.graph import EntryKey, Hashed, ImagePlan, LockEntry, ResourceGraph, entry_key, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.planner.images import image_attributes
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Dataset, Endpoint, Image, Pool, Resource, Stage
from mlstack.state.state import Record, RunRecord, State


class FakeWorld:
    """What lies outside: recorded results, the run-cache, endpoints that run."""

    def __init__(self) -> None:
        self.lock: dict[Address, LockEntry] = {}
        self.run_cache: dict[str, LockEntry] = {}
        self.datasets: dict[Address, tuple[FileDigest, str | None]] = {}
        self.gone: set[str] = set()
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.images: set[str] = set()
        self.built: list[Address] = []
        self.ran_in: dict[Address, str | None] = {}
        self.metrics: dict[Address, dict[str, float]] = {}
        self.constant: set[Address] = set()
        self.fails: set[Address] = set()
        self.ran: list[Address] = []
        self.running: list[RunRecord] = []
        self.cancelled: list[Address] = []

    def read(self, graph: ResourceGraph, prior: State | None) -> Readings:
        """Read the world as the real drivers do."""
        known: dict[str, FileDigest] = {}
        datasets = {}
        for address, desired in graph.datasets.items():
            recorded, source = self.datasets.get(address, (None, None))
            datasets[address] = DatasetReading(recorded=recorded, source=source)
            dataset = graph.resources[address]
            assert isinstance(dataset, Dataset)
            digest = desired or recorded
            if digest is not None:
                known[dataset.path] = digest
        for address in self.datasets.keys() - graph.resources.keys():
            recorded, source = self.datasets[address]
            datasets[address] = DatasetReading(recorded=recorded, source=source, path=f"of {address}")
        stages = {}
        for address in graph.order:
            if address in graph.stages:
                stages[address] = self._read_stage(graph, address, known)
        for address in self.lock.keys() - stages.keys():
            stages[address] = StageReading(recorded=self.lock[address])
        observations: dict[Address, Observation] = {}
        for address in [*graph.spec.of(Endpoint), *(prior.resources if prior else ())]:
            record = prior.resources.get(address) if prior else None
            if kind_of(address) is Kind.ENDPOINT:
                observations[address] = FakeEndpoints(self).read(None, record)
        running: dict[Address, tuple[RunRecord, ...]] = {}
        for run in self.running:
            running[run.address] = (*running.get(run.address, ()), run)
        return Readings(
            stages=stages, datasets=datasets, observations=observations, metrics=self.metrics, running=running
        )

    def _read_stage(self, graph: ResourceGraph, address: Address, known: dict[str, FileDigest]) -> StageReading:
        recorded = self.lock.get(address)
        key = entry_key(graph.stages[address], known)
        cached = None
        missing = tuple(out.path for out in recorded.outs if out.digest.md5 in self.gone) if recorded else ()
        if isinstance(key, EntryKey):
            if recorded is not None and fingerprint(recorded.key) == fingerprint(key) and not missing:
                known.update(recorded.digests())
            else:
                cached = self._lookup(key)
                known.update(cached.digests() if cached else {})
        outs: Observation = Absent(reason="not in the cache") if missing else Present()
        return StageReading(recorded=recorded, cached=cached, outs=outs, missing=missing)

    def _lookup(self, key: EntryKey) -> LockEntry | None:
        found = self.run_cache.get(fingerprint(key))
        return found if found and not any(out.digest.md5 in self.gone for out in found.outs) else None


class FakeEndpoints:
    """A driver of endpoints that are dictionaries."""

    name = "fake-endpoint"

    def __init__(self, world: FakeWorld) -> None:
        self.world = world

    def read(self, resource: Resource | None, record: Record | None) -> Observation:
        del resource
        if record is None:
            return Absent(reason="never made")
        running = self.world.endpoints.get(record.attributes["name"])
        return Absent(reason="process is gone") if running is None else Present(attributes=running)

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        del graph
        assert isinstance(resource, Endpoint)
        return {
            "replicas": resource.replicas.min,
            "env": {**resource.env, **dict.fromkeys(resource.computed)},
            **({"port": resource.port} if resource.port is not None else {}),
            "variants": {name: {"version": versions.get(variant.model)} for name, variant in resource.variants.items()},
        }

    def described(
        self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]
    ) -> dict[str, Any] | None:
        return None if isinstance(resource, Pool) else self.desired(resource, graph, versions)

    def apply(self, change: Change, context: StepContext) -> Record:
        endpoint = context.resource
        assert isinstance(endpoint, Endpoint)
        if change.address in self.world.fails:
            raise MlstackError(Diagnostic(code="fake", summary="The endpoint did not get ready"))
        assert not endpoint.computed, "what is not known yet must not reach a driver's hands"
        attributes = {"name": change.address, **self.desired(endpoint, context.graph, context.versions)}
        attributes["url"] = f"http://127.0.0.1:{endpoint.port or 20000 + len(change.address)}"
        self.world.endpoints[change.address] = attributes
        return Record(address=change.address, driver=self.name, attributes=attributes)

    def delete(self, record: Record, context: StepContext) -> None:
        del context
        self.world.endpoints.pop(record.attributes["name"], None)


class FakeImages:
    """A driver of images that are built by saying so."""

    name = "fake-image"

    def __init__(self, world: FakeWorld) -> None:
        self.world = world

    def read(self, resource: Resource | None, record: Record | None) -> Observation:
        del resource
        is_there = record is not None and record.attributes["image_id"] in self.world.images
        return Present() if is_there else Absent(reason="not on the engine")

    def look_at(self, plan: ImagePlan, record: Record | None) -> ImageReading:
        del plan
        return ImageReading(observation=self.read(None, record), builder="fake builder")

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        del versions
        return image_attributes(graph.images[resource.address])

    def apply(self, change: Change, context: StepContext) -> Record:
        assert context.resource is not None
        attributes = image_attributes(context.graph.images[change.address])
        identifier = f"sha256:{attributes['tag']}"
        self.world.images.add(identifier)
        self.world.built.append(change.address)
        attributes |= {"digest": None, "image_id": identifier, "builder": "fake"}
        return Record(address=change.address, driver=self.name, attributes=attributes)

    def delete(self, record: Record, context: StepContext) -> None:
        raise AssertionError("images are forgotten, never deleted")


class FakeResults:
    """A result store in memory."""

    def __init__(self, world: FakeWorld, graph: ResourceGraph) -> None:
        self.world, self.graph = world, graph
        self._mutex = Lock()
        self.notices: tuple[Diagnostic, ...] = ()

    def bring(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        del wanted, say

    def obtain(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        del wanted, say

    def publish(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        del wanted, say

    def publish_result(self, address: Address, entry: LockEntry, *, say: Say) -> None:
        del address, entry, say

    def occupied(
        self, address: Address, *, run: str, say: Say, stop: Callable[[], bool]
    ) -> AbstractContextManager[Callable[[int], None] | None]:
        del address, run, say, stop
        return nullcontext(lambda _pid: None)

    def prepare(self, address: Address) -> None:
        del address

    def commit(self, address: Address, entry_key: EntryKey, *, keep_in_run_cache: bool = True) -> LockEntry:
        seed = address if address in self.world.constant else fingerprint(entry_key)
        outs = tuple(
            Hashed(path=path, digest=FileDigest(md5=md5(f"{seed}{path}".encode()).hexdigest(), size=len(path)))
            for path in entry_key.out_paths
        )
        entry = LockEntry(key=entry_key, outs=outs)
        with self._mutex:
            self.world.ran.append(address)
            self.world.gone -= {out.digest.md5 for out in outs}
            if keep_in_run_cache:
                self.world.run_cache[fingerprint(entry_key)] = entry
        return entry

    def provide(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        del wanted, say

    def adopt(self, address: Address, result: RemoteResult, *, say: Say) -> LockEntry:
        del address, say
        return result.entry

    def lookup(self, address: Address, entry_key: EntryKey) -> LockEntry | None:
        del address
        return self.world._lookup(entry_key)

    def record(self, entries: Mapping[Address, LockEntry], *, forget: Sequence[Address] = ()) -> None:
        with self._mutex:
            self.world.lock.update(entries)
            for address in forget:
                self.world.lock.pop(address, None)

    def flush(self) -> None:
        return

    def write_definitions(
        self, *, moved: Mapping[Address, LockEntry] | None = None, forget: Collection[Address] | None = None
    ) -> Sequence[str]:
        with self._mutex:
            self.world.lock |= moved or {}
            orphans = self.world.lock.keys() - self.graph.stages.keys()
            for address in orphans if forget is None else orphans & set(forget):
                del self.world.lock[address]
        return ()

    def add_dataset(self, dataset: Dataset, *, say: Say) -> FileDigest:
        del say
        digest = self.graph.datasets.get(dataset.address)
        if digest is None:
            text = dataset.source or ""
            digest = FileDigest(md5=md5(text.encode()).hexdigest(), size=len(text))
        self.world.datasets[dataset.address] = (digest, dataset.source)
        return digest


class FakeRunner:
    """Runs nothing; what it "made" is decided when it is committed."""

    name = "fake"

    def __init__(self, world: FakeWorld) -> None:
        self.world = world

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        del stage, pool
        return ()

    def inherited(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        return environ

    def start(self, order: RunOrder) -> tuple[int, float]:
        self.world.ran_in[order.stage.address] = order.image
        return 2**22 + 1, 0.0

    def wait(self, order: RunOrder, run: RunRecord, *, say: Say, stop: Event) -> RunResult:
        del run, say, stop
        if order.stage.address in self.world.fails:
            return RunResult(exit_code=1, cause="error", detail="it fails", log_tail=("boom",))
        return RunResult(exit_code=0)

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        del grace
        self.world.cancelled.append(run.address)
        self.world.running = [other for other in self.world.running if other != run]


class FreeAdmission:
    """Lets everybody in."""

    def admit(
        self, stage: Stage, *, stop: Callable[[], bool], on_wait: Callable[[str], None]
    ) -> Mapping[str, str] | None:
        del stage
        return None if stop() else {}

    def leave(self, stage: Stage) -> None:
        del stage


class FakeHands:
    """The drivers of one apply on a fake world."""

    def __init__(self, world: FakeWorld, graph: ResourceGraph, root: Path) -> None:
        self.world, self.graph, self.root = world, graph, root
        self.results = FakeResults(world, graph)
        self.admission = FreeAdmission()

    def forget_dataset(self, address: Address, path: str) -> None:
        del path
        self.world.datasets.pop(address, None)

    def runner(self, stage: Stage) -> FakeRunner:
        del stage
        return FakeRunner(self.world)

    def runner_of(self, run: RunRecord) -> FakeRunner:
        del run
        return FakeRunner(self.world)

    def remote_runner(self, stage: Stage) -> SupportsRemoteRun | None:
        del stage
        return None

    def remote_runner_of(self, run: RunRecord) -> SupportsRemoteRun | None:
        del run
        return None

    def remote_order(self, stage: Stage, key: EntryKey, *, image: str, runner: str, again: str) -> RemoteOrder:
        raise AssertionError("nothing runs elsewhere here")

    def order_of(self, stage: Stage, run: RunRecord) -> RunOrder:
        return self.order(stage, run.fingerprint, attempt=run.attempt, extra={}, say=lambda _line: None)

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
        del say
        return RunOrder(
            stage=stage,
            pool=Pool(address=stage.pool),
            fingerprint=fingerprint,
            folder=self.root / ".mlstack" / "runs" / fingerprint[:16],
            root=self.root,
            resources={},
            environment=dict(extra),
            attempt=attempt,
            image=image,
        )

    def driver(self, resource: Endpoint | Image) -> Driver:
        return FakeImages(self.world) if isinstance(resource, Image) else FakeEndpoints(self.world)

    def stack_driver(self, resource: Endpoint | Pool) -> StackDriver | None:
        del resource
        return None

    def stack_engine(self, providers: Sequence[Provider]) -> StackEngine:
        del providers
        raise AssertionError("nothing is made in stacks here")

    def driver_named(self, name: str) -> Driver:
        assert name == FakeEndpoints.name
        return FakeEndpoints(self.world)

    def changed_inputs(self, key: EntryKey) -> tuple[str, ...]:
        del key
        return ()

    def metrics_of(self, address: Address, entry: LockEntry) -> dict[str, float]:
        del entry
        return self.world.metrics.get(address, {})
