"""A parsed file as a tree in which every value knows where it was written.

Nodes are never changed: whoever alters one makes a new one, so that a part that is used twice (a YAML alias) is safe.
"""

from collections.abc import Iterator
from typing import Any

from mlstack.diagnostics import Position
from mlstack.spec.spec import Scalar

Value = "dict[str, Node] | list[Node] | Scalar"


class Mark:
    """Where something stands: line and column from 1; `end` is the column after it, 0 if it ends on another line."""

    __slots__ = ("column", "end", "file", "line")

    def __init__(self, file: str, line: int, column: int, end: int = 0) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.end = end

    def position(self) -> Position:
        """Return it as a `Position`."""
        return Position(self.file, self.line, self.column, self.end or None)


class Node:
    """One value. `raw` is the text of a scalar as written; `key` is where its key stands, if it has one.

    `later` are the parts of a text that is known only after apply (`mlstack.spec.later`); the value is only its place.
    """

    __slots__ = ("key", "later", "mark", "raw", "value")

    def __init__(self, value: Any, mark: Mark, *, raw: str = "", key: Mark | None = None) -> None:
        self.value: dict[str, Node] | list[Node] | Scalar = value
        self.mark = mark
        self.raw = raw
        self.key = key
        self.later: tuple[Any, ...] = ()

    @property
    def place(self) -> Position:
        """Where the value stands."""
        return self.mark.position()

    @property
    def key_place(self) -> Position:
        """Where the key stands; the value if there is no key."""
        return (self.key or self.mark).position()

    @property
    def map(self) -> dict[str, "Node"]:
        """The entries of a map; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list["Node"]:
        """The items of a list; empty for anything else."""
        return self.value if isinstance(self.value, list) else []

    @property
    def text(self) -> str | None:
        """The text, if it is one."""
        return self.value if isinstance(self.value, str) else None

    def get(self, *path: str) -> "Node | None":
        """Return what stands below these keys, or None."""
        node: Node | None = self
        for key in path:
            node = node.map.get(key) if node is not None else None
        return node

    def with_value(self, value: Any) -> "Node":
        """Return a node at the same place with another value."""
        return Node(value, self.mark, raw=self.raw, key=self.key)

    def with_key(self, key: Mark | None) -> "Node":
        """Return the same value under another key."""
        node = Node(self.value, self.mark, raw=self.raw, key=key)
        node.later = self.later
        return node

    def without(self, *keys: str) -> "Node":
        """Return a map without some keys."""
        return self.with_value({key: child for key, child in self.map.items() if key not in keys})

    def including(self, **children: "Node") -> "Node":
        """Return a map with these entries put in or replaced."""
        return self.with_value({**self.map, **children})


def plain(node: Node) -> Any:
    """Return the value without places: maps, lists and scalars."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return value


def planted(value: Any, mark: Mark, *, key: Mark | None = None) -> Node:
    """Return a tree for a plain value; everything in it stands at `mark`."""
    if isinstance(value, dict):
        return Node({str(name): planted(child, mark, key=mark) for name, child in value.items()}, mark, key=key)
    if isinstance(value, (list, tuple)):
        return Node([planted(child, mark) for child in value], mark, key=key)
    return Node(value, mark, raw=str(value), key=key)


def merge(base: Node | None, patch: Node) -> Node:
    """Apply a JSON merge patch (RFC 7396): maps are merged, null removes, everything else replaces."""
    if not isinstance(patch.value, dict):
        return patch
    merged = dict(base.map) if base is not None else {}
    for name, child in patch.value.items():
        if child.value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), child)
    keeps_place = base is not None and isinstance(base.value, dict)
    return (base if base is not None and keeps_place else patch).with_value(merged)


def find(node: Node, path: tuple[int | str, ...]) -> tuple[Node, bool]:
    """Walk down; return the deepest node that exists and whether the whole path does."""
    for step in path:
        below: Node | None = None
        if isinstance(step, str):
            below = node.map.get(step)
        elif step < len(node.items):
            below = node.items[step]
        if below is None:
            return node, False
        node = below
    return node, True


def scalars(node: Node) -> Iterator[Node]:
    """Yield every scalar of the tree."""
    if isinstance(node.value, dict):
        for child in node.value.values():
            yield from scalars(child)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from scalars(child)
    else:
        yield node
