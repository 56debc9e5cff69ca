"""Property diffs of providers, joined with the values that they are about."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mlstack.drivers.pulumi.events import Kind, Metadata, Side
from mlstack.drivers.pulumi.lists import ABSENT, by_key, cut_to, last_name, merge_key, named_lists
from mlstack.drivers.pulumi.names import UNKNOWN_TEXT
from mlstack.graph.change import FieldDiff

SECRET: Final = "[secret]"  # noqa: S105 - what events show in place of a value
_SEGMENT = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|\.?([^.\[\]]+)')


def field_diffs(step: Metadata) -> tuple[FieldDiff, ...]:
    """Return what differs, by path. Paths are the provider's, taken down to single values where it names a whole.

    Items of lists that have names are told apart by these: `env[LEVEL].value`. Where the provider does not say, inputs
    are compared.
    """
    old, new = step.old or Side(), step.new or Side()
    found: dict[str, FieldDiff] = {}
    detailed = dict(step.detailed or {})
    for path, kinds in _by_list(detailed, old, new).items():
        shape, after = _value(_inputs(old), path), _value(_inputs(new), path)
        before = cut_to(_value(_outputs(old), path), shape, last_name(path))
        after = cut_to(after, shape, last_name(path)) if step.op == "refresh" else after
        forces = any(kind.kind.endswith("-replace") for kind in kinds.values())
        if leaves := {each.path: each for each in _leaves(path, before, after, forces=forces)}:
            found |= leaves
            detailed = {each: kind for each, kind in detailed.items() if each not in kinds}
    for path, kind in sorted(detailed.items()):
        before = _value(_inputs(old) if kind.input_diff else _outputs(old), path)
        after = _value(_inputs(new), path)
        if kind.kind.startswith("add") and before is ABSENT and after is ABSENT:
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


def _by_list(detailed: Mapping[str, Kind], old: Side, new: Side) -> dict[str, dict[str, Kind]]:
    """Return the paths that lead through lists with named items, by the outermost of these."""
    found: dict[str, dict[str, Kind]] = {}
    for path, kind in detailed.items():
        sides = ((each, _value(_inputs(old), each), _value(_inputs(new), each)) for each in named_lists(path))
        outermost = next((each for each, *both in sides if merge_key(last_name(each), *both)), None)
        if outermost is not None:
            found.setdefault(outermost, {})[path] = kind
    return found


def unknown_fields(values: Mapping[str, Any]) -> tuple[FieldDiff, ...]:
    """Return the paths of an object that is to be made whose values are known only after apply, or are secret."""
    return tuple(
        each for key in sorted(values) for each in _leaves(key, ABSENT, values[key]) if each.unknown or each.sensitive
    )


def shown(value: Any) -> Any:
    """Return a value without marks of the engine: what is unknown or secret is None."""
    if isinstance(value, Mapping):
        return {key: shown(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shown(each) for each in value]
    return None if value in (UNKNOWN_TEXT, SECRET) or value is ABSENT else value


def _inputs(side: Side) -> dict[str, Any]:
    return side.inputs or {}


def _outputs(side: Side) -> dict[str, Any]:
    return side.outputs or side.inputs or {}


def _leaves(path: str, before: Any, after: Any, *, forces: bool = False) -> Iterator[FieldDiff]:
    """Yield each single value that differs between two values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _leaves(_below(path, key), before.get(key, ABSENT), after.get(key, ABSENT), forces=forces)
    elif (key := merge_key(last_name(path), before, after)) is not None:
        yield from _named_leaves(path, by_key(before, key), by_key(after, key), forces=forces)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _leaves(f"{path}[{index}]", one, other, forces=forces)
    elif before is ABSENT and isinstance(after, Mapping) and _has_marks(after):
        for key in sorted(after):
            yield from _leaves(_below(path, key), ABSENT, after[key], forces=forces)
    elif before is ABSENT and isinstance(after, list) and _has_marks(after):
        key = merge_key(last_name(path), after)
        for index, each in enumerate(after):
            yield from _leaves(f"{path}[{index if key is None else each[key]}]", ABSENT, each, forces=forces)
    elif not _same(before, after) or SECRET in (before, after):
        yield FieldDiff(
            path=path,
            before=shown(before),
            after=shown(after),
            unknown=after == UNKNOWN_TEXT,
            sensitive=SECRET in (before, after),
            forces_replacement=forces,
        )


def _named_leaves(
    path: str, before: Mapping[str, Any], after: Mapping[str, Any], *, forces: bool
) -> Iterator[FieldDiff]:
    """Yield what differs between the items of two lists, and their order where those of both lists have another."""
    for name in [*after, *(each for each in before if each not in after)]:
        yield from _leaves(f"{path}[{name}]", before.get(name, ABSENT), after.get(name, ABSENT), forces=forces)
    old, new = ([name for name in each if name in before and name in after] for each in (before, after))
    if old != new:
        yield FieldDiff(path=path, before=old, after=new, forces_replacement=forces)


def _same(before: Any, after: Any) -> bool:
    return before is after or (before is not ABSENT and after is not ABSENT and before == after)


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
            values = values[int(index)] if int(index) < len(values) else ABSENT
        elif isinstance(values, Mapping):
            values = values.get(quoted if quoted is not None else name if name is not None else index, ABSENT)
        else:
            return ABSENT
    return values
