"""A plan as JSON, with Terraform's names where they fit, so that existing policy tools can read it.

`format_version` is raised to 2.0 only when a reader of 1.x would misread; readers ignore keys that they do not know.
"""

from typing import Any

from mlstack.graph.change import Action, Change, FieldDiff
from mlstack.planner.plan import Plan, summarise
from mlstack.render.diagnostics_json import diagnostic_object
from mlstack.render.plan_text import plan_line
from mlstack.render.style import Style
from mlstack.render.words import because
from mlstack.spec.address import Kind, parse_address

PLAN_JSON_FORMAT = "1.0"

_ACTIONS: dict[Action, list[str]] = {
    **{action: [action.value] for action in Action},
    Action.REPLACE: ["delete", "create"],
}
_TYPES = {
    Kind.POOL: "mlstack_pool",
    Kind.IMAGE: "mlstack_image",
    Kind.DATASET: "mlstack_dataset",
    Kind.STAGE: "mlstack_stage",
    Kind.MODEL: "mlstack_model",
    Kind.ENDPOINT: "mlstack_endpoint",
}


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values; sensitive ones are masked."""
    summary = summarise(plan.changes)
    return {
        "format_version": PLAN_JSON_FORMAT,
        "mlstack_version": plan.mlstack_version,
        "timestamp": plan.created,
        "project": plan.project,
        "environment": plan.environment,
        "profile": plan.profile,
        "digest": plan.digest,
        "lineage": plan.lineage,
        "serial": plan.serial,
        "commit": plan.commit,
        "dirty": plan.dirty,
        "scope": {
            "targets": list(plan.scope.targets),
            "excludes": list(plan.scope.excludes),
            "replace": list(plan.scope.replace),
            "destroy": plan.scope.destroy,
            "refresh": plan.scope.refresh,
            "refresh_only": plan.scope.refresh_only,
            "allow_replace": list(plan.scope.allow_replace),
            "allow_delete": list(plan.scope.allow_delete),
            "partial": plan.scope.partial,
        },
        "applyable": bool(plan.pending) and not plan.errored,
        "errored": plan.errored,
        "no_changes": summary.is_empty,
        "summary": {
            "create": summary.create,
            "update": summary.update,
            "destroy": summary.destroy,
            "run": summary.run,
            "restore": summary.restore,
            "other": summary.other,
            "stopped": summary.stopped,
            "text": plan_line(plan, style=Style()).rpartition("\n")[2],
        },
        "resource_changes": [change_object(change) for change in plan.changes],
        "resource_drift": [change_object(change) for change in plan.changes if change.drift],
        "steps": [{"address": s.address, "action": s.action.value, "needs": list(s.needs)} for s in plan.steps],
        "in_flight": list(plan.in_flight),
        "diagnostics": [diagnostic_object(diagnostic) for diagnostic in plan.diagnostics],
    }


def change_object(change: Change) -> dict[str, Any]:
    """Return one row. `actions` is Terraform's list, with mlstack's own words beside them."""
    parts = parse_address(change.address)
    before, before_sensitive = _side(change.before, change.fields, after=False)
    after, after_sensitive = _side(change.after, change.fields, after=True)
    found: dict[str, Any] = {
        "address": change.address,
        "mode": "managed",
        "type": _TYPES[change.kind],
        "name": parts.name if parts else change.address,
        "change": {
            "actions": _ACTIONS[change.action],
            "before": before,
            "after": after,
            "after_unknown": _tree(field for field in change.fields if field.unknown),
            "before_sensitive": before_sensitive,
            "after_sensitive": after_sensitive,
            "replace_paths": [field.path.split(".") for field in change.fields if field.forces_replacement],
        },
        "action_reason": change.reasons[0].code.value if change.reasons else None,
        "reasons": [_reason(change, index) for index in range(len(change.reasons))],
        "because": because(change, most=len(change.reasons)),
        "pending": change.pending,
        "drift": change.drift,
    }
    if parts is not None and parts.component:
        found["module_address"] = parts.component
    if parts is not None and parts.instance:
        found["index"] = parts.instance
    if change.fingerprint is not None:
        found["fingerprint"] = change.fingerprint
    if change.outs:
        found["outs"] = change.outs
    if change.needs:
        found["needs"] = list(change.needs)
    if change.up_to is not None:
        found["up_to"] = change.up_to.value
    if change.note:
        found["note"] = change.note
    if change.not_checked:
        found["not_checked"] = change.not_checked
    if change.previous_address is not None:
        found["previous_address"] = change.previous_address
    if change.affects:
        found["affects"] = [{"address": each.address, "what": each.what} for each in change.affects]
    if change.parts:
        found["parts"] = [change_object(part) for part in change.parts]
    return found


def _reason(change: Change, index: int) -> dict[str, Any]:
    reason = change.reasons[index]
    masked = any(field.sensitive and field.path == reason.subject for field in change.fields)
    return {
        "code": reason.code.value,
        "subject": reason.subject,
        "before": None if masked else reason.before,
        "after": None if masked else reason.after,
    }


def _side(
    attributes: dict[str, Any] | None, fields: tuple[FieldDiff, ...], *, after: bool
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return one side of a change with sensitive values taken out, and the tree of what was taken out."""
    values: dict[str, Any] = _copied(attributes or {})
    sensitive = [field for field in fields if field.sensitive]
    for field in fields:
        value = field.after if after else field.before
        if field.sensitive:
            _put(values, field.path, value=None)
        elif value is not None:
            _put(values, field.path, value=value)
        elif after and field.unknown:
            _drop(values, field.path)
    return (values if values or attributes is not None else None), _tree(iter(sensitive))


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, dict) else value for name, value in values.items()}


def _tree(fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields:
        _put(found, field.path, value=True)
    return found


def _put(values: dict[str, Any], path: str, *, value: Any) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        inner = values.get(folder)
        if not isinstance(inner, dict):
            inner = values[folder] = {}
        values = inner
    values[name] = value


def _drop(values: dict[str, Any], path: str) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        inner = values.get(folder)
        if not isinstance(inner, dict):
            return
        values = inner
    values.pop(name, None)
