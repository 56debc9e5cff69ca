"""Runs that are not on this machine: submitted once, followed by whoever comes, tried again by cause."""

from pathlib import Path

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.base import RunResult
from mlstack.drivers.elsewhere import RemoteOrder
from mlstack.executor.events import StepFailed
from mlstack.spec.address import Address
from mlstack.state.state import RunRecord
from tests.scenarios.fake_project import FakeProject
from tests.unit.executor.fake_elsewhere import Elsewhere, run_elsewhere

FILE = """
version: 1
project: demo
stages:
  a: {cmd: make a, outs: [a.bin], retry: {preempted: 1}}
  b: {cmd: make b, outs: [b.bin], deps: [stages.a]}
"""
A, B = Address("stages.a"), Address("stages.b")
TAKEN, WRONG = (
    RunResult(exit_code=None, cause="preempted", detail="taken away"),
    RunResult(exit_code=1, cause="error"),
)


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    made = FakeProject(tmp_path / "project")
    made.write({"mlstack.yaml": FILE})
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    return run_elsewhere(tmp_path / "remote", monkeypatch)


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


def test_what_is_cancelled_right_before_it_is_submitted_is_not(
    project: FakeProject, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cancelled it found nothing to end, and was told that it is cancelled."""

    def cancel(_order: RemoteOrder) -> int:
        store = project.store(project.graph())
        store.update_run(msgspec.structs.replace(store.runs(A)[0], status="cancelled"))
        return 1

    monkeypatch.setattr(elsewhere, "next_attempt", cancel)
    assert project.apply().outcome == "failed"
    assert elsewhere.submitted == []
    assert runs(project)[A].status == "cancelled"


def test_who_cannot_look_any_more_hears_that_it_goes_on(project: FakeProject, elsewhere: Elsewhere) -> None:
    """A login that expires in the middle of it: the run does not need it."""

    def expired(_run: RunRecord) -> None:
        raise MlstackError(Diagnostic(code="no-login", summary="The cluster does not know who is asking"))

    elsewhere.on_wait = expired
    assert project.apply().outcome == "failed"
    failed = [
        each
        for event in project.events
        if isinstance(event, StepFailed) and event.address == A
        for each in event.diagnostics
    ]
    assert [(each.code, each.severity) for each in failed] == [
        ("no-login", Severity.ERROR),
        ("run-goes-on", Severity.WARNING),
    ]
    assert runs(project)[A].status == "running"
    elsewhere.on_wait = lambda _run: None
    assert project.apply().outcome == "done"
    assert [number for address, number, _ in elsewhere.submitted if address == A] == [1]


def test_what_cannot_be_submitted_is_over(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.refuses = True
    assert project.apply().outcome == "failed"
    assert runs(project)[A].status == "failed"
    elsewhere.refuses = False
    assert project.apply().outcome == "done"


def test_what_was_submitted_and_not_answered_is_followed_and_not_run_again(
    project: FakeProject, elsewhere: Elsewhere
) -> None:
    """An API server that dies right after it has made the Job."""
    elsewhere.loses_answers = True
    assert project.apply().outcome == "failed"
    assert runs(project)[A].status == "running"
    elsewhere.loses_answers = False
    assert project.apply().outcome == "done"
    assert [number for address, number, _ in elsewhere.submitted if address == A] == [1]


def test_a_result_of_another_clone_is_restored(project: FakeProject, elsewhere: Elsewhere) -> None:
    project.apply()
    project.world.lock.clear()
    project.world.run_cache.clear()
    assert project.apply().outcome == "done"
    assert elsewhere.submitted == [(A, 1, False), (B, 1, False)]
