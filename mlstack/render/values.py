"""Values of attributes as people read them: short hashes, JSON for the rest, nothing secret."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mlstack.graph.change import Change, FieldDiff
from mlstack.render.columns import cut
from mlstack.render.escape import plain
from mlstack.render.human import number, quantity
from mlstack.spec.spec import SecretRef

KNOWN_AFTER_APPLY = "(known after apply)"
SENSITIVE = "(sensitive value)"
NONE = "(none)"
VARIES = "(several values)"

_HASH = re.compile(r"(?:[0-9a-f]{32}(?:\.dir)?|[0-9a-f]{40}|[0-9a-f]{64})")
_SHORT = 8


def is_hash(value: Any) -> bool:
    """Whether `value` is an MD5 (with or without `.dir`), SHA-1 or SHA-256 in hex."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def show_value(value: Any, *, width: int = 0, short: bool = True, ellipsis: str = "…") -> str:
    """Return `value` on one line, safe to show; at most `width` columns if that is not 0."""
    text = _text(value, short=short)
    return cut(text, width, ellipsis=ellipsis) if width else text


def _text(value: Any, *, short: bool) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool | int | float):
        return number(value)
    if isinstance(value, SecretRef):
        return f"secret {plain(value.uri)}"
    if isinstance(value, str):
        if is_hash(value):
            return value[:_SHORT] if short else value
        return _json(value)
    if isinstance(value, Mapping) and set(value) == {"uri"}:
        return f"secret {plain(str(value['uri']))}"
    return _json(value)


def _json(value: Any) -> str:
    try:
        return plain(msgspec.json.encode(value, enc_hook=str).decode())
    except UnicodeEncodeError:  # file names that are not UTF-8
        return plain(repr(value))


def show_pair(before: Any, after: Any) -> tuple[str, str]:
    """Return two values that differ so that the difference can be seen: hashes in full if their beginnings agree."""
    old, new = show_value(before), show_value(after)
    if old == new:
        old, new = show_value(before, short=False), show_value(after, short=False)
    return old, new


def inside_json(field: FieldDiff) -> tuple[FieldDiff, ...]:
    """Return what differs between two JSON texts, each under its path; the field itself where it holds something else.

    As a whole they are long, and look alike.
    """
    if field.sensitive or field.unknown:
        return (field,)
    before, after = _read_json(field.before), _read_json(field.after)
    if before is None or after is None:
        return (field,)
    forces = field.forces_replacement
    found = [
        FieldDiff(path=path, before=one, after=other, forces_replacement=forces)
        for path, one, other in _differing(field.path, before, after)
    ]
    return tuple(found) or (field,)


def _read_json(value: Any) -> dict[str, Any] | list[Any] | None:
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return None
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict | list) else None


def _differing(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differing(f"{path}.{name}", before.get(name), after.get(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differing(f"{path}[{index}]", one, other)
    elif before != after:
        yield path, before, after


def field_values(field: FieldDiff) -> tuple[str, str]:
    """Return what stands on the two sides of the arrow of one attribute."""
    if field.sensitive:
        before = NONE if field.before is None else SENSITIVE
        after = KNOWN_AFTER_APPLY if field.unknown else NONE if field.after is None else SENSITIVE
        return before, after
    if field.unknown:
        return show_value(field.before), KNOWN_AFTER_APPLY
    if field.path.rpartition(".")[2] == "memory":
        return _memory(field.before), _memory(field.after)
    return show_pair(field.before, field.after)


def _memory(value: Any) -> str:
    is_bytes = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    return quantity(int(value)) if is_bytes else show_value(value)


def leaves(attributes: Mapping[str, Any] | None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the attributes under their dotted paths, as field diffs name them."""
    for name, value in sorted((attributes or {}).items()):
        if isinstance(value, Mapping) and value and set(value) != {"uri"}:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def count_hidden(change: Change) -> int:
    """Return how many attributes stay as they are and are not shown."""
    shown = {field.path for field in change.fields}
    return sum(path not in shown for path, _ in leaves(change.after if change.after is not None else change.before))
