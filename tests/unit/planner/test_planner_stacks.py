"""What the engine of stacks says of a row is laid over it: the most that either knows of, and drift apart."""

import pytest

from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.stacks import lay_over, left_in_stack, only_drift
from mlstack.spec.address import Address, Kind

WHERE = Address("endpoints.quality")
SCALED = FieldDiff(path="spec.replicas", before=2, after=5)


def row(action: Action, code: ReasonCode = ReasonCode.UP_TO_DATE) -> Change:
    return Change(address=WHERE, kind=Kind.ENDPOINT, action=action, reasons=(Reason(code=code),), not_checked="later")


def part(action: Action, *fields: FieldDiff, key: str = "deployment") -> Change:
    name = f"{key.title()} quality"
    return Change(
        address=Address(f"{WHERE}#{key}"), kind=Kind.ENDPOINT, action=action, reasons=(), fields=fields, note=name
    )


def codes(change: Change) -> list[ReasonCode]:
    return [reason.code for reason in change.reasons]


def test_nothing_to_do_stays_so_and_counts_as_checked() -> None:
    found = lay_over(row(Action.NO_OP), UnitReading(exists=True))
    assert (found.action, found.not_checked, found.drift) == (Action.NO_OP, "", False)


def test_what_somebody_changed_is_drift_that_an_update_takes_back() -> None:
    back = FieldDiff(path="spec.replicas", before=5, after=2)
    reading = UnitReading(parts=(part(Action.UPDATE, back),), drifted=(part(Action.UPDATE, SCALED),), exists=True)
    found = lay_over(row(Action.NO_OP), reading)
    assert (found.action, found.drift, codes(found)) == (Action.UPDATE, True, [ReasonCode.CHANGED_OUTSIDE])
    assert found.reasons[0].subject == "spec.replicas of Deployment quality"
    assert (found.reasons[0].before, found.reasons[0].after) == (2, 5)


def test_drift_that_nothing_takes_back_is_no_row_that_does_something() -> None:
    found = lay_over(row(Action.NO_OP), UnitReading(drifted=(part(Action.UPDATE, SCALED),), exists=True))
    assert found.action is Action.NO_OP
    assert found.drift


def test_what_is_gone_as_a_whole_is_created() -> None:
    keys = ("deployment", "service")
    reading = UnitReading(
        parts=tuple(part(Action.CREATE, key=key) for key in keys),
        drifted=tuple(part(Action.DELETE, key=key) for key in keys),
    )
    found = lay_over(row(Action.NO_OP), reading)
    assert (found.action, codes(found)) == (Action.CREATE, [ReasonCode.GONE_OUTSIDE] * 2)


def test_an_update_that_the_provider_cannot_do_in_place_is_a_replacement() -> None:
    reading = UnitReading(parts=(part(Action.REPLACE), part(Action.UPDATE, key="service")), exists=True)
    found = lay_over(row(Action.UPDATE, ReasonCode.SETTING_CHANGED), reading)
    assert (found.action, codes(found)) == (Action.REPLACE, [ReasonCode.SETTING_CHANGED])


def test_what_mlstack_describes_otherwise_now_is_an_update_without_drift() -> None:
    found = lay_over(row(Action.NO_OP), UnitReading(parts=(part(Action.UPDATE, SCALED),), exists=True))
    assert (found.action, found.drift, codes(found)) == (Action.UPDATE, False, [ReasonCode.OBJECTS_CHANGED])


def test_a_replacement_that_nothing_would_come_of_is_none() -> None:
    assert lay_over(row(Action.REPLACE, ReasonCode.FORCED), UnitReading(exists=True)).action is Action.NO_OP


@pytest.mark.parametrize("sensitive", [True, False])
def test_secrets_are_in_no_reason(sensitive: bool) -> None:
    field = FieldDiff(path="data.token", before="hidden-1", after="hidden-2", sensitive=sensitive)
    found = lay_over(row(Action.NO_OP), UnitReading(drifted=(part(Action.UPDATE, field),), exists=True))
    assert ("hidden" in repr(found.reasons)) is not sensitive


def test_what_is_left_out_shows_its_drift_and_does_nothing() -> None:
    reading = UnitReading(parts=(part(Action.UPDATE),), drifted=(part(Action.UPDATE, SCALED),), exists=True)
    found = only_drift(row(Action.NO_OP, ReasonCode.NOT_SELECTED), reading)
    assert (found.action, found.drift, found.parts) == (Action.NO_OP, True, ())


def test_what_a_killed_apply_left_goes() -> None:
    found = left_in_stack(WHERE, UnitReading(parts=(part(Action.DELETE),), exists=True))
    assert (found.action, found.kind) == (Action.DELETE, Kind.ENDPOINT)
