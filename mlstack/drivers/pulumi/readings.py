"""From what a preview reported to a reading for each address."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mlstack.diagnostics import MlstackError
from mlstack.drivers.pulumi.checkpoint import Checkpoint
from mlstack.drivers.pulumi.events import Metadata, Report
from mlstack.drivers.pulumi.names import Place, object_name, place_of
from mlstack.drivers.pulumi.problems import events_lost
from mlstack.drivers.pulumi.properties import field_diffs, shown, unknown_fields
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, kind_of

_ACTIONS: Final[Mapping[str, Action | None]] = {
    "same": None,
    "read": None,
    "refresh": None,
    "create": Action.CREATE,
    "update": Action.UPDATE,
    "delete": Action.DELETE,
    "discard": Action.DELETE,
    "replace": Action.REPLACE,
    "create-replacement": Action.REPLACE,
    "delete-replaced": Action.REPLACE,
    "read-replacement": Action.REPLACE,
    "discard-replaced": Action.REPLACE,
    "remove-pending-replace": Action.REPLACE,
    "import": Action.IMPORT,
    "import-replacement": Action.REPLACE,
}
"""What a step of the engine means for the object: a replacement is several steps."""
_MADE_ANEW: Final = frozenset({"create", "import", "refresh"})
"""Steps from which it does not follow that the object is there: what is gone is refreshed, too."""


def build_readings(
    report: Report, wanted: Iterable[Address], checkpoint: Checkpoint | None
) -> dict[Address, UnitReading]:
    """Return a reading for every address that is wanted or recorded. Raises `MlstackError` for an unknown step."""
    recorded = checkpoint.addresses() if checkpoint is not None else set()
    parts: dict[Address, dict[str, Change]] = {}
    drifted: dict[Address, dict[str, Change]] = {}
    for step in report.done:
        if step.op == "refresh" and (place := _object_of(step)) is not None and (change := _drift(step, place)):
            drifted.setdefault(place.address, {})[place.key] = change
    there: set[Address] = set()
    for step in report.started:
        place = _object_of(step)
        if place is None:
            continue
        if step.op not in _MADE_ANEW:
            there.add(place.address)
        if (change := _part(step, place)) is not None:
            kept = parts.setdefault(place.address, {})
            kept[place.key] = _together(kept.get(place.key), change)
    return {
        address: UnitReading(
            parts=_sorted(parts.get(address, {})),
            drifted=_sorted(drifted.get(address, {})),
            exists=address in there,
        )
        for address in sorted({*wanted, *recorded})
    }


def action_of(op: str) -> Action | None:
    """Return what a step means for its object, None for nothing. Raises `MlstackError` for one of no known kind."""
    if op not in _ACTIONS:
        raise MlstackError(events_lost(f'a step "{op}" is of no known kind'))
    return _ACTIONS[op]


def note_of(urn_type: str, key: str, inputs: Mapping[str, Any] | None) -> str:
    """Say type and name for people: `Deployment quality`."""
    inputs = inputs or {}
    metadata = inputs.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else inputs.get("name")
    return f"{urn_type.rpartition(':')[2]} {name if isinstance(name, str) and name else key}"


def _object_of(step: Metadata) -> Place | None:
    place = step.place
    return place if place is not None and place.key else None


def _part(step: Metadata, place: Place) -> Change | None:
    action = action_of(step.op)
    before = step.old.inputs if step.old is not None else None
    after = step.new.inputs if step.new is not None else None
    moved = step.old is not None and step.old.urn and step.old.urn != step.urn
    if action is None and not moved:
        return None
    action = action or Action.MOVE
    match action:
        case Action.CREATE | Action.IMPORT:
            fields = unknown_fields(after or {})
        case Action.UPDATE | Action.REPLACE if after is not None:
            fields = field_diffs(step)
        case _:
            fields = ()
    previous = place_of(step.old.urn) if moved and step.old is not None else None
    return Change(
        address=Address(object_name(place.address, place.key)),
        kind=kind_of(place.address),
        action=action,
        reasons=(),
        fields=fields,
        before=shown(before) if before else None,
        after=shown(after) if after and action is not Action.DELETE else None,
        note=note_of(step.type, place.key, after or before),
        previous_address=Address(object_name(previous.address, previous.key)) if previous else None,
    )


def _together(kept: Change | None, change: Change) -> Change:
    """Of the steps of one object keep the one that says most: a replacement is made and removed, and replaces."""
    if kept is None:
        return change
    return max(kept, change, key=lambda each: (each.after is not None, len(each.fields)))


def _drift(step: Metadata, place: Place) -> Change | None:
    gone = step.new is None
    if not gone and not step.detailed and not step.diffs:
        return None
    before = step.old.inputs if step.old is not None else None
    after = step.new.inputs if step.new is not None else None
    fields = () if gone else field_diffs(step)
    if not gone and not fields:
        return None
    return Change(
        address=Address(object_name(place.address, place.key)),
        kind=kind_of(place.address),
        action=Action.DELETE if gone else Action.UPDATE,
        reasons=(),
        fields=fields,
        before=shown(before) if before else None,
        after=shown(after) if after else None,
        note=note_of(step.type, place.key, before),
        drift=True,
    )


def _sorted(changes: Mapping[str, Change]) -> tuple[Change, ...]:
    return tuple(changes[key] for key in sorted(changes))
