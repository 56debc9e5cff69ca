"""Keeps YAML that a branch brings within bounds before it is built.

PyYAML's C loader follows nested nodes on the stack of the process (100,000 brackets end it with a segmentation fault),
and whoever writes an aliased tree out again writes it as often as it is named.
"""

import re
from typing import Any

DEEPEST = 200
MOST_NODES = 1_000_000
_LONGEST_LINE = 400
_NESTS = re.compile(r"[\[{]|- (?=- )")
_ALIAS = re.compile(r"(?:^|[\s\[{,])\*\w", re.MULTILINE)


def check_bounds(text: str) -> None:
    """Raise `yaml.YAMLError` for a text that is nested too deeply, or holds too much once its aliases are followed."""
    if not _is_harmless(text):
        _Walk().run(text)


def _is_harmless(text: str) -> bool:
    """Whether a glance is enough: every level of a block costs a column, every level of a flow a bracket."""
    if _ALIAS.search(text) is not None:
        return False
    if any(len(line) > _LONGEST_LINE for line in text.splitlines()):
        return False
    return len(text) <= MOST_NODES * 4 and sum(1 for _ in _NESTS.finditer(text)) < DEEPEST


class _Walk:
    """One walk over the parser's events, which needs no stack."""

    def __init__(self) -> None:
        self.nodes = 0
        self.open: list[tuple[str | None, int]] = []
        self.anchors: dict[str, int] = {}

    def run(self, text: str) -> None:
        import yaml

        loader: Any = getattr(yaml, "CLoader", yaml.Loader)
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                self.open.append((event.anchor, self.nodes))
                self.nodes += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = self.open.pop()
                if anchor is not None:
                    self.anchors[anchor] = self.nodes - before
            elif isinstance(event, yaml.AliasEvent):
                if any(anchor == event.anchor for anchor, _ in self.open):
                    self.refuse(f"*{event.anchor} stands inside of what it refers to", event)
                self.nodes += self.anchors.get(event.anchor or "", 1)
            elif isinstance(event, yaml.ScalarEvent):
                self.nodes += 1
            if len(self.open) > DEEPEST:
                self.refuse(f"it is nested more than {DEEPEST} deep", event)
            if self.nodes > MOST_NODES:
                self.refuse(f"it holds more than {MOST_NODES:,} values", event)

    def refuse(self, problem: str, event: Any) -> None:
        import yaml

        raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
