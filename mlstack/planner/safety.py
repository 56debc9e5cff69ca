"""What stands on a thing that would go or be made anew, and what must not go unless somebody names it."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.graph.change import Action, Affected, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.planner.plan import Scope
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Endpoint, Pool
from mlstack.state.state import Record, RunRecord

Runs = Mapping[Address, tuple[RunRecord, ...]]

_ENDING = (Action.REPLACE, Action.DELETE)


def with_affected(
    changes: Iterable[Change], graph: ResourceGraph, records: Mapping[Address, Record], running: Runs
) -> tuple[Change, ...]:
    """Return the rows; those that end something say which live endpoints, runs and requests stand on it."""
    return tuple(
        msgspec.structs.replace(change, affects=tuple(_affected(change, graph, records, running)))
        if change.action in _ENDING and change.kind in (Kind.POOL, Kind.ENDPOINT)
        else change
        for change in changes
    )


def _affected(
    change: Change, graph: ResourceGraph, records: Mapping[Address, Record], running: Runs
) -> Iterator[Affected]:
    place = change.previous_address or change.address
    if change.kind is Kind.ENDPOINT and place in records:
        yield Affected(address=place, what=_traffic(records[place]))
    for address in sorted(records):
        if address != place and kind_of(address) is Kind.ENDPOINT and _stands_on(place, address, graph, records):
            yield Affected(address=address, what=_traffic(records[address]))
    for address in sorted(running):
        is_declared = not {place, change.address}.isdisjoint(graph.needs.get(address, ()))
        for run in running[address]:
            if is_declared or run.pool == place:
                yield Affected(address=address, what=f"run {run.fingerprint[:12]}, going on since {run.claimed_at}")


def _stands_on(place: Address, user: Address, graph: ResourceGraph, records: Mapping[Address, Record]) -> bool:
    """Whether `user` was made on it: what the file says now may be another place."""
    record = records.get(user)
    return place in (record.needs if record is not None else graph.needs.get(user, ()))


def _traffic(record: Record) -> str:
    """Say what share of the requests each model of an endpoint answers."""
    variants = record.attributes.get("variants")
    shares = [
        f"{variant.get('weight', 100)} % {variant.get('model', name)}"
        for name, variant in sorted((variants if isinstance(variants, Mapping) else {}).items())
        if isinstance(variant, Mapping)
    ]
    return ", ".join(["live", *shares])


def check_protected(
    changes: Iterable[Change], graph: ResourceGraph, records: Mapping[Address, Record], scope: Scope
) -> Iterator[Diagnostic]:
    """Yield an error for each row that ends what is protected and that nobody has named."""
    for change in changes:
        if change.action not in _ENDING or change.kind not in (Kind.POOL, Kind.ENDPOINT):
            continue
        allowed = scope.allow_delete if change.action is Action.DELETE else scope.allow_replace
        why = _why_protected(change, graph, records)
        if why and change.address not in allowed:
            yield _protected(change, why)


def _why_protected(change: Change, graph: ResourceGraph, records: Mapping[Address, Record]) -> str:
    resource, record = graph.resources.get(change.address), records.get(change.previous_address or change.address)
    declared = resource if isinstance(resource, Pool | Endpoint) else record
    if declared is not None and declared.protect:
        return "it is marked `protect: true`"
    return f'environment "{graph.spec.environment}" has `require_approval`' if graph.spec.require_approval else ""


def _protected(change: Change, why: str) -> Diagnostic:
    word, option = (
        ("destroyed", "--allow-delete") if change.action is Action.DELETE else ("replaced", "--allow-replace")
    )
    standing = "".join(f" {each.address}: {each.what}." for each in change.affects)
    return Diagnostic(
        code="protected",
        summary="Something protected would go",
        detail=f"{change.address} would be {word}, and {why}.{standing}",
        hint=f"If that is meant, name it: {option} {change.address}",
        address=change.address,
    )
