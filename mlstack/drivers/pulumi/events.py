"""What the engine reports while it works: steps, messages of providers, and the counts at the end.

Everything is kept: what a step was, is told only here (a failed update returns nothing else).
"""

from typing import Any

import msgspec

from mlstack import decoding
from mlstack.drivers.pulumi.names import Place, place_of


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A resource before or after a step, as the program or the engine knows it."""

    urn: str = ""
    id: str = ""
    inputs: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How one property differs. `input_diff`: between inputs; else between what was put out and what is wanted."""

    kind: str = msgspec.field(name="diffKind")
    input_diff: bool = msgspec.field(name="inputDiff", default=False)


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """A step: what is done (`op`) to which resource. `keys` force a replacement, `diffs` differ.

    The engine counts `logical` steps: a replacement is one, and shows the making and the removing beside it.
    """

    op: str
    urn: str
    type: str = ""
    logical: bool = False
    old: Side | None = None
    new: Side | None = None
    keys: tuple[str, ...] | None = None
    diffs: tuple[str, ...] | None = None
    detailed: dict[str, Kind] | None = msgspec.field(name="detailedDiff", default=None)

    @property
    def place(self) -> Place | None:
        """What it is about; None for the stack itself and its providers."""
        return place_of(self.urn)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine, a provider or the program said, maybe about one resource."""

    message: str
    severity: str
    urn: str = ""
    ephemeral: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An event about a step."""

    metadata: Metadata


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The last word of the engine: how many steps of which kind."""

    changes: dict[str, int] | None = msgspec.field(name="resourceChanges", default=None)
    result: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event: exactly one of these, or something that does not matter here."""

    before: Step | None = msgspec.field(name="resourcePreEvent", default=None)
    after: Step | None = msgspec.field(name="resOutputsEvent", default=None)
    failed: Step | None = msgspec.field(name="resOpFailedEvent", default=None)
    message: Message | None = msgspec.field(name="diagnosticEvent", default=None)
    summary: Summary | None = msgspec.field(name="summaryEvent", default=None)


class Report:
    """All that one call reported."""

    def __init__(self) -> None:
        self.started: list[Metadata] = []
        self.done: list[Metadata] = []
        self.failed: list[Metadata] = []
        self.messages: list[Message] = []
        self.summary: Summary | None = None

    def take(self, raw: bytes | str) -> Event:
        """Keep one event, and return it. Raises `msgspec.MsgspecError` for what is no event."""
        event = decoding.decode(raw, Event)
        for step, kept in ((event.before, self.started), (event.after, self.done), (event.failed, self.failed)):
            if step is not None:
                kept.append(step.metadata)
        if event.message is not None and event.message.severity != "debug":
            self.messages.append(event.message)
        if event.summary is not None:
            self.summary = event.summary
        return event

    @property
    def errors(self) -> list[Message]:
        """What was said of errors, in order."""
        return [each for each in self.messages if each.severity == "error"]

    def miscounted(self) -> str:
        """Say how the steps seen differ from those that the engine counted; "" when they agree."""
        if self.summary is None:
            return "the stream of events ended without its summary"
        seen: dict[str, int] = {}
        for step in self.started:
            if step.logical and step.op != "refresh":
                seen[step.op] = seen.get(step.op, 0) + 1
        counted = {op: number for op, number in (self.summary.changes or {}).items() if number}
        wrong = [op for op in sorted(seen.keys() | counted.keys()) if seen.get(op, 0) != counted.get(op, 0)]
        return ", ".join(f"{op}: {counted.get(op, 0)} counted, {seen.get(op, 0)} seen" for op in wrong)
