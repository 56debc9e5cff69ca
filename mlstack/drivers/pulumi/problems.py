"""What people are told when the engine fails: the provider's own words, at the address that they are about."""

import re
from collections.abc import Iterable, Sequence

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.pulumi.events import Report
from mlstack.drivers.pulumi.names import place_of
from mlstack.drivers.pulumi.process import Ended
from mlstack.drivers.stacks import UNREACHED, Unit
from mlstack.spec.address import Address

_COLOUR = re.compile(r"<\{%[^%]*%\}>|\x1b\[[0-9;]*m")
_LONGEST = 2000
_NO_KEY = "secrets manager"
"""What Pulumi says when it cannot get at what encrypts a record, whichever kind that is."""

_UNREACHED = "luster is unreachable", "unreachable cluster", "unable to load schema information from the API server"
"""What the provider for Kubernetes says when the API server does not answer."""

_PERILOUS = re.compile(r"\.? ?If the cluster was deleted,.*PULUMI_K8S_DELETE_UNREACHABLE[^.\n]*", re.DOTALL)
"""How to have everything forgotten that is not reached at the moment: nothing to be handed to somebody in an outage."""

_NOISE = re.compile(r"^(update|preview|refresh) failed$|^resource .* has a problem$", re.IGNORECASE)


def cleaned(text: str) -> str:
    """Return a message without colours and marks."""
    return _COLOUR.sub("", text).strip()[:_LONGEST]


def errors_by_address(report: Report) -> dict[Address | None, list[str]]:
    """Return what was said of errors by address, in order and each once; None is what is about none."""
    found: dict[Address | None, dict[str, list[str]]] = {}
    for message in report.errors:
        place = place_of(message.urn) if message.urn else None
        said = found.setdefault(place.address if place is not None else None, {})
        text = _PERILOUS.sub("", cleaned(message.message))
        if text and not _NOISE.match(text):
            keys = said.setdefault(text, [])
            if place is not None and place.key and place.key not in keys:
                keys.append(place.key)
    return {address: [_with_keys(keys, text) for text, keys in said.items()] for address, said in found.items() if said}


def _with_keys(keys: Sequence[str], text: str) -> str:
    return f"{', '.join(keys)}: {text}" if keys else text


def preview_problems(ended: Ended, report: Report, *, provider: str) -> Sequence[Diagnostic]:
    """Return why a preview failed: one diagnostic for each address, or what the command line said.

    `provider` is what the record is encrypted with.
    """
    by_address = errors_by_address(report)
    found = [_not_previewed(address, texts) for address, texts in by_address.items() if address is not None]
    if found:
        return found
    texts = by_address.get(None) or [cleaned(ended.said) or f"it ended with {ended.code}"]
    return [call_failed("preview", "\n".join(texts), provider=provider)]


def _not_previewed(address: Address, texts: Iterable[str]) -> Diagnostic:
    return Diagnostic(
        code="preview-failed",
        summary="Pulumi cannot tell what would change",
        detail="\n".join(texts),
        hint="Nothing was changed, and nothing is taken for gone. Plan again when what it says is repaired.",
        address=address,
    )


def call_failed(what: str, said: str, *, provider: str) -> Diagnostic:
    """Say that a call failed that is about no single address. `provider` is what the record is encrypted with."""
    if _NO_KEY in said:
        return _key_unusable(what, said, provider)
    return Diagnostic(
        code="pulumi-failed",
        summary="Pulumi failed",
        detail=f"{what}: {cleaned(said)}",
        hint="What it says is above. What it had done is recorded; the next apply goes on from there.",
    )


def _key_unusable(what: str, said: str, provider: str) -> Diagnostic:
    if provider == "passphrase":
        named, look = "The passphrase", "Look whether it is the one that the stack was made with."
    else:
        named = provider
        look = (
            "Look whether that key is there, and may be used to encrypt and decrypt by whoever calls, in plans too; "
            "login and region come from your cloud's usual variables."
        )
    return Diagnostic(
        code="pulumi-key-unusable",
        summary="What encrypts the record of a stack cannot be used",
        detail=f"{named}, of `pulumi: {{secrets_provider: …}}` in the file, does not do. {what}: {cleaned(said)}",
        hint=f"Nothing was changed. {look} If it is lost, name another key there (docs/pulumi.md): the next apply "
        "takes that one, since nothing in mlstack's records is secret.",
    )


def update_problem(address: Address, texts: Sequence[str]) -> Diagnostic:
    """Say why what stands behind an address could not be made."""
    if all("already exists" in text for text in texts):
        return _exists(address, texts)
    if all(any(words in text for words in _UNREACHED) for text in texts):
        return Diagnostic(
            code=UNREACHED,
            summary="The cluster did not answer while it was changed",
            detail="\n".join(texts),
            hint="Nothing is taken for gone, and what had been done is recorded. Apply again when it answers.",
            address=address,
        )
    return Diagnostic(
        code="update-failed",
        summary="Pulumi could not make it so",
        detail="\n".join(texts),
        hint="Apply again when what it says is repaired: what is done is not done again.",
        address=address,
    )


def _exists(address: Address, texts: Sequence[str]) -> Diagnostic:
    return Diagnostic(
        code="exists-already",
        summary="Something of that name is there already",
        detail="\n".join(text.partition("\n")[0] for text in texts),
        hint="It is not in this environment's record: somebody made it, or it is left of a state that was lost. "
        f"Take it in: `import: [{address}]`. Or remove it, or give the resource another name.",
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
