"""In which order the rows of a plan are shown, and which of them are shown as one."""

from typing import Any

import msgspec

from mlstack.graph.change import Action, Change
from mlstack.planner.plan import Plan
from mlstack.render.values import is_hash
from mlstack.spec.address import Address

_FIRST = {Action.DELETE: 0, Action.REPLACE: 1, Action.CANCEL: 2}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that differ in nothing but their address (and in hashes of what there was before)."""

    first: Change
    addresses: tuple[Address, ...]

    @property
    def count(self) -> int:
        """How many rows these are."""
        return len(self.addresses)


def shown_changes(plan: Plan) -> tuple[Change, ...]:
    """Return the pending changes: destroys first, then replacements, then the others in the order of their steps."""
    order = {step.address: index for index, step in enumerate(plan.steps)}
    last = len(order)
    return tuple(
        sorted(
            plan.pending,
            key=lambda change: (_FIRST.get(change.action, 9), order.get(change.address, last), change.address),
        )
    )


def always_changes(plan: Plan) -> tuple[Change, ...]:
    """Return the runs of stages marked `always: true`, which are outside of "no changes"."""
    return tuple(change for change in plan.changes if change.is_always)


def drifted_changes(plan: Plan) -> tuple[Change, ...]:
    """Return what changed outside of mlstack."""
    return tuple(change for change in plan.changes if change.drift)


def unchecked_changes(plan: Plan) -> dict[str, tuple[Address, ...]]:
    """Return what was not checked, by the reason why not."""
    found: dict[str, list[Address]] = {}
    for change in plan.changes:
        if change.not_checked:
            found.setdefault(change.not_checked, []).append(change.address)
    return {reason: tuple(addresses) for reason, addresses in found.items()}


def group_changes(changes: tuple[Change, ...]) -> tuple[Group, ...]:
    """Put rows together that are the same change; each group stands where its first row stood."""
    groups: dict[Any, list[Change]] = {}
    for change in changes:
        groups.setdefault(_signature(change), []).append(change)
    return tuple(
        Group(first=found[0], addresses=tuple(change.address for change in found)) for found in groups.values()
    )


def _signature(change: Change) -> str:
    fields = [
        (
            field.path,
            None if is_hash(field.before) else field.before,
            field.before is None,
            field.after,
            field.unknown,
            field.sensitive,
            field.forces_replacement,
        )
        for field in change.fields
    ]
    reasons = [(reason.code, reason.subject, reason.before, reason.after) for reason in change.reasons]
    rest = (change.kind, change.action, change.note, change.drift, change.previous_address, change.parts)
    own = change.before if change.action is Action.DELETE else None
    return repr((rest, reasons, fields, own))
