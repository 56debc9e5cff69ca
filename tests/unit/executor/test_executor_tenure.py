"""The environment's lock is given back while an apply only waits for runs; what others do meanwhile is respected."""

import time
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import StepContext
from mlstack.drivers.local.endpoint_process import wait_until
from mlstack.executor.interrupt import Interrupt
from mlstack.executor.tenure import Tenure
from mlstack.graph.change import Change
from mlstack.spec.address import Address
from mlstack.state.environment_lock import EnvironmentLock, acquire, holder
from mlstack.state.held_lock import HeldLock
from mlstack.state.state import Entry, Record, RunRecord
from tests.scenarios.fake_project import FakeProject
from tests.scenarios.fake_world import FakeEndpoints
from tests.unit.executor.fake_elsewhere import Elsewhere, run_elsewhere

FILE = """
version: 1
project: demo
stages:
  train: {cmd: make model, outs: {model: model.bin}}
models:
  m: {from: stages.train.outs.model, framework: sklearn}
endpoints:
  e: {model: models.m}
"""
TWO = (
    FILE.replace("stages:", "stages:\n  quick: {cmd: make q, outs: {model: q.bin}}").replace(
        "models:", "models:\n  q: {from: stages.quick.outs.model, framework: sklearn}"
    )
    + """    env: {FIRST: "${{ endpoints.first.url }}"}
  first: {model: models.q}
"""
).replace("e: {model: models.m}", "e:\n    model: models.m")
"""An endpoint that stands while a stage runs, and is needed by what comes after the stage."""

ENDPOINT, OTHER = Address("endpoints.e"), Address("endpoints.other")


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    made = FakeProject(tmp_path / "project")
    made.write({"mlstack.yaml": FILE})
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    monkeypatch.setattr(Tenure, "grace", 0.05)
    return run_elsewhere(tmp_path / "remote", monkeypatch)


def environment_lock(project: FakeProject, *, timeout: float = 0.0) -> EnvironmentLock:
    graph = project.graph()
    return acquire(project.backend(graph), operation="apply", environment=graph.spec.environment, timeout=timeout)


def held_lock(project: FakeProject) -> HeldLock:
    graph = project.graph()
    return HeldLock(project.backend(graph), operation="apply", environment=graph.spec.environment)


def record(project: FakeProject, address: Address, **attributes: Any) -> None:
    """What another apply does: it records one resource, and the snapshot."""
    with environment_lock(project, timeout=120):
        store = project.store(project.graph())
        made = Record(address=address, driver="fake-endpoint", attributes={"name": address, **attributes})
        store.append(Entry(at="now", apply_id="other", event="step-done", address=address, record=made))
        store.compact()


def recorded(project: FakeProject) -> dict[Address, Record]:
    state = project.store(project.graph()).state()
    return dict(state.resources) if state else {}


def test_others_apply_while_it_waits(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.on_wait = lambda _run: record(project, OTHER)
    with held_lock(project) as lock:
        result = project.apply(lock=lock)
        assert holder(project.backend(project.graph()), environment="local") is not None, "it is taken again"
    assert result.outcome == "done"
    assert recorded(project).keys() == {ENDPOINT, OTHER}, "neither has lost what the other recorded"


def test_what_it_did_itself_is_nobody_elses(
    project: FakeProject, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write({"mlstack.yaml": TWO})
    apply = FakeEndpoints.apply

    def with_a_tuple(driver: FakeEndpoints, change: Change, context: StepContext) -> Record:
        made = apply(driver, change, context)
        return msgspec.structs.replace(made, attributes={**made.attributes, "ports": (1, 2)})

    def until_first_stands(run: RunRecord) -> None:
        deadline = time.monotonic() + 120
        while run.address == "stages.train" and "endpoints.first" not in recorded(project):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if run.address == "stages.train":
            environment_lock(project, timeout=120).release()

    monkeypatch.setattr(FakeEndpoints, "apply", with_a_tuple)
    elsewhere.on_wait = until_first_stands
    with held_lock(project) as lock:
        result = project.apply(lock=lock)
    assert result.outcome == "done", [each.detail for each in result.results]


def test_what_others_changed_is_planned_anew(project: FakeProject, elsewhere: Elsewhere) -> None:
    elsewhere.on_wait = lambda _run: record(project, ENDPOINT, replicas=7)
    with held_lock(project) as lock:
        result = project.apply(lock=lock)
    outcomes = {each.address: (each.outcome, each.detail) for each in result.results}
    assert outcomes[Address("stages.train")][0] == "done", "its result is there, whoever else was at work"
    assert outcomes[ENDPOINT] == (
        "not-started",
        f"to be planned anew: the plan says create, and another apply has changed {ENDPOINT} since",
    )
    assert recorded(project)[ENDPOINT].attributes["replicas"] == 7
    assert project.world.endpoints == {}


def test_it_waits_for_whoever_is_at_work(project: FakeProject, elsewhere: Elsewhere) -> None:
    theirs: list[EnvironmentLock] = []

    def take(_run: RunRecord) -> None:
        theirs.append(environment_lock(project, timeout=120))
        Thread(target=release_when_waited_for).start()

    def is_waited_for() -> bool:
        return any("waits for the lock" in getattr(event, "line", "") for event in tuple(project.events))

    def release_when_waited_for() -> None:
        wait_until(is_waited_for, seconds=120)
        theirs[0].release()

    elsewhere.on_wait = take
    with held_lock(project) as lock:
        result = project.apply(lock=lock)
    assert result.outcome == "done"
    assert is_waited_for()


def test_told_to_stop_it_records_nothing_while_others_are_at_work(project: FakeProject, elsewhere: Elsewhere) -> None:
    interrupt, theirs = Interrupt(), list[EnvironmentLock]()

    def take(_run: RunRecord) -> None:
        theirs.append(environment_lock(project, timeout=120))
        interrupt.raise_()
        interrupt.raise_()

    elsewhere.on_wait = take
    with held_lock(project) as lock, pytest.raises(MlstackError, match="holds the lock"):
        project.apply(lock=lock, interrupt=interrupt)
    before = project.store(project.graph()).pending()
    assert before == (), "all that was done before it waited is in the snapshot"
    theirs[0].release()
    elsewhere.on_wait = lambda _run: None
    project.world.running = list(project.store(project.graph()).runs())
    assert project.apply().outcome == "done"
    assert elsewhere.submitted == [(Address("stages.train"), 1, False)], "the same run was followed"


def test_a_run_that_another_apply_took_over_is_left_to_it(project: FakeProject, elsewhere: Elsewhere) -> None:
    def take_over(run: RunRecord) -> None:
        with environment_lock(project, timeout=120):
            theirs = msgspec.structs.replace(run, apply_id="theirs", host="another")
            store = project.store(project.graph())
            assert store.take_over(store.runs(run.address)[0], theirs)

    elsewhere.on_wait = take_over
    with held_lock(project) as lock:
        result = project.apply(lock=lock)
    assert result.outcome == "left"
    assert "apply theirs on another" in result.of("left")[0].detail
    assert project.store(project.graph()).runs()[0].status == "running", "nothing was written over their record"


def test_a_short_wait_keeps_it(project: FakeProject, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tenure, "grace", 60.0)
    held: list[bool] = []
    backend = project.backend(project.graph())
    elsewhere.on_wait = lambda _run: held.append(holder(backend, environment="local") is not None)
    with held_lock(project) as lock:
        assert project.apply(lock=lock).outcome == "done"
    assert held == [True]
