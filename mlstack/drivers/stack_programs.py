"""The whole program of each stack, from the file, what is recorded, and who describes units."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mlstack.drivers.registry import check_provider, stack_driver, stack_engine
from mlstack.drivers.stacks import REPLACED, UNIT, StackDriver, StackEngine, StackName, Unit, UnitReading
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.images import reference_to_run
from mlstack.spec.address import Address
from mlstack.state.state import Record

Attributes = Mapping[str, Any]


def recorded_unit(record: Record) -> Unit | None:
    """Return what was applied for a record; None for what is in no stack."""
    found = record.attributes.get(UNIT)
    return msgspec.convert(found, Unit) if found is not None else None


def with_unit(record: Record, unit: Unit) -> Record:
    """Return the record with its unit."""
    return msgspec.structs.replace(record, attributes={**record.attributes, UNIT: msgspec.to_builtins(unit)})


def known_images(graph: ResourceGraph, records: Mapping[Address, Record]) -> dict[Address, str]:
    """Return what containers are made from, by digest, of the images that are there as they should be."""
    found = {}
    for address, plan in graph.images.items():
        record = records.get(address)
        if record is not None and record.attributes.get("tag") == plan.tag:
            reference = reference_to_run(record.attributes)
            if reference is not None:
                found[address] = reference
    return found


class StackReader:
    """Answers what stacks would do, for a plan."""

    def __init__(
        self,
        graph: ResourceGraph,
        records: Mapping[Address, Record],
        *,
        root: Path,
        refresh: bool,
        forced: Collection[Address] = (),
    ) -> None:
        self._graph, self._records, self._root, self._refresh = graph, records, root, refresh
        self._forced = frozenset(forced)
        self._images = known_images(graph, records)

    def read(
        self, desired: Mapping[Address, Attributes], kept: Collection[Address], previous: Mapping[Address, Address]
    ) -> dict[Address, UnitReading]:
        """Return what the engine says of each address that is in a stack or is to be.

        Without refresh, nothing is started for stacks whose every unit is the recorded one, and nothing said of them.
        Raises `MlstackError` when the engine cannot say it.
        """
        recorded = {address: unit for address, record in self._records.items() if (unit := recorded_unit(record))}
        wanted = {address: unit for address in desired if (unit := self._unit(address, desired[address], previous))}
        wanted |= {address: recorded[address] for address in kept if address in recorded and address not in wanted}
        found: dict[Address, UnitReading] = {}
        engine: StackEngine | None = None
        for stack in sorted({unit.stack for unit in (*recorded.values(), *wanted.values())}):
            program, before = _of(stack, wanted), _of(stack, recorded)
            if not self._refresh and program == before:
                continue
            self._check_providers(program, before)
            engine = engine or stack_engine(self._graph.spec, root=self._root)
            readings = engine.preview(stack, list(program.values()), refresh=self._refresh)
            found |= {
                each: in_order(reading, wanted.get(each, recorded.get(each))) for each, reading in readings.items()
            }
        return found

    def _check_providers(self, program: Mapping[Address, Unit], before: Mapping[Address, Unit]) -> None:
        """Raise `MlstackError` for a provider that must not be started, or is to read and cannot."""
        reading = {unit.provider.key: unit for unit in before.values()} if self._refresh else {}
        units = {unit.provider.key: unit for unit in (*before.values(), *program.values())} | reading
        for key, unit in units.items():
            check_provider(unit.provider, root=self._root, reads=key in reading, address=unit.address)

    def _unit(self, address: Address, desired: Attributes, previous: Mapping[Address, Address]) -> Unit | None:
        resource = self._graph.resources[address]
        driver = stack_driver(resource, self._graph, root=self._root)
        if driver is None:
            return None
        record = self._records.get(previous.get(address, address))
        desired = with_kept(driver, desired, record, forced=address in self._forced)
        unit = driver.unit(resource, self._graph, desired, images=self._images)
        return renamed(unit, previous.get(address))


def with_kept(
    driver: StackDriver, desired: Attributes, record: Record | None, *, forced: bool = False
) -> dict[str, Any]:
    """Return the attributes with those that cannot be known here as they are recorded; `forced`: to be made anew."""
    before = record.attributes if record is not None and record.driver == driver.name else {}
    kept = {name: before[name] for name in driver.kept if name in before}
    if forced and REPLACED in driver.kept and before:
        kept[REPLACED] = int(before.get(REPLACED, 0)) + 1
    return {**kept, **desired}


def in_order(reading: UnitReading, unit: Unit | None) -> UnitReading:
    """Return the reading with its objects in the order of the unit: what others stand on comes first."""
    if unit is None:
        return reading
    places = {f"{unit.address}#{each.key}": place for place, each in enumerate(unit.objects)}
    by_place = partial(_place, places)
    return msgspec.structs.replace(
        reading,
        parts=tuple(sorted(reading.parts, key=by_place)),
        drifted=tuple(sorted(reading.drifted, key=by_place)),
    )


def _place(places: Mapping[str, int], part: Change) -> tuple[int, str]:
    return places.get(part.address, len(places)), part.address


def renamed(unit: Unit, before: Address | None) -> Unit:
    """Return the unit with the names that its objects had at the address before."""
    if before is None:
        return unit
    objects = tuple(
        msgspec.structs.replace(each, aliases=(*each.aliases, f"{before}#{each.key}")) for each in unit.objects
    )
    return msgspec.structs.replace(unit, objects=objects)


def _of(stack: StackName, units: Mapping[Address, Unit]) -> dict[Address, Unit]:
    return {address: units[address] for address in sorted(units) if units[address].stack == stack}
