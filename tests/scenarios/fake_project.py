"""One project on a fake world: plan and apply as the commands do, without their engines."""

import itertools
from pathlib import Path

from mlstack.executor.apply import ApplyResult, Who, apply
from mlstack.executor.events import Event
from mlstack.executor.interrupt import Interrupt
from mlstack.executor.work import Session, Work
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.resolve import resolve
from mlstack.planner.build_plan import Circumstances, build_plan
from mlstack.planner.diff import Diffed, diff
from mlstack.planner.plan import Plan, Scope
from mlstack.spec.address import Address
from mlstack.spec.load import load_spec
from mlstack.state.folder import FolderBackend
from mlstack.state.held_lock import ApplyLock, NoLock
from mlstack.state.state import Acceptance, Entry, RunRecord
from mlstack.state.store import open_store
from tests.scenarios.fake_world import FakeEndpoints, FakeHands, FakeImages, FakeWorld


class FakeProject:
    """A folder with a file, a state, and a fake world around it."""

    def __init__(self, root: Path, world: FakeWorld | None = None) -> None:
        self.root = root
        self.world = world or FakeWorld()
        self.events: list[Event] = []
        self._ids = itertools.count(1)

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")

    def graph(self, environment: str | None = None) -> ResourceGraph:
        spec = load_spec(self.root / "mlstack.yaml", environment=environment, environ={})
        return resolve(spec, digest_sources(spec, root=self.root, cache_folder=None))

    def backend(self, graph: ResourceGraph) -> FolderBackend:
        return FolderBackend(self.root / ".mlstack" / "state" / graph.spec.environment)

    def store(self, graph: ResourceGraph):  # type: ignore[no-untyped-def]
        return open_store(self.backend(graph), project=graph.spec.project, environment=graph.spec.environment)

    def plan(self, scope: Scope | None = None) -> tuple[Plan, Diffed, ResourceGraph]:
        scope = scope or Scope()
        graph = self.graph()
        prior = self.store(graph).state()
        readings = self.world.read(graph, prior)
        diffed = diff(
            graph,
            prior,
            readings,
            scope=scope,
            describe=lambda resource, versions: FakeEndpoints(self.world).described(resource, graph, versions),
            pins={},
            look_at=FakeImages(self.world).look_at,
        )
        plan = build_plan(
            diffed,
            graph,
            prior,
            scope=scope,
            circumstances=Circumstances(created="2026-01-01T00:00:00Z", commit=None, dirty=False),
            diagnostics=diffed.diagnostics,
        )
        return plan, diffed, graph

    def apply(
        self, scope: Scope | None = None, *, interrupt: Interrupt | None = None, lock: ApplyLock | None = None
    ) -> ApplyResult:
        plan, diffed, graph = self.plan(scope)
        store = self.store(graph)
        session = Session(
            root=self.root,
            apply_id=f"apply-{next(self._ids)}",
            now=lambda: "2026-01-01T00:00:00Z",
            interrupt=interrupt or Interrupt(),
            lock=lock or NoLock(),
            metrics=dict(self.world.metrics),
        )
        hands = FakeHands(self.world, graph, self.root)
        work = Work(plan, diffed, graph, store, hands=hands, session=session)
        self.events = []
        return apply(work, parallelism=4, who=Who(name="tester", host="here"), on_event=self.events.append)

    def run_record(self, address: str, *, fingerprint: str) -> RunRecord:
        """Return (and claim) a run that goes on although its applier is gone."""
        record = RunRecord(
            address=Address(address),
            fingerprint=fingerprint,
            status="running",
            host="here",
            owner_pid=1,
            owner_started=0.0,
            apply_id="gone",
            claimed_at="2026-01-01T00:00:00Z",
            pid=4711,
        )
        self.store(self.graph()).claim(record)
        return record

    def accept(self, address: str, because: str = "a comment") -> None:
        plan, diffed, graph = self.plan()
        change = next(change for change in plan.changes if change.address == address)
        recorded = diffed.views[change.address].reading.recorded
        assert recorded is not None
        assert change.fingerprint is not None
        from mlstack.graph.graph import fingerprint

        acceptance = Acceptance(
            address=change.address,
            fingerprint=change.fingerprint,
            recorded_fingerprint=fingerprint(recorded.key),
            because=because,
            who="tester",
            at="2026-01-01T00:00:00Z",
        )
        store = self.store(graph)
        store.append(
            Entry(
                at=acceptance.at,
                apply_id="accept",
                event="accepted",
                address=change.address,
                acceptance=acceptance,
            )
        )
        store.compact()
