"""Lists whose items have names: containers, variables, volumes, ports. They differ by name and not by position.

The names are Kubernetes' own merge keys
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

ABSENT: Final = object()
"""Stands for a value that is not there, which None is not."""

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "tolerations": ("key",),
    "topologySpreadConstraints": ("topologyKey",),
    "conditions": ("type",),
}
_INDEX = re.compile(r"\[\d+\]")


def merge_key(name: str, *lists: Any) -> str | None:
    """Return the property that names the items of lists under this name; None where their position does."""
    if not all(isinstance(each, list) and all(isinstance(item, Mapping) for item in each) for each in lists):
        return None
    for key in _KEYS.get(name, ("name",)):
        values = [[item.get(key) for item in each] for each in lists]
        if all(_are_names(each) for each in values) and any(values):
            return key
    return None


def by_key(items: list[Any], key: str) -> dict[str, Any]:
    """Return the items by their names."""
    return {str(item[key]): item for item in items}


def named_lists(path: str) -> Iterator[str]:
    """Yield the lists that a path of a provider leads through by position, the outermost first."""
    for found in _INDEX.finditer(path):
        yield path[: found.start()]


def last_name(path: str) -> str:
    """Return what the last part of a path is called."""
    return path.rpartition(".")[2]


def cut_to(value: Any, shape: Any, name: str = "") -> Any:
    """Return what of `value` has a counterpart in `shape`: a server adds defaults, and others add items."""
    if isinstance(value, Mapping) and isinstance(shape, Mapping):
        return {key: cut_to(each, shape[key], key) for key, each in value.items() if key in shape}
    if isinstance(value, list) and isinstance(shape, list):
        key = merge_key(name, value, shape)
        if key is not None:
            shapes = by_key(shape, key)
            return [cut_to(item, shapes[str(item[key])]) for item in value if str(item[key]) in shapes]
        if len(value) == len(shape):
            return [cut_to(each, other) for each, other in zip(value, shape, strict=True)]
    return value


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(each, str | int) for each in values) and len({str(each) for each in values}) == len(values)
