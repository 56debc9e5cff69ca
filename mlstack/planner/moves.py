"""Announced renames (`moved`): a stage keeps its result and an endpoint its process under another address."""

from collections.abc import Mapping

import msgspec

from mlstack.drivers.base import StageReading
from mlstack.graph.graph import StageInputs
from mlstack.graph.resolve import entry_name
from mlstack.planner.stages import renamed
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec
from mlstack.state.state import Record


def sources_of_moves(spec: Spec) -> dict[Address, Address]:
    """Return new address → old address, for renames whose old address is not declared any more."""
    return {move.target: move.source for move in spec.moved if move.source not in spec.resources}


def reading_before_move(
    inputs: StageInputs, source: Address | None, readings: Mapping[Address, StageReading]
) -> StageReading | None:
    """Return what was recorded under the old address, as if it had been recorded under the new one."""
    if source is None or source not in readings:
        return None
    own, old = readings.get(inputs.address, StageReading()), readings[source]
    if own.recorded is not None or old.recorded is None:
        return None
    entry = renamed(old.recorded, entry_name(source), inputs.entry_name)
    return msgspec.structs.replace(own, recorded=entry, outs=old.outs, missing=old.missing, defined=False)


def record_before_move(
    address: Address, source: Address | None, records: Mapping[Address, Record]
) -> tuple[Record | None, Address | None]:
    """Return the record of an endpoint and, when it is still under the old address, that address."""
    if address in records or source is None or source not in records:
        return records.get(address), None
    return msgspec.structs.replace(records[source], address=address), source
