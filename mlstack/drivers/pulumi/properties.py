"""Property diffs of providers, joined with the values that they are about."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mlstack.drivers.pulumi.events import Metadata, Side
from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from mlstack.graph.change import FieldDiff

SECRET: Final = "[secret]"  # noqa: S105 - what events show in place of a value
_ABSENT: Final = object()
_SEGMENT = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|\.?([^.\[\]]+)')


def field_diffs(step: Metadata) -> tuple[FieldDiff, ...]:
    """Return what differs, by path. Paths are the provider's, taken down to single values where it names a whole.

    Where the provider does not say, inputs are compared.
    """
    old, new = step.old or Side(), step.new or Side()
    found: dict[str, FieldDiff] = {}
    for path, kind in sorted((step.detailed or {}).items()):
        before = _value(_inputs(old) if kind.input_diff else _outputs(old), path)
        after = _value(_inputs(new), path)
        if kind.kind.startswith("add") and before is _ABSENT and after is _ABSENT:
            continue
        forces = kind.kind.endswith("-replace")
        for each in _leaves(path, before, after, forces=forces):
            found[each.path] = each
    if not found:
        keys = [*(step.keys or ()), *(step.diffs or ())] or sorted(_inputs(old).keys() | _inputs(new).keys())
        for key in dict.fromkeys(keys):
            before, after = _value(_inputs(old), key), _value(_inputs(new), key)
            for each in _leaves(key, before, after, forces=key in (step.keys or ())):
                found[each.path] = each
    return tuple(found[path] for path in sorted(found))


def unknown_fields(values: Mapping[str, Any]) -> tuple[FieldDiff, ...]:
    """Return the paths of an object that is to be made whose values are known only after apply, or are secret."""
    return tuple(
        each for key in sorted(values) for each in _leaves(key, _ABSENT, values[key]) if each.unknown or each.sensitive
    )


def shown(value: Any) -> Any:
    """Return a value without marks of the engine: what is unknown or secret is None."""
    if isinstance(value, Mapping):
        return {key: shown(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shown(each) for each in value]
    return None if value in (UNKNOWN_TEXT, SECRET) or value is _ABSENT else value


def _inputs(side: Side) -> dict[str, Any]:
    return side.inputs or {}


def _outputs(side: Side) -> dict[str, Any]:
    return side.outputs or side.inputs or {}


def _leaves(path: str, before: Any, after: Any, *, forces: bool = False) -> Iterator[FieldDiff]:
    """Yield each single value that differs between two values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _leaves(_below(path, key), before.get(key, _ABSENT), after.get(key, _ABSENT), forces=forces)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _leaves(f"{path}[{index}]", one, other, forces=forces)
    elif before is _ABSENT and isinstance(after, Mapping) and _has_marks(after):
        for key in sorted(after):
            yield from _leaves(_below(path, key), _ABSENT, after[key], forces=forces)
    elif before is _ABSENT and isinstance(after, list) and _has_marks(after):
        for index, each in enumerate(after):
            yield from _leaves(f"{path}[{index}]", _ABSENT, each, forces=forces)
    elif not _same(before, after) or SECRET in (before, after):
        yield FieldDiff(
            path=path,
            before=shown(before),
            after=shown(after),
            unknown=after == UNKNOWN_TEXT,
            sensitive=SECRET in (before, after),
            forces_replacement=forces,
        )


def _same(before: Any, after: Any) -> bool:
    return before is after or (before is not _ABSENT and after is not _ABSENT and before == after)


def _has_marks(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_marks(each) for each in value.values())
    if isinstance(value, list):
        return any(_has_marks(each) for each in value)
    return value in (UNKNOWN_TEXT, SECRET)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if re.fullmatch(r"[\w-]+", key) else f'{path}["{key}"]'


def _value(values: Any, path: str) -> Any:
    """Return the value at a path as providers write it: `spec.containers[0].image`, `metadata.labels["a.b/c"]`."""
    for found in _SEGMENT.finditer(path):
        quoted, index, name = found.groups()
        if index is not None and isinstance(values, list):
            values = values[int(index)] if int(index) < len(values) else _ABSENT
        elif isinstance(values, Mapping):
            values = values.get(quoted if quoted is not None else name if name is not None else index, _ABSENT)
        else:
            return _ABSENT
    return values
