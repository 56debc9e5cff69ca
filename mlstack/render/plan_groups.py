"""In which order the rows of a plan are shown, and which of them are shown as one."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from mlstack.graph.change import Action, Change
from mlstack.planner.plan import Plan
from mlstack.render.values import is_hash, leaves
from mlstack.spec.address import Address, parse_address

_KNOWN_BY = frozenset({"url", "port", "host", "model", "version", "reference"})
_FIRST = {Action.DELETE: 0, Action.REPLACE: 1, Action.CANCEL: 2}


OWN_NAME = "<name>"
"""What stands in a group for the name that each of its rows has of its own."""
_MARK = "\ue000"  # stands for it while rows are compared: nobody writes that
_ALIKE = 3
"""From so many rows on, those that differ in their own names alone are one group."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that differ in nothing but their address (and in hashes of what there was before).

    With `own_names` their names stand in what they have, too: `first` has `OWN_NAME` there.
    """

    first: Change
    addresses: tuple[Address, ...]
    own_names: bool = False

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


def is_known_by(path: str) -> bool:
    """Whether people know a thing by that attribute, so that it is shown of what will be gone."""
    return path.rpartition(".")[2] in _KNOWN_BY


def group_changes(changes: tuple[Change, ...], *, full: bool = False) -> tuple[Group, ...]:
    """Put rows together that are the same change; each group stands where its first row stood.

    With `full` every attribute of what will be gone is shown, and has to be the same.
    """
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(_signature(change, full=full), []).append(change)
    alike: dict[str, list[Change]] = {}
    for found in groups.values():
        own = _anonymous(found[0], _MARK) if len(found) == 1 else found[0]
        key = _signature(own, full=full)
        alike.setdefault(key, []).extend(found)
    shown = []
    for found in alike.values():
        if len(found) == 1 or _signature(found[0], full=full) == _signature(found[1], full=full):
            shown.append(Group(first=found[0], addresses=tuple(change.address for change in found)))
        elif len(found) < _ALIKE:
            shown += [Group(first=change, addresses=(change.address,)) for change in found]
        else:
            first = msgspec.structs.replace(_anonymous(found[0], OWN_NAME), address=found[0].address)
            shown.append(Group(first=first, addresses=tuple(change.address for change in found), own_names=True))
    place = {change.address: index for index, change in enumerate(changes)}
    return tuple(sorted(shown, key=lambda group: place[group.addresses[0]]))


def _anonymous(change: Change, mark: str) -> Change:
    """Return a row with `mark` in place of its own name, wherever that stands as a word."""
    parts = parse_address(change.address)
    if parts is None or parts.instance:
        return change
    names = [change.address, parts.name, *([f"{parts.component}-{parts.name}"] if parts.component else [])]
    own = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![A-Za-z0-9_])(?:{own})(?![A-Za-z0-9_])")

    def replaced(value: Any) -> Any:
        if type(value) is str:  # and not an action, or a kind
            return pattern.sub(mark, value)
        if isinstance(value, msgspec.Struct):
            found = {name: replaced(getattr(value, name)) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **found)
        if isinstance(value, Mapping):
            return {replaced(key): replaced(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(replaced(each) for each in value)
        return value

    found: Change = replaced(change)
    return found


def _signature(change: Change, *, full: bool) -> str:
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
    rest = (
        change.kind,
        change.action,
        change.note,
        change.drift,
        change.previous_address,
        change.parts,
        change.affects,
    )
    own: Any = None
    if change.action is Action.DELETE:
        attributes = list(leaves(change.before))
        known = [(path, value) for path, value in attributes if is_known_by(path)]
        own = change.before if full else (known, len(attributes))
    return repr((rest, reasons, fields, own))
