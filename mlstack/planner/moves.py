"""Announced renames (`moved`): a stage keeps its result and an endpoint its process under another address."""

from collections.abc import Mapping, Sequence

import msgspec

from mlstack.drivers.base import StageReading
from mlstack.graph.graph import StageInputs
from mlstack.planner.stages import renamed
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec
from mlstack.state.state import Record


def sources_of_moves(spec: Spec) -> dict[Address, tuple[Address, ...]]:
    """Return new address → the addresses that it may have had before, for those that are not declared any more.

    A move of a matrix stage moves each of its instances. Several old addresses for one new one are a chain of renames:
    the one announced last, which is the most recent, comes first.
    """
    found: dict[Address, tuple[Address, ...]] = {}
    for move in spec.moved:
        for target, source in _pairs(spec, move.source, move.target):
            if source not in spec.resources:
                found[target] = (source, *found.get(target, ()))
    return found


def _pairs(spec: Spec, source: Address, target: Address) -> list[tuple[Address, Address]]:
    if target in spec.resources:
        return [(target, source)]
    instances = [address for address in spec.resources if address.startswith(f"{target}[")]
    return [(instance, Address(f"{source}{instance.removeprefix(target)}")) for instance in instances]


def reading_before_move(
    inputs: StageInputs, sources: Sequence[Address], readings: Mapping[Address, StageReading]
) -> tuple[StageReading, Address] | None:
    """Return what was recorded under an old address, as if it had been recorded under the new one, and that address."""
    own = readings.get(inputs.address, StageReading())
    if own.recorded is not None:
        return None
    for source in sources:
        old = readings.get(source, StageReading())
        if old.recorded is not None:
            entry = renamed(old.recorded, inputs.entry_name)
            reading = msgspec.structs.replace(own, recorded=entry, outs=old.outs, missing=old.missing, defined=False)
            return reading, source
    return None


def record_before_move(
    address: Address, sources: Sequence[Address], records: Mapping[Address, Record]
) -> tuple[Record | None, Address | None]:
    """Return the record of an endpoint and, when it is still under an old address, that address."""
    source = next((source for source in sources if source in records), None)
    if address in records or source is None:
        return records.get(address), None
    return msgspec.structs.replace(records[source], address=address), source


def not_moved_yet(
    moves: Mapping[Address, Sequence[Address]], records: Mapping[Address, Record]
) -> dict[Address, Address]:
    """Return new address → the one under which a thing is still recorded."""
    found = {address: record_before_move(address, sources, records)[1] for address, sources in moves.items()}
    return {address: source for address, source in found.items() if source is not None}
