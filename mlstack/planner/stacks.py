"""Rows of what is made in stacks: the engine's preview laid over what the file and the records say."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from mlstack.drivers.base import NOT_ASKED
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.spec.address import Address, kind_of


class StackQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What stacks should hold: these with these attributes (None: known after apply), and `kept` as recorded.

    Those of `kept` that are `aside` need not answer. `previous` is the address that one had before. Whatever else is
    recorded is to go. `rebuilt` are images whose digest is known only after apply, although they are recorded as they
    should be.
    """

    desired: dict[Address, Mapping[str, Any]]
    kept: frozenset[Address] = frozenset()
    aside: frozenset[Address] = frozenset()
    previous: dict[Address, Address] = {}
    rebuilt: frozenset[Address] = frozenset()


def question_of(
    changes: Mapping[Address, Change],
    desired: Mapping[Address, Mapping[str, Any]],
    records: Collection[Address],
    *,
    selected: frozenset[Address],
    previous: Mapping[Address, Address],
    is_only_read: bool,
    rebuilt: frozenset[Address],
) -> StackQuestion:
    """Return what stacks should hold after these rows: what is left out, or not meant, stays as recorded.

    With `is_only_read` all of it does.
    """
    doomed = {each for each, change in changes.items() if change.action is Action.DELETE}
    left = {each for each in changes if is_only_read or each not in selected} - doomed
    moving = {source for address, source in previous.items() if address not in left}
    staying = {source for address, source in previous.items() if address in left}
    kept = frozenset(left | staying | (set(records) - changes.keys() - moving))
    return StackQuestion(
        desired={} if is_only_read else {each: desired[each] for each in desired if each not in doomed},
        kept=kept,
        aside=kept - selected - {previous[each] for each in selected & previous.keys()},
        previous=dict(previous),
        rebuilt=rebuilt,
    )


AskStacks = Callable[[StackQuestion], Mapping[Address, UnitReading]]
"""Returns what the engine says of each address that is made in a stack; of none that was not asked."""


def no_stacks(_question: StackQuestion) -> Mapping[Address, UnitReading]:
    """Say nothing: nothing is made in stacks."""
    return {}


def lay_over(change: Change, reading: UnitReading) -> Change:
    """Return the row with what the engine would do as its parts, and what was changed outside as drift.

    The row's action is the most that either knows of: a provider may have to replace what the file only updates.
    """
    drift = tuple(_drifted(part) for part in reading.drifted)
    if change.action in (Action.NO_OP, Action.MOVE) and not reading.parts and not drift:
        return msgspec.structs.replace(change, not_checked="")
    action, reasons = change.action, change.reasons
    if action is Action.REPLACE and not reading.parts and not drift:
        return msgspec.structs.replace(change, action=Action.NO_OP, reasons=(_CANNOT,), not_checked="")
    if action in (Action.NO_OP, Action.UPDATE) and reading.parts:
        is_elsewhere = action is Action.UPDATE and not drift  # it was not in this stack: on this machine, say
        action = _action_of(change.address, reading, is_elsewhere=is_elsewhere)
    if change.action is Action.NO_OP and reading.parts:
        reasons = drift or (Reason(code=ReasonCode.OBJECTS_CHANGED),)
    else:
        reasons = (*reasons, *drift)
    return msgspec.structs.replace(
        change,
        action=action,
        reasons=reasons,
        parts=reading.parts,
        drift=change.drift or bool(drift),
        not_checked="",
    )


_CANNOT = Reason(code=ReasonCode.UP_TO_DATE, subject="nothing of it can be made anew while it stays as it is")


def only_drift(change: Change, reading: UnitReading) -> Change:
    """Return a row that does nothing, with what was changed outside: of `--refresh-only`, and of what is left out."""
    drift = tuple(_drifted(part) for part in reading.drifted)
    if not drift:
        return msgspec.structs.replace(change, not_checked="")
    return msgspec.structs.replace(change, reasons=drift, drift=True, not_checked="")


def _action_of(address: Address, reading: UnitReading, *, is_elsewhere: bool) -> Action:
    """Return what is done to the whole: it is created only where nothing of it is there, and nothing elsewhere.

    What goes under the address that it had before is replaced.
    """
    actions = {part.action for part in reading.parts}
    if any(part.action is Action.DELETE and part.address.partition("#")[0] != address for part in reading.parts):
        return Action.REPLACE
    if actions == {Action.CREATE} and not reading.exists and not is_elsewhere:
        return Action.CREATE
    return Action.REPLACE if Action.REPLACE in actions else Action.UPDATE


def _drifted(part: Change) -> Reason:
    """Say what of one object was changed outside: a single property with both its values, or that it is gone."""
    name = part.note or part.address.rpartition("#")[2]
    if part.action is Action.DELETE:
        return Reason(code=ReasonCode.GONE_OUTSIDE, subject=name)
    if len(part.fields) == 1:
        (field,) = part.fields
        hidden = field.sensitive
        return Reason(
            code=ReasonCode.CHANGED_OUTSIDE,
            subject=f"{field.path} of {name}",
            before=None if hidden else field.before,
            after=None if hidden else field.after,
        )
    return Reason(
        code=ReasonCode.CHANGED_OUTSIDE, subject=f"{', '.join(field.path for field in part.fields)} of {name}"
    )


def left_in_stack(address: Address, reading: UnitReading) -> Change:
    """Return the row of what a stack holds although nothing records it: made by an apply that was killed."""
    return Change(
        address=address,
        kind=kind_of(address),
        action=Action.DELETE,
        reasons=(Reason(code=ReasonCode.REMOVED_FROM_FILE),),
        before={},
        parts=reading.parts,
    )


def unasked(change: Change) -> Change:
    """Return the row as one whose world was not looked at."""
    return msgspec.structs.replace(change, not_checked=change.not_checked or NOT_ASKED)
