"""The generic diff of a thing that exists in the world: desired attributes against record and observation."""

from collections.abc import Mapping
from typing import Any

from mlstack.drivers.base import Absent, NotChecked, Observation, Present
from mlstack.drivers.stacks import UNIT
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.spec.address import Address, kind_of
from mlstack.state.state import Record


def diff_resource(
    address: Address,
    *,
    desired: Mapping[str, Any],
    record: Record | None,
    observation: Observation,
    forced: bool = False,
) -> Change:
    """Compare what should be with what was recorded and what is there. A desired value of None is known after apply."""
    before = attributes_of(record) if record else None
    fields = _field_diffs(before or {}, desired)
    action, reasons, drift = Action.NO_OP, [Reason(code=ReasonCode.UP_TO_DATE)], False
    if record is None:
        action, reasons = Action.CREATE, [Reason(code=ReasonCode.NOT_RECORDED)]
    elif isinstance(observation, Absent):
        action, drift = Action.CREATE, True
        reasons = [Reason(code=ReasonCode.DOWN, subject=observation.reason), *_reasons(fields)]
    elif fields:
        action, reasons = Action.UPDATE, list(_reasons(fields))
    elif isinstance(observation, Present) and observation.attributes.get("ready") is False:
        action, reasons, drift = Action.UPDATE, [Reason(code=ReasonCode.NOT_READY)], True
    elif forced:
        action, reasons = Action.REPLACE, [Reason(code=ReasonCode.FORCED)]
    if forced and action is Action.UPDATE:
        action, reasons = Action.REPLACE, [Reason(code=ReasonCode.FORCED), *reasons]
    return Change(
        address=address,
        kind=kind_of(address),
        action=action,
        reasons=tuple(reasons),
        fields=() if action is Action.NO_OP else fields,
        before=before,
        after=dict(desired),
        drift=drift,
        not_checked=observation.reason if isinstance(observation, NotChecked) else "",
    )


def delete_row(record: Record, code: ReasonCode) -> Change:
    """Return the row of something whose declaration is gone, or that is to be destroyed."""
    return Change(
        address=record.address,
        kind=kind_of(record.address),
        action=Action.DELETE,
        reasons=(Reason(code=code),),
        before=attributes_of(record),
    )


def attributes_of(record: Record) -> dict[str, Any]:
    """Return the attributes that people see. The unit of what is made in a stack is shown by its parts."""
    return {name: value for name, value in record.attributes.items() if name != UNIT}


def _field_diffs(before: Mapping[str, Any], desired: Mapping[str, Any], prefix: str = "") -> tuple[FieldDiff, ...]:
    """Compare recursively, so that a plan names `variants.main.version` and not the whole map."""
    found: list[FieldDiff] = []
    for name, wanted in sorted(desired.items()):
        path, old = f"{prefix}{name}", before.get(name)
        if isinstance(wanted, Mapping):
            found.extend(_field_diffs(old if isinstance(old, Mapping) else {}, wanted, f"{path}."))
            if isinstance(old, Mapping):
                found.extend(FieldDiff(path=f"{path}.{key}", before=old[key]) for key in sorted(old.keys() - wanted))
        elif wanted is None:
            found.append(FieldDiff(path=path, before=old, unknown=True))
        elif name not in before or old != wanted:
            found.append(FieldDiff(path=path, before=old, after=wanted))
    return tuple(found)


def _reasons(fields: tuple[FieldDiff, ...]) -> tuple[Reason, ...]:
    return tuple(
        Reason(
            code=ReasonCode.MODEL_CHANGED if field.path.endswith(".version") else ReasonCode.SETTING_CHANGED,
            subject=field.path,
            before=field.before,
            after=None if field.unknown else field.after,
        )
        for field in fields
    )
