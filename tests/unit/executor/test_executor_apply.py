"""The frame of an apply: journal, history and `dvc.lock` are written whatever happens in a step."""

from pathlib import Path

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOrder
from mlstack.executor.events import ApplyEnded, StepFailed
from mlstack.executor.interrupt import Interrupt
from mlstack.graph.sources import FileDigest
from mlstack.planner.plan import Scope
from mlstack.spec.address import Address
from mlstack.state.state import Entry
from mlstack.state.store import WritableState
from tests.scenarios.fake_project import FakeProject
from tests.scenarios.fake_world import FakeResults, FakeRunner

FILE = """
version: 1
project: demo
stages:
  a: {cmd: make a, outs: [a.bin]}
  b: {cmd: make b, outs: [b.bin], deps: [stages.a]}
"""


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    made = FakeProject(tmp_path)
    made.write({"mlstack.yaml": FILE})
    return made


def test_a_bug_in_a_step_is_raised_after_everything_is_written(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(FakeResults, "commit", broken)
        with pytest.raises(ZeroDivisionError):
            project.apply()
    store = project.store(project.graph())
    assert store.pending() == ()
    (record,) = store.history()
    assert record.outcome == "failed"
    assert [step.outcome for step in record.steps] == ["failed", "not-started"]


def test_results_that_cannot_be_written_stay_in_the_journal(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise MlstackError(Diagnostic(code="disk-full", summary="No space"))

    with monkeypatch.context() as patched:
        patched.setattr(FakeResults, "flush", full)
        with pytest.raises(MlstackError):
            project.apply()
    kept = [entry.address for entry in project.store(project.graph()).pending() if entry.lock_entry]
    assert kept == ["stages.a", "stages.b"]
    assert project.events[-1].__class__.__name__ == "ApplyEnded", "the person is told what was done"


def test_data_that_changes_while_it_is_applied(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "version: 1\nproject: demo\ndatasets: {d: {path: d.csv}}\n"
    project.write({"mlstack.yaml": f"{text}stages: {{a: {{cmd: make a, outs: [a.bin], deps: [datasets.d]}}}}\n"})
    for content in ("one", "two"):
        project.write({"d.csv": content})
        project.apply()
    project.write({"d.csv": "one"})
    plan, _, _ = project.plan()
    assert [step.action.value for step in plan.steps] == ["update", "restore"]
    others = FileDigest(md5="e" * 32, size=1)
    monkeypatch.setattr(FakeResults, "add_dataset", lambda *_arguments, **_more: others)
    result = project.apply()
    assert result.outcome == "failed"
    assert result.of("failed") == ()
    (left,) = result.of("not-started")
    assert left.detail == (
        "to be planned anew: the plan says restore, what is known now asks for run (dep-changed d.csv)"
    )


def test_what_was_done_is_said_where_it_is_not_what_was_planned(project: FakeProject) -> None:
    project.apply()
    project.world.constant = {Address("stages.a")}
    project.apply(Scope(replace=(Address("stages.a"),)))
    result = project.apply(Scope(replace=(Address("stages.a"),)))
    assert {step.address: step.action for step in result.results} == {"stages.a": "run", "stages.b": "no-op"}


def test_what_is_cancelled_right_before_it_begins_is_ended(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cancelled it found nothing to end, and was told that it is cancelled."""
    start = FakeRunner.start

    def cancelled_then(runner: FakeRunner, order: RunOrder) -> tuple[int, float]:
        store = project.store(project.graph())
        store.update_run(msgspec.structs.replace(store.runs(Address("stages.a"))[0], status="cancelled"))
        return start(runner, order)

    monkeypatch.setattr(FakeRunner, "start", cancelled_then)
    result = project.apply()
    assert [step.outcome for step in result.results] == ["failed", "not-started"]
    assert project.world.cancelled == [Address("stages.a")]
    assert [run.status for run in project.store(project.graph()).runs()] == ["cancelled"]


def test_interrupted_before_it_began(project: FakeProject) -> None:
    interrupt = Interrupt()
    interrupt.raise_()
    result = project.apply(interrupt=interrupt)
    assert result.outcome == "interrupted"
    assert [step.outcome for step in result.of("not-started")] == ["not-started", "not-started"]
    assert project.world.ran == []


def test_destroy_touches_no_definition(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.apply()

    def forbidden(*_arguments: object, **_more: object) -> None:
        raise AssertionError

    monkeypatch.setattr(FakeResults, "write_definitions", forbidden)
    project.world.running = [project.run_record("stages.a", fingerprint="f" * 64)]
    result = project.apply(Scope(destroy=True))
    assert [step.address for step in result.results] == ["stages.a"]
    assert project.world.cancelled == [Address("stages.a")]


class Store:
    """The state's, which takes no entry any more from a certain one on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full_from = ""
        append = WritableState.append

        def limited(store: WritableState, entry: Entry) -> None:
            if self.full_from in (entry.event, "now"):
                self.full_from = "now"
                raise MlstackError(Diagnostic(code="state-store-unreachable", summary="The store does not answer"))
            append(store, entry)

        monkeypatch.setattr(WritableState, "append", limited)


def test_why_a_step_failed_is_said_also_when_that_cannot_be_recorded(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes first is mostly the reason for both, and what a person can do something about."""

    def broken(*_arguments: object, **_more: object) -> None:
        raise MlstackError(Diagnostic(code="broken", summary="It broke"))

    monkeypatch.setattr(FakeResults, "commit", broken)
    Store(monkeypatch).full_from = "step-failed"
    with pytest.raises(MlstackError):
        project.apply()
    said = [each.code for event in project.events if isinstance(event, StepFailed) for each in event.diagnostics]
    assert said == ["broken", "state-store-unreachable"]


def test_nothing_counts_as_applied_whose_end_is_not_recorded(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(monkeypatch)
    store.full_from = "apply-ended"
    with pytest.raises(MlstackError):
        project.apply()
    (ended,) = [event for event in project.events if isinstance(event, ApplyEnded)]
    assert [result.outcome for result in ended.results] == ["done", "done"]
    assert ended.outcome == "failed"
    store.full_from = ""
    assert project.apply().outcome == "done"
