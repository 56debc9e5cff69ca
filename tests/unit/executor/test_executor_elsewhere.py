"""Runs that are not on this machine: submitted once, followed by whoever comes, tried again by cause."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunResult, Say
from mlstack.drivers.elsewhere import RemoteOrder, RemoteResult, RunOutcome
from mlstack.executor.work import Work
from mlstack.graph.graph import EntryKey, Hashed, LockEntry, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Stage
from mlstack.state.state import RemoteHandle, RunRecord
from tests.scenarios.fake_project import FakeProject
from tests.scenarios.fake_world import FakeHands

FILE = """
version: 1
project: demo
stages:
  a: {cmd: make a, outs: [a.bin], retry: {preempted: 1}}
  b: {cmd: make b, outs: [b.bin], deps: [stages.a]}
"""
A, B = Address("stages.a"), Address("stages.b")
GOOD, TAKEN, WRONG = (
    RunResult(exit_code=0),
    RunResult(exit_code=None, cause="preempted", detail="taken away"),
    RunResult(exit_code=1, cause="error"),
)


class Elsewhere:
    """A place where attempts end as they are told to; None: it is still going on when we leave."""

    name = "elsewhere"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: list[RunResult | None] = []
        self.submitted: list[tuple[Address, int, bool]] = []
        self.refuses = False
        self.on_wait: Callable[[RunRecord], None] = lambda _run: None
        self._done: set[str] = set()

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        del stage, pool
        return ()

    def handle_of(self, order: RemoteOrder) -> RemoteHandle:
        place = {"job": f"{order.stage.address}-{order.attempt}"}
        prefix = f"{fingerprint(order.key)}{order.again}/"
        return RemoteHandle(target=self.name, place=place, store=str(self.folder), prefix=prefix)

    def next_attempt(self, order: RemoteOrder) -> int:
        return 1 + max((number for address, number, _ in self.submitted if address == order.stage.address), default=0)

    def missing_inputs(self, order: RemoteOrder) -> Mapping[str, FileDigest]:
        del order
        return {}

    def submit(self, order: RemoteOrder, handle: RemoteHandle, *, say: Say) -> None:
        del handle, say
        if self.refuses:
            raise MlstackError(Diagnostic(code="no", summary="No"))
        self.submitted.append((order.stage.address, order.attempt, order.off_spot))

    def wait(self, stage: Stage, run: RunRecord, *, say: Say, is_left: Callable[[], bool]) -> RunResult | None:
        del stage, say, is_left
        self.on_wait(run)
        end = self.ends.pop(0) if self.ends else GOOD
        if end is not None and end.cause is None and run.remote is not None:
            self._done.add(run.remote.prefix)
        return end

    def log(self, run: RunRecord, *, follow: bool) -> Iterator[bytes]:
        del run, follow
        yield b""

    def outcome(self, run: RunRecord) -> RunOutcome:
        del run
        return RunOutcome(goes_on=True)

    def result(self, handle: RemoteHandle, key: EntryKey) -> RemoteResult | None:
        if handle.prefix not in self._done:
            return None
        digest = FileDigest(md5=fingerprint(key)[:32], size=1)
        return RemoteResult(
            entry=LockEntry(key=key, outs=tuple(Hashed(path=path, digest=digest) for path in key.out_paths))
        )

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        del run, grace


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    made = FakeProject(tmp_path / "project")
    made.write({"mlstack.yaml": FILE})
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Everything runs there; whoever claimed a run before is gone."""
    place = Elsewhere(tmp_path / "remote")

    def order(hands: FakeHands, stage: Stage, key: EntryKey, *, image: str, runner: str, again: str) -> RemoteOrder:
        return RemoteOrder(
            stage=stage,
            pool=Pool(address=stage.pool),
            graph=hands.graph,
            key=key,
            root=hands.root,
            image=image,
            runner=runner,
            resources={},
            again=again,
        )

    monkeypatch.setattr(FakeHands, "remote_runner", lambda _hands, _stage: place)
    monkeypatch.setattr(FakeHands, "remote_runner_of", lambda _hands, run: place if run.remote else None)
    monkeypatch.setattr(FakeHands, "remote_order", order)
    for name in ("image_of", "runner_image_of"):
        monkeypatch.setattr(Work, name, lambda _work, _address: "image@sha256:1")
    monkeypatch.setattr("mlstack.executor.claims.is_owner_alive", lambda _run: False)
    return place


def runs(project: FakeProject) -> dict[Address, RunRecord]:
    """The records of runs; each stage has one."""
    return {run.address: run for run in project.store(project.graph()).runs()}


def test_it_runs_there_and_its_result_is_taken_over(project: FakeProject, elsewhere: Elsewhere) -> None:
    result = project.apply()
    assert result.outcome == "done"
    assert elsewhere.submitted == [(A, 1, False), (B, 1, False)]
    assert {run.status for run in runs(project).values()} == {"done"}
    assert project.world.ran == [], "nothing of it is on this machine"
    plan, _, _ = project.plan()
    assert plan.steps == ()


def test_what_is_left_is_followed_and_not_run_again(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.ends = [None]
    result = project.apply()
    assert result.outcome == "left"
    assert [step.outcome for step in result.results] == ["left", "not-started"]
    left = runs(project)[A]
    assert (left.status, left.remote and left.remote.place) == ("running", {"job": "stages.a-1"})

    project.world.running = [left]
    plan, _, _ = project.plan()
    assert plan.steps[0].action.value == "follow"
    assert project.apply().outcome == "done"
    assert elsewhere.submitted == [(A, 1, False), (B, 1, False)]


def test_the_last_try_is_off_spot(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.ends = [TAKEN]
    assert project.apply().outcome == "done"
    assert elsewhere.submitted == [(A, 1, False), (A, 2, True), (B, 1, False)]


def test_a_cause_without_a_rule_is_the_end(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.ends = [WRONG]
    result = project.apply()
    assert [step.outcome for step in result.results] == ["failed", "not-started"]
    assert runs(project)[A].status == "failed"


def test_a_followed_run_that_is_taken_away_is_tried_again(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.ends = [None]
    project.apply()
    project.world.running = list(runs(project).values())
    elsewhere.ends = [TAKEN]
    assert project.apply().outcome == "done"
    assert elsewhere.submitted[:2] == [(A, 1, False), (A, 2, True)]


def test_a_cancelled_run_is_not_tried_again(project: FakeProject, elsewhere: Elsewhere) -> None:
    def cancel(run: RunRecord) -> None:
        project.store(project.graph()).update_run(msgspec.structs.replace(run, status="cancelled"))

    elsewhere.on_wait, elsewhere.ends = cancel, [TAKEN]
    result = project.apply()
    assert result.outcome == "failed"
    assert elsewhere.submitted == [(A, 1, False)]
    assert runs(project)[A].status == "cancelled"


def test_what_cannot_be_submitted_is_over(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.refuses = True
    assert project.apply().outcome == "failed"
    assert runs(project)[A].status == "failed"
    elsewhere.refuses = False
    assert project.apply().outcome == "done"


def test_a_result_of_another_clone_is_restored(project: FakeProject, elsewhere: Elsewhere) -> None:
    project.apply()
    project.world.lock.clear()
    project.world.run_cache.clear()
    assert project.apply().outcome == "done"
    assert elsewhere.submitted == [(A, 1, False), (B, 1, False)]
