"""Whether what an engine is about to do to an object is what the approved plan showed of it."""

import re
from collections.abc import Mapping
from typing import Any

from mlstack.graph.change import Action, Change, FieldDiff
from mlstack.planner.build_plan import may_refine

_NOWHERE = object()
_PART = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[([^\]]*)\]|\.?([^.\[\]]+)')


def is_as_shown(planned: Change, actual: Change) -> bool:
    """Whether an object changes as the plan showed, where it could; less than that is fine."""
    if planned.action is Action.CREATE and actual.action is Action.UPDATE:
        return True
    return may_refine(planned.action, actual.action) and all(_is_shown(planned, field) for field in actual.fields)


def _is_shown(planned: Change, field: FieldDiff) -> bool:
    shown = {each.path: each for each in planned.fields}
    if (same := shown.get(field.path)) is not None:
        return same.unknown or same.after == field.after
    for path, whole in shown.items():
        if whole.after is not None and field.path.startswith((f"{path}.", f"{path}[")):
            return whole.unknown or bool(_inside(whole.after, field.path[len(path) :]) == field.after)
    return planned.action not in (Action.UPDATE, Action.IMPORT) or any(each.unknown for each in shown.values())


def _inside(value: Any, path: str) -> Any:
    """Return what is at a path inside of a value; items of lists go by position, or by a property that names one."""
    for quoted, item, name in _PART.findall(path):
        if isinstance(value, Mapping):
            value = value.get(quoted or item or name, _NOWHERE)
        elif isinstance(value, list):
            named = [each for each in value if isinstance(each, Mapping) and item in map(str, each.values())]
            position = int(item) if item.isdecimal() and int(item) < len(value) else None
            value = named[0] if len(named) == 1 else value[position] if position is not None else _NOWHERE
    return value
