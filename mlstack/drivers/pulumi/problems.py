"""What people are told when the engine fails: the provider's own words, at the address that they are about."""

import re
from collections.abc import Iterable, Sequence

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.pulumi.events import Message, Report
from mlstack.drivers.pulumi.names import place_of
from mlstack.drivers.pulumi.process import Ended
from mlstack.drivers.stacks import Unit
from mlstack.spec.address import Address

_COLOUR = re.compile(r"<\{%[^%]*%\}>|\x1b\[[0-9;]*m")
_LONGEST = 2000
_NOISE = re.compile(r"^(update|preview|refresh) failed$|^resource .* has a problem$", re.IGNORECASE)


def cleaned(text: str) -> str:
    """Return a message without colours and marks."""
    return _COLOUR.sub("", text).strip()[:_LONGEST]


def errors_by_address(report: Report) -> dict[Address | None, list[str]]:
    """Return what was said of errors by address, in order and each once; None is what is about none."""
    found: dict[Address | None, list[str]] = {}
    for message in report.errors:
        place = place_of(message.urn) if message.urn else None
        said = found.setdefault(place.address if place is not None else None, [])
        text = _with_key(message, place.key if place is not None else "")
        if text and not _NOISE.match(text) and text not in said:
            said.append(text)
    return {address: texts for address, texts in found.items() if texts}


def _with_key(message: Message, key: str) -> str:
    text = cleaned(message.message)
    return f"{key}: {text}" if key and text else text


def preview_problems(ended: Ended, report: Report) -> Sequence[Diagnostic]:
    """Return why a preview failed: one diagnostic for each address, or what the command line said."""
    by_address = errors_by_address(report)
    found = [_not_previewed(address, texts) for address, texts in by_address.items() if address is not None]
    if found:
        return found
    texts = by_address.get(None) or [cleaned(ended.said) or f"it ended with {ended.code}"]
    return [call_failed("preview", "\n".join(texts))]


def _not_previewed(address: Address, texts: Iterable[str]) -> Diagnostic:
    return Diagnostic(
        code="preview-failed",
        summary="Pulumi cannot tell what would change",
        detail="\n".join(texts),
        hint="Nothing was changed, and nothing is taken for gone. Plan again when what it says is repaired.",
        address=address,
    )


def call_failed(what: str, said: str) -> Diagnostic:
    """Say that a call failed that is about no single address."""
    return Diagnostic(
        code="pulumi-failed",
        summary="Pulumi failed",
        detail=f"{what}: {cleaned(said)}",
        hint="What it says is above. What it had done is recorded; the next apply goes on from there.",
    )


def update_problem(address: Address, texts: Sequence[str]) -> Diagnostic:
    """Say why what stands behind an address could not be made."""
    return Diagnostic(
        code="update-failed",
        summary="Pulumi could not make it so",
        detail="\n".join(texts),
        hint="Apply again when what it says is repaired: what is done is not done again.",
        address=address,
    )


def not_reached(address: Address, keys: Sequence[str], *, stopped: bool) -> Diagnostic:
    """Say that objects of an address were not come to."""
    why = "the update was stopped" if stopped else "what they need failed, or the update ended before"
    return Diagnostic(
        code="update-incomplete",
        summary="Not everything behind it was come to",
        detail=f"{', '.join(keys)}: {why}.",
        hint="Apply again: it goes on from what is recorded.",
        address=address,
    )


def unknown_values(units: Iterable[Unit]) -> Sequence[Diagnostic]:
    """Refuse to make what holds values that are not known yet: the mark for them would be recorded as a value."""
    return [
        Diagnostic(
            code="value-not-known",
            summary="A value is not known yet",
            detail=f"{unit.address} waits for something that is not done; it cannot be made before.",
            hint="This is a fault of mlstack's: please report it.",
            address=unit.address,
        )
        for unit in units
        if not unit.is_known
    ]


def events_lost(what: str) -> Diagnostic:
    """Say that the events and the counts of the engine do not agree."""
    return Diagnostic(
        code="pulumi-events-lost",
        summary="What Pulumi reported is not complete",
        detail=f"{what}. A plan from it could leave something out.",
        hint="Try again; if it stays, this version of Pulumi reports in a way that mlstack does not know.",
    )
