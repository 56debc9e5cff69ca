"""One file's part of the project while it is loaded: the top level, or one component."""

from typing import Any

from mlstack.spec.address import Address, Kind, make_address
from mlstack.spec.file import ComponentFile, File
from mlstack.spec.node import Node

SECTIONS = {
    "compute": Kind.POOL,
    "images": Kind.IMAGE,
    "datasets": Kind.DATASET,
    "stages": Kind.STAGE,
    "models": Kind.MODEL,
    "endpoints": Kind.ENDPOINT,
}


class Params:
    """The parameters of a scope. `file` is where they come from (None: written inline), `laid_over` what was not."""

    def __init__(self, values: dict[str, Any], *, file: str | None, laid_over: dict[str, Any] | None = None) -> None:
        self.values = values
        self.file = file
        self.laid_over = laid_over or {}

    def find(self, key: str) -> tuple[bool, Any]:
        """Return whether a dotted key exists, and its value."""
        return find_key(self.values, key)

    def file_of(self, key: str) -> str | None:
        """Return the file that gives a dotted key, None when it is inline."""
        below: Any = self.laid_over
        for part in key.split("."):
            if not isinstance(below, dict):
                return None
            if part not in below:
                return self.file
            below = below[part]
        return None


class Scope:
    """A file that holds resources.

    `node` is the tree with long forms and patches; `interpolated` has values instead of expressions and, for a matrix
    stage, its first instance; `model` is that tree as a model, without what is `broken` (paths of sections or
    resources with faults that were reported). With `is_broken_params`, its parameters could not be read.
    """

    def __init__(self, name: str, *, directory: str, file: str, node: Node) -> None:
        self.name = name
        self.directory = directory
        self.file = file
        self.node = node
        self.interpolated = node
        self.params = Params({}, file=None)
        self.model: File | ComponentFile | None = None
        self.broken: set[tuple[str, ...]] = set()
        self.is_broken_params = False

    def address(self, kind: Kind, name: str, instance: str = "") -> Address:
        """Return the address of something in this scope."""
        return make_address(kind, name, component=self.name, instance=instance)

    def names(self, kind: Kind) -> list[str]:
        """Return the names that are declared, sound or not."""
        section = self.node.get(kind.value)
        return list(section.map) if section is not None else []

    def declares(self, kind: Kind, name: str) -> bool:
        """Whether something of that name is declared, sound or not."""
        section = self.node.get(kind.value)
        return section is not None and name in section.map

    def is_broken(self, kind: Kind, name: str) -> bool:
        """Whether faults of this resource, or of its whole section, were reported already."""
        return (kind.value,) in self.broken or (kind.value, name) in self.broken


def find_key(values: Any, key: str) -> tuple[bool, Any]:
    """Return whether a dotted key exists in nested maps, and its value."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False, None
        values = values[part]
    return True, values


def set_key(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return nested maps with a dotted key replaced."""
    head, _, rest = key.partition(".")
    below = values.get(head)
    return {**values, head: set_key(below if isinstance(below, dict) else {}, rest, value) if rest else value}
