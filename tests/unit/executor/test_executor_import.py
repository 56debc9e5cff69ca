"""What is taken in: no more is changed of it than was approved, and it is not removed when it does not get ready."""

from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import StepContext
from mlstack.drivers.stacks import UNREACHED, StackDriver, StepTrouble, Unit, UnitReading
from mlstack.executor.as_shown import is_as_shown
from mlstack.executor.stack_steps import _approve, _taken_back
from mlstack.executor.waves import Waves
from mlstack.executor.work import Work
from mlstack.graph.change import Action, Change, FieldDiff
from mlstack.spec.address import Address, Kind
from tests.unit.executor.test_executor_waves import FakeEngine, any_parts, waves_on
from tests.unit.executor.test_executor_waves import unit as fake_unit

WHERE = Address("endpoints.quality")
PROBLEM = Diagnostic(code="rollout", summary="It does not get ready", detail="A pod ended.")


class RefusedError(Exception):
    """More than was approved."""


def part(action: Action, *fields: FieldDiff) -> Change:
    return Change(
        address=Address(f"{WHERE}#service"), kind=Kind.ENDPOINT, action=action, reasons=(), fields=fields, note="it"
    )


def work(waves: Waves | None = None) -> Work:
    def refuse(change: Change, because: str) -> None:
        raise RefusedError(because)

    return cast("Work", SimpleNamespace(waves=waves, refuse=refuse, planned={}))


@pytest.mark.parametrize(
    ("actual", "is_approved"),
    [
        (part(Action.IMPORT, FieldDiff(path="spec.port", before=1, after=2)), True),
        (part(Action.IMPORT), True),
        (part(Action.IMPORT, FieldDiff(path="spec.port", before=1, after=3)), False),
        (part(Action.IMPORT, FieldDiff(path="spec.more", before=1, after=2)), False),
        (part(Action.CREATE), False),
        (part(Action.REPLACE), False),
    ],
)
def test_no_more_is_changed_of_it_than_was_approved(actual: Change, is_approved: bool) -> None:
    planned = part(Action.IMPORT, FieldDiff(path="spec.port", before=1, after=2))
    row = Change(address=WHERE, kind=Kind.ENDPOINT, action=Action.CREATE, reasons=(), parts=(planned,))
    if is_approved:
        _approve(work(), row, UnitReading(parts=(actual,)))
    else:
        with pytest.raises(RefusedError):
            _approve(work(), row, UnitReading(parts=(actual,)))


@pytest.mark.parametrize(
    ("path", "value", "is_approved"),
    [
        ("spec.env[LEVEL].value", "info", True),
        ("spec.env[LEVEL].value", "debug", False),
        ("spec.env[OTHER].value", "info", False),
        ("spec.env[0].value", "info", True),
        ('spec.labels["a.b/c"]', "d", True),
        ('spec.labels["a.b/c"]', "e", False),
        ("spec.envelope", "info", False),
    ],
)
def test_what_was_shown_as_a_whole_covers_its_parts_as_they_were_shown(
    path: str, value: str, is_approved: bool
) -> None:
    env = FieldDiff(path="spec.env", before=None, after=[{"name": "LEVEL", "value": "info"}])
    labels = FieldDiff(path="spec.labels", before=None, after={"a.b/c": "d"})
    actual = part(Action.UPDATE, FieldDiff(path=path, before="old", after=value))
    assert is_as_shown(part(Action.UPDATE, env, labels), actual) is is_approved


def test_nobody_who_planned_to_make_it_takes_in_what_somebody_made_meanwhile() -> None:
    row = Change(address=WHERE, kind=Kind.ENDPOINT, action=Action.CREATE, reasons=(), parts=(part(Action.CREATE),))
    with pytest.raises(RefusedError):
        _approve(work(), row, UnitReading(parts=(part(Action.IMPORT),)))


def test_what_was_taken_in_stays_when_it_does_not_get_ready() -> None:
    engine = FakeEngine()
    waves = waves_on(engine)
    plain, adopted = fake_unit("plain"), fake_unit("adopted")
    adopted = msgspec.structs.replace(
        adopted, objects=tuple(msgspec.structs.replace(each, adopt="ml/adopted") for each in adopted.objects)
    )
    for each in (plain, adopted):
        waves.bring(each, approve=any_parts)
        driver = Explains()
        trouble = _taken_back(work(waves), cast("StackDriver", driver), each, PROBLEM, context(), None)
        assert trouble.diagnostics == (PROBLEM,)
        assert driver.cleared == ([plain] if each is plain else []), "its Secrets go with it alone"
    waves.bring(fake_unit("another"), approve=any_parts)
    assert engine.holds["serving"].keys() == {"endpoints.adopted", "endpoints.another"}


def test_who_stops_now_has_it_left_as_it_is() -> None:
    """An update that is begun to take it back would be stopped at once as well."""
    engine, plain, stopped = FakeEngine(), fake_unit("plain"), context()
    waves = waves_on(engine)
    waves.bring(plain, approve=any_parts)
    stopped.stop.set()
    trouble = _taken_back(work(waves), cast("StackDriver", None), plain, PROBLEM, stopped, None)
    assert trouble.diagnostics == (PROBLEM,)
    assert engine.holds["serving"].keys() == {"endpoints.plain"}


def test_nothing_is_taken_back_where_nothing_is_reached() -> None:
    """The record of the stack says how far it came: another update could only fail, or undo what is well."""
    engine = FakeEngine()
    waves = waves_on(engine)
    waves.bring(fake_unit("new"), approve=any_parts)
    problem = Diagnostic(code=UNREACHED, summary="No answer", detail="Nobody.")
    trouble = _taken_back(work(waves), cast("StackDriver", Explains()), fake_unit("new"), problem, context(), None)
    assert trouble.diagnostics == (problem,)
    assert engine.holds["serving"].keys() == {"endpoints.new"}


class Explains:
    """A driver as far as it is asked here."""

    def __init__(self) -> None:
        self.cleared: list[Unit] = []

    def taken_back(self, unit: Unit, _context: StepContext) -> None:
        self.cleared.append(unit)

    def explain(self, _unit: Unit, problem: Diagnostic, _context: StepContext) -> StepTrouble:
        return StepTrouble(diagnostic=problem)


def context() -> StepContext:
    said = cast("Any", None)
    return StepContext(
        root=Path(), graph=said, resource=None, record=None, versions={}, say=lambda _: None, stop=Event()
    )
