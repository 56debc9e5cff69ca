"""Rows of what stands and is reached by its record: pools that are made, and endpoints."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mlstack.drivers.base import SECRETS_VERSION, Absent, NotChecked, Observation
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.moves import record_before_move
from mlstack.planner.plan import Scope
from mlstack.planner.resources import attributes_of, delete_row, diff_resource
from mlstack.spec.address import Address, kind_of
from mlstack.state.state import Record

Attributes = Mapping[str, Any]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A row, the address that the thing had before if it moves, and the attributes that it should have, if any."""

    change: Change
    source: Address | None = None
    desired: dict[str, Any] | None = None


def diff_standing(
    address: Address,
    *,
    scope: Scope,
    records: Mapping[Address, Record],
    moves: Sequence[Address],
    observe: Callable[[Address], Observation],
    describe: Callable[[], Attributes | None],
    needs: tuple[Address, ...],
    protect: bool = False,
) -> Standing:
    """Compare one thing with its record and with what is there.

    `observe` gives what was seen at the address that it has in the records, `describe` the attributes that it should
    have; None: nothing stands for it any more (a pool of this machine).
    """
    is_to_go, is_only_read = scope.destroy, scope.refresh_only
    record, source = record_before_move(address, () if is_to_go or is_only_read else moves, records)
    if is_to_go:
        if record is None:
            return Standing(change=_no_op(address, ReasonCode.UP_TO_DATE))
        return Standing(change=delete_row(record, ReasonCode.DESTROY_ASKED))
    observation = observe(source or address)
    if is_only_read:
        return Standing(change=_refreshed(address, record, observation))
    desired = describe()
    if desired is None:
        here = _no_op(address, ReasonCode.THIS_MACHINE)
        return Standing(change=here if record is None else delete_row(record, ReasonCode.NOT_NEEDED))
    change = diff_resource(
        address,
        desired=desired,
        record=record,
        observation=observation,
        forced=address in scope.replace,
    )
    if source is not None and change.action is Action.NO_OP:
        reason = Reason(code=ReasonCode.MOVED, subject=source)
        change = msgspec.structs.replace(change, action=Action.MOVE, reasons=(reason,))
    change = msgspec.structs.replace(change, needs=needs, previous_address=source)
    if record is not None and record.protect is not protect:
        change = _with_protection(change, before=record.protect, after=protect)
    return Standing(change=change, source=source, desired=dict(desired))


def with_secrets_noted(change: Change) -> Change:
    """Say of a row that stays as it is, and whose secrets cannot be had here, that their values were not compared."""
    wanted = change.after or {}
    names = wanted.get("secrets")
    if not names or SECRETS_VERSION in wanted or change.action not in (Action.NO_OP, Action.MOVE):
        return change
    reason = f"whether the values of its secrets are the same ({', '.join(sorted(names))}): not all can be had here"
    return msgspec.structs.replace(change, not_checked=change.not_checked or reason)


def _with_protection(change: Change, *, before: bool, after: bool) -> Change:
    """Add that it is, or is not, protected from now on: that alone only has to be recorded."""
    field = FieldDiff(path="protect", before=before, after=after)
    changed = msgspec.structs.replace(change, fields=(*change.fields, field))
    if change.action is not Action.NO_OP:
        return changed
    reason = Reason(code=ReasonCode.SETTING_CHANGED, subject="protect", before=before, after=after)
    return msgspec.structs.replace(changed, action=Action.UPDATE, reasons=(reason,))


def _refreshed(address: Address, record: Record | None, observation: Observation) -> Change:
    """Take in what is there: something that is gone is forgotten, nothing is made."""
    if record is None or not isinstance(observation, Absent):
        unseen = observation.reason if isinstance(observation, NotChecked) else ""
        return msgspec.structs.replace(_no_op(address, ReasonCode.KEPT), not_checked=unseen)
    reason = Reason(code=ReasonCode.DOWN, subject=observation.reason)
    return Change(
        address=address,
        kind=kind_of(address),
        action=Action.FORGET,
        reasons=(reason,),
        before=attributes_of(record),
        drift=True,
    )


def _no_op(address: Address, code: ReasonCode) -> Change:
    return Change(address=address, kind=kind_of(address), action=Action.NO_OP, reasons=(Reason(code=code),))
