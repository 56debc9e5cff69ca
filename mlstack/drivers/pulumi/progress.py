"""One line of progress for what an event says of an address."""

from typing import Final

from mlstack.drivers.pulumi.events import Event, Metadata
from mlstack.drivers.pulumi.names import place_of
from mlstack.drivers.pulumi.problems import cleaned
from mlstack.spec.address import Address

_DOING: Final = {
    "create": "making",
    "create-replacement": "making anew",
    "update": "changing",
    "delete": "removing",
    "delete-replaced": "removing the old one",
    "import": "taking over",
}
_DONE: Final = {
    "create": "made",
    "create-replacement": "made anew",
    "update": "changed",
    "delete": "removed",
    "delete-replaced": "removed the old one",
    "import": "taken over",
}


def line_of(event: Event) -> tuple[Address, str] | None:
    """Return what is told of an event, and the address that it is about; None for what nobody needs to hear."""
    if event.before is not None:
        return _step(event.before.metadata, _DOING)
    if event.after is not None:
        return _step(event.after.metadata, _DONE)
    if event.message is not None and event.message.severity != "debug" and event.message.urn:
        place = place_of(event.message.urn)
        lines = cleaned(event.message.message).splitlines()
        if place is not None and lines:
            return place.address, f"{place.key}: {lines[0]}" if place.key else lines[0]
    return None


def _step(step: Metadata, words: dict[str, str]) -> tuple[Address, str] | None:
    place = step.place
    word = words.get(step.op)
    return (place.address, f"{place.key}: {word}") if place is not None and place.key and word else None
