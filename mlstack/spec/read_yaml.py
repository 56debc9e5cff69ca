"""YAML text → a tree of nodes with places, from the events of PyYAML's C parser.

Events rather than `yaml.compose`: one pass gives the tree, and depth, aliases and merge keys stay bounded and precise.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from mlstack.diagnostics import Position
from mlstack.spec.explain_yaml import explain_yaml
from mlstack.spec.faults import Faults, lines_of, listed
from mlstack.spec.node import Mark, Node
from mlstack.spec.scalar import OutOfRangeError, read_scalar
from mlstack.spec.spec import Scalar

_DEEPEST = 60
_MOST_NODES = 1_000_000
_CORE = "tag:yaml.org,2002:"


class BrokenError(Exception):
    """The text cannot be read any further; the fault has been collected."""


def read_yaml(text: str, *, file: str, faults: Faults) -> Node | None:
    """Return the tree of `text`, None when it is broken or empty. Faults, duplicate keys among them, are collected."""
    faults.texts[file] = lines_of(text)
    loader = getattr(yaml, "CLoader", yaml.Loader)
    try:
        return _Composer(yaml.parse(text, Loader=loader), file=file, faults=faults).document()
    except yaml.YAMLError as error:
        explain_yaml(error, file=file, faults=faults)
    except BrokenError:
        pass
    return None


class _Composer:
    def __init__(self, events: Iterator[Any], *, file: str, faults: Faults) -> None:
        self.events = events
        self.file = file
        self.faults = faults
        self.count = 0
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.open: set[str] = set()

    def document(self) -> Node | None:
        next(self.events)  # the start of the stream
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        root = self.node(next(self.events), None, 0)
        next(self.events)  # the end of the document
        extra = next(self.events)
        if not isinstance(extra, yaml.StreamEndEvent):
            place = self.mark(extra).position()
            self.broken(
                "yaml-broken",
                place,
                "a second document begins here (`---`); one file holds one document.",
                "Remove the `---`.",
            )
        return root

    def node(self, event: Any, key: Mark | None, depth: int) -> Node:
        mark = self.mark(event)
        self.count += 1
        if depth > _DEEPEST:
            self.broken(
                "yaml-too-large", mark.position(), f"maps and lists are nested more than {_DEEPEST} deep.", "Nest less."
            )
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, mark, key)
        before, anchor = self.count, event.anchor
        if anchor is not None:
            self.open.add(anchor)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self.scalar(event, mark), mark, raw=event.value, key=key)
        else:
            self.refuse_tag(event, mark, "map" if isinstance(event, yaml.MappingStartEvent) else "seq")
            value = self.mapping(depth) if isinstance(event, yaml.MappingStartEvent) else self.sequence(depth)
            node = Node(value, mark, key=key)
        if anchor is not None:
            self.open.discard(anchor)
            self.anchors[anchor] = (node, self.count - before + 1)
        return node

    def sequence(self, depth: int) -> list[Node]:
        items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, None, depth + 1))
        return items

    def mapping(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        inherited: list[Node] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            mark = self.mark(event)
            name = self.key(event, mark)
            value = self.node(next(self.events), mark, depth + 1)
            if name == "<<" and event.implicit[0]:
                inherited.extend(self.merged(value))
            elif name in entries:
                first = entries[name].key or entries[name].mark
                detail = f"`{name}` is given twice in this map: first in line {first.line}, again in line {mark.line}."
                self.faults.add("yaml-duplicate-key", mark.position(), detail, "Keep one of the two.")
            else:
                entries[name] = value
        for source in inherited:
            for name, value in source.map.items():
                entries.setdefault(name, value)
        return entries

    def key(self, event: Any, mark: Mark) -> str:
        if isinstance(event, yaml.ScalarEvent):
            self.refuse_tag(event, mark, "str")
            return str(event.value)
        if isinstance(event, yaml.AliasEvent):
            self.broken("yaml-broken", mark.position(), "an alias cannot be a key.", "Write the key out.")
        hint = 'Keys are names. A value that begins with { must be quoted; an expression is written "${{ … }}".'
        self.broken("yaml-broken", mark.position(), "a map or list stands where a key is expected.", hint)
        raise AssertionError

    def merged(self, value: Node) -> list[Node]:
        """Return the maps that a merge key names, the strongest first."""
        sources = value.items if isinstance(value.value, list) else [value]
        for source in sources:
            if not isinstance(source.value, dict):
                detail = "`<<` takes in the keys of a map, or of several maps in a list."
                self.faults.add("yaml-broken", source.place, detail, "Write `<<: *name` with the anchor of a map.")
        return [source for source in sources if isinstance(source.value, dict)]

    def alias(self, event: Any, mark: Mark, key: Mark | None) -> Node:
        if event.anchor in self.open:
            self.broken(
                "yaml-broken",
                mark.position(),
                f"`*{event.anchor}` stands inside of what it refers to.",
                "Write the value out.",
            )
        if event.anchor not in self.anchors:
            known = listed((f"&{name}" for name in self.anchors), none="there are none")
            detail = f"`*{event.anchor}` refers to an anchor that is not set before it (anchors so far: {known})."
            hint = f'Set `&{event.anchor}` further up, or quote the text if the * is meant: "*{event.anchor}".'
            self.broken("yaml-broken", mark.position(), detail, hint)
        node, weight = self.anchors[event.anchor]
        self.count += weight
        if self.count > _MOST_NODES:
            detail = f"with its aliases the file holds more than {_MOST_NODES:,} values."
            self.broken("yaml-too-large", mark.position(), detail, "Use fewer aliases of aliases.")
        return node.with_key(key)

    def scalar(self, event: Any, mark: Mark) -> Scalar:
        text: str = event.value
        if "\0" in text:
            self.faults.add("yaml-broken", mark.position(), "the text holds a NUL character.", "Remove `\\0`.")
            text = text.replace("\0", "")
        if event.tag is not None and event.tag != "!":
            self.refuse_tag(event, mark, "str")
            return text
        if not event.implicit[0]:
            return text
        try:
            return read_scalar(text)
        except OutOfRangeError as error:
            hint = f'Quote it if it is text: "{text}".' if len(text) < 60 else "Quote it if it is text."
            self.faults.add("number-out-of-range", mark.position(), f"the number {error}.", hint)
            return 0

    def refuse_tag(self, event: Any, mark: Mark, expected: str) -> None:
        if event.tag in (None, "!", _CORE + expected):
            return
        tag = event.tag.replace(_CORE, "!!")
        self.faults.add("yaml-tag", mark.position(), f"`{tag}` is a YAML tag.", "Write the plain value; quote text.")

    def mark(self, event: Any) -> Mark:
        start, end = event.start_mark, event.end_mark
        column = end.column + 1 if end.line == start.line and end.column > start.column else 0
        return Mark(self.file, start.line + 1, start.column + 1, column)

    def broken(self, code: str, place: Position, detail: str, hint: str = "") -> None:
        self.faults.add(code, place, detail, hint)
        raise BrokenError
