"""The journal folded into the state: a pure function, the only place that says what an entry means."""

from collections.abc import Iterable

import msgspec

from mlstack.spec.address import Address
from mlstack.state.state import Acceptance, Entry, Record, State


def fold(state: State, entries: Iterable[Entry]) -> State:
    """Apply `entries` in their order. The serial is raised by one for each entry that changes content.

    Returns `state` itself if none does. A record whose attributes or driver differ from those before gets a version
    that is higher than before, whatever the driver wrote.
    """
    resources, accepted = dict(state.resources), dict(state.accepted)
    changed = sum(_fold_one(resources, accepted, entry) for entry in entries)
    if not changed:
        return state
    return msgspec.structs.replace(state, serial=state.serial + changed, resources=resources, accepted=accepted)


def _fold_one(resources: dict[Address, Record], accepted: dict[Address, Acceptance], entry: Entry) -> bool:
    """Apply one entry in place and tell whether it changed anything."""
    changed = False
    if entry.moved_from is not None and entry.address is not None and entry.moved_from != entry.address:
        changed = _move(resources, accepted, entry.moved_from, entry.address)
    if entry.removed and entry.address is not None:
        gone = (resources.pop(entry.address, None), accepted.pop(entry.address, None))
        changed = changed or any(gone)
    if entry.record is not None:
        prior = resources.get(entry.record.address)
        record = _next_version(prior, entry.record)
        if record != prior:
            resources[record.address] = record
            changed = True
    if entry.acceptance is not None and accepted.get(entry.acceptance.address) != entry.acceptance:
        accepted[entry.acceptance.address] = entry.acceptance
        changed = True
    return changed


def _move(
    resources: dict[Address, Record], accepted: dict[Address, Acceptance], source: Address, target: Address
) -> bool:
    record, acceptance = resources.pop(source, None), accepted.pop(source, None)
    if record is not None:
        resources[target] = msgspec.structs.replace(record, address=target)
    if acceptance is not None:
        accepted[target] = msgspec.structs.replace(acceptance, address=target)
    return record is not None or acceptance is not None


def _next_version(prior: Record | None, record: Record) -> Record:
    if prior is None:
        return record
    same = (prior.attributes, prior.driver) == (record.attributes, record.driver)
    version = prior.version if same else max(record.version, prior.version + 1)
    return record if version == record.version else msgspec.structs.replace(record, version=version)
