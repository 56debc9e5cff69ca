"""What the engine of stacks says of a row is laid over it: the most that either knows of, and drift apart."""

import msgspec
import pytest

from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.stacks import lay_over, left_in_stack, only_drift
from mlstack.planner.standing import with_secrets_noted
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


@pytest.mark.parametrize("action", [Action.NO_OP, Action.UPDATE])
def test_what_is_gone_in_part_is_updated_and_as_a_whole_created(action: Action) -> None:
    reading = UnitReading(parts=(part(Action.CREATE),), drifted=(part(Action.DELETE),), exists=True)
    found = lay_over(row(action), reading)
    assert (found.action, found.drift) == (Action.UPDATE, True)
    assert found.reasons[-1] == Reason(code=ReasonCode.GONE_OUTSIDE, subject="Deployment quality")
    assert lay_over(row(action), UnitReading(parts=reading.parts, drifted=reading.drifted)).action is Action.CREATE


def test_what_moves_into_a_stack_from_elsewhere_is_updated_although_all_of_its_objects_are_new() -> None:
    found = lay_over(row(Action.UPDATE, ReasonCode.SETTING_CHANGED), UnitReading(parts=(part(Action.CREATE),)))
    assert (found.action, codes(found)) == (Action.UPDATE, [ReasonCode.SETTING_CHANGED])


def test_an_update_that_the_provider_cannot_do_in_place_is_a_replacement() -> None:
    reading = UnitReading(parts=(part(Action.REPLACE), part(Action.UPDATE, key="service")), exists=True)
    found = lay_over(row(Action.UPDATE, ReasonCode.SETTING_CHANGED), reading)
    assert (found.action, codes(found)) == (Action.REPLACE, [ReasonCode.SETTING_CHANGED])


def test_what_mlstack_describes_otherwise_now_is_an_update_without_drift() -> None:
    found = lay_over(row(Action.NO_OP), UnitReading(parts=(part(Action.UPDATE, SCALED),), exists=True))
    assert (found.action, found.drift, codes(found)) == (Action.UPDATE, False, [ReasonCode.OBJECTS_CHANGED])


def test_a_replacement_that_nothing_would_come_of_is_none() -> None:
    assert lay_over(row(Action.REPLACE, ReasonCode.FORCED), UnitReading(exists=True)).action is Action.NO_OP


def test_what_comes_beside_its_former_self_is_a_replacement() -> None:
    new, old = part(Action.CREATE), part(Action.DELETE)
    old = msgspec.structs.replace(old, address=Address("endpoints.before#deployment"))
    found = lay_over(row(Action.UPDATE, ReasonCode.SETTING_CHANGED), UnitReading(parts=(new, old), exists=True))
    assert (found.action, found.parts) == (Action.REPLACE, (new, old))
    of_its_own = lay_over(row(Action.NO_OP), UnitReading(parts=(part(Action.DELETE, key="autoscaler"),), exists=True))
    assert of_its_own.action is Action.UPDATE


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


@pytest.mark.parametrize(("action", "version", "said"), [
    (Action.NO_OP, {}, "whether the values of its secrets are the same (KEY, TOKEN): not all can be had here"),
    (Action.NO_OP, {"secrets_version": "1f"}, ""),
    (Action.UPDATE, {}, ""),
])  # fmt: skip
def test_secrets_that_cannot_be_had_are_not_checked(action: Action, version: dict[str, str], said: str) -> None:
    after = {"secrets": {"TOKEN": "env://TOKEN", "KEY": "env://KEY"}, **version}
    checked = msgspec.structs.replace(row(action), after=after, not_checked="")
    assert with_secrets_noted(checked).not_checked == said
