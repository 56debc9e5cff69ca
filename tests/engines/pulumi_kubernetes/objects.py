"""Comparing Kubernetes objects: which paths changed, and which of those changes need a new object.

The rules are those of the real provider: what is live is cut to the shape of what the program once said, so that
what the cluster fills in is no difference, and compared with what the program says now.
"""

from __future__ import annotations

from typing import Any

from tests.engines.pulumi_kubernetes.replacing import Steps, forces_replacement
from tests.engines.pulumi_kubernetes.values import UNKNOWN, Object

ADD, DELETE, UPDATE = "ADD", "DELETE", "UPDATE"


class Missing:
    """Stands for a key that is not there, as opposed to one that is null."""


MISSING = Missing()


def cut_to_shape(source: Object, shape: Object) -> Object:
    """Of `source` what `shape` has keys for."""
    return {key: _cut_value(value, shape[key]) for key, value in source.items() if key in shape}


def _cut_value(value: Any, shape: Any) -> Any:
    if isinstance(value, dict) and isinstance(shape, dict):
        return cut_to_shape(value, shape)
    if not isinstance(value, list) or not isinstance(shape, list):
        return value
    if not value or not shape:
        return []
    if type(value[0]) is not type(shape[0]):
        return list(value)
    return [_cut_value(mine, theirs) for mine, theirs in zip(value, shape, strict=False)]


def merge_patch(old: Object, new: Object) -> Object:
    """The JSON merge patch (RFC 7396) from old to new; what is unknown is null in it."""
    patch: Object = {key: _without_unknown(value) for key, value in new.items() if key not in old}
    patch.update({key: None for key in old if key not in new})
    for key, value in new.items():
        if key not in old or _same(old[key], value):
            continue
        if isinstance(value, dict) and isinstance(old[key], dict):
            if inner := merge_patch(old[key], value):
                patch[key] = inner
        else:
            patch[key] = _without_unknown(value)
    return patch


def _same(old: Any, new: Any) -> bool:
    """Equality in JSON: true is not 1."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _without_unknown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_unknown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_unknown(inner) for inner in value]
    return None if value is UNKNOWN else value


class Differences:
    """Collects `path: (kind, whether the input itself went away)`, as Pulumi's detailed diff names them."""

    def __init__(self, forcing: list[Steps]) -> None:
        self.forcing = forcing
        self.found: dict[str, tuple[str, bool]] = {}

    def of_map(self, path: Steps, patch: Object, old: Object, new: Any, *, in_list: bool = False) -> None:
        """Add the differences that the patch of a map makes."""
        inputs = new if isinstance(new, dict) else {}
        for key, value in patch.items():
            self._of_value((*path, key), value, old.get(key, MISSING), inputs.get(key, MISSING), in_list=in_list)
        if in_list:  # a merge patch has lists whole: what such a map lost is not in it
            for key in old.keys() - patch.keys():
                self._of_value((*path, key), None, old[key], inputs.get(key, MISSING), in_list=True)

    def _of_list(self, path: Steps, patch: list[Any], old: list[Any], new: Any) -> None:
        inputs = new if isinstance(new, list) else []
        for index in range(max(len(patch), len(old))):
            value = patch[index] if index < len(patch) else None
            before = old[index] if index < len(old) else MISSING
            given = inputs[index] if index < len(inputs) else None
            self._of_value((*path, index), value, before, given, in_list=True)

    def _of_value(self, path: Steps, value: Any, old: Any, new: Any, *, in_list: bool) -> None:
        if new is MISSING and (value is not None or old is MISSING):
            return
        deleted = value is None and new is not UNKNOWN
        if value is None:
            kind = DELETE if deleted else ADD if old is MISSING else UPDATE
        elif old is MISSING:
            kind = ADD
        elif isinstance(value, dict) and isinstance(old, dict):
            self.of_map(path, value, old, new, in_list=in_list)
            return
        elif isinstance(value, list) and isinstance(old, list):
            self._of_list(path, value, old, new)
            return
        elif _same(old, value):
            return
        else:
            kind = UPDATE
        if forces_replacement(path, value, self.forcing):
            kind += "_REPLACE"
        self.found[dotted(path)] = (kind, deleted)


def dotted(path: Steps) -> str:
    """A property path as Pulumi writes it: `spec.ports[0].name`, `metadata.labels["app.io/x"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif any(character in step for character in '."[]'):
            text += '["' + step.replace('"', '\\"') + '"]'
        else:
            text += f".{step}" if text else step
    return text
