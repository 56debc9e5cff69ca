"""The whole program of each stack, from the file, what is recorded, and who describes units."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.existing import as_ours, with_existing
from mlstack.drivers.registry import check_provider, stack_driver, stack_engine
from mlstack.drivers.shared_objects import folded, gathered, told_of_holders
from mlstack.drivers.stacks import REPLACED, UNIT, Provider, StackDriver, StackName, SupportsOverlap, Unit, UnitReading
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.images import reference_to_run
from mlstack.spec.address import Address
from mlstack.spec.spec import Resource
from mlstack.state.state import Record

Attributes = Mapping[str, Any]


def recorded_unit(record: Record) -> Unit | None:
    """Return what was applied for a record; None for what is in no stack."""
    found = record.attributes.get(UNIT)
    return decoding.convert(found, Unit) if found is not None else None


def with_unit(record: Record, unit: Unit) -> Record:
    """Return the record with its unit."""
    attributes = {**record.attributes, UNIT: msgspec.to_builtins(as_ours(unit))}
    return msgspec.structs.replace(record, attributes=attributes)


def known_images(graph: ResourceGraph, records: Mapping[Address, Record]) -> dict[Address, str]:
    """Return what containers are made from, by digest, of the images that are there, and where, as they should be."""
    found = {}
    for address, plan in graph.images.items():
        record = records.get(address)
        known = record.attributes if record is not None else {}
        if record is not None and (known.get("tag"), known.get("reference")) == (plan.tag, plan.reference):
            reference = reference_to_run(record.attributes)
            if reference is not None:
                found[address] = reference
    return found


def as_known(unit: Unit, recorded: Iterable[Unit]) -> Unit:
    """Return the unit with the key under which the stacks know the provider that it names, whatever it was called.

    No key stands for two: one that another provider has already gets a hash of what it is reached by.
    """
    providers = [each.provider for each in recorded if each.provider.name == unit.provider.name]
    key = next((each.key for each in providers if each.settings == unit.provider.settings), None)
    if key is None:
        key = unit.provider.key
        if any(each.key == key for each in providers):
            reached_by = msgspec.json.encode(unit.provider.settings, order="deterministic")
            key = f"{key}-{sha256(reached_by).hexdigest()[:8]}"
    return msgspec.structs.replace(unit, provider=msgspec.structs.replace(unit.provider, key=key))


def providers_of(units: Iterable[Unit]) -> list[Provider]:
    """Return the providers of units, one for each key."""
    return [*{unit.provider.key: unit.provider for unit in units}.values()]


class StackReader:
    """Answers what stacks would do, for a plan.

    With `tolerant`, what is recorded where nobody answers stays as it is, nothing is said of it, and `unanswered` says
    why.
    """

    def __init__(
        self,
        graph: ResourceGraph,
        records: Mapping[Address, Record],
        *,
        root: Path,
        refresh: bool,
        forced: Collection[Address] = (),
        ahead: bool = False,
        tolerant: bool = False,
    ) -> None:
        self._graph, self._records, self._root, self._refresh = graph, records, root, refresh
        self._ahead, self._tolerant = ahead, tolerant
        self._troubles: dict[str, MlstackError | None] = {}
        self._forced = frozenset(forced)
        self._images = known_images(graph, records)
        self._recorded = {address: unit for address, record in records.items() if (unit := recorded_unit(record))}

    @property
    def unanswered(self) -> tuple[Diagnostic, ...]:
        """Why nothing is known of what is recorded in some places: with `tolerant`, else that is raised."""
        errors = self._troubles.values() if self._tolerant else ()
        return tuple(each for error in errors if error is not None for each in error.diagnostics)

    def read(
        self,
        desired: Mapping[Address, Attributes],
        kept: Collection[Address],
        previous: Mapping[Address, Address],
        rebuilt: Collection[Address] = (),
        aside: Collection[Address] = (),
    ) -> dict[Address, UnitReading]:
        """Return what the engine says of each address that is in a stack or is to be.

        What is `aside` stays as it is, and need not answer: then nothing is said of it.

        Without refresh, nothing is started for stacks whose every unit is the recorded one, and nothing said of them.
        With it, providers have to answer before they are started: those of the records, with `ahead` all. Of `rebuilt`
        images the digest is known only after apply. Raises `MlstackError` when the engine cannot say it.
        """
        self._images = {each: reference for each, reference in self._images.items() if each not in rebuilt}
        recorded = self._recorded
        wanted = {address: unit for address in desired if (unit := self._unit(address, desired[address], previous))}
        wanted |= {address: recorded[address] for address in kept if address in recorded and address not in wanted}
        if self._tolerant and self._refresh:
            silent = {address for address, unit in recorded.items() if self._trouble(unit) is not None}
            keys = {recorded[address].provider.key for address in silent}
            wanted = {address: unit for address, unit in wanted.items() if unit.provider.key not in keys}
            wanted |= {address: recorded[address] for address in silent}
            aside = {*aside, *silent}
        asked: dict[StackName, list[Unit]] = {}
        idle: set[str] = set()
        for stack in sorted({unit.stack for unit in (*recorded.values(), *wanted.values())}):
            program, before = _of(stack, wanted), _of(stack, recorded)
            if self._refresh or program != before:
                idle |= self._check_providers(program, before, aside)
                asked[stack] = gathered(program, newer=desired)
        shown = {unit.address: unit for units in (gathered(recorded, newer=()), *asked.values()) for unit in units}
        users = [wanted[each] for each in sorted(wanted, key=lambda each: (each not in desired, each))]
        users += recorded.values()
        with told_of_holders(users):
            readings = self._preview(asked, idle)
        found = {
            address: in_order(reading, shown.get(address)) for each in readings for address, reading in each.items()
        }
        return _with_former(folded(found, users), previous) if found else found

    def _preview(
        self, asked: Mapping[StackName, Sequence[Unit]], idle: Collection[str]
    ) -> list[Mapping[Address, UnitReading]]:
        """Preview stacks side by side: each waits for the world most of the time, and none for another.

        What goes wrong with one, also Ctrl-C, ends the others.
        """
        if not asked:
            return []
        from concurrent.futures import ThreadPoolExecutor

        providers = providers_of(self._recorded.values())
        engine, stop = stack_engine(self._graph.spec, root=self._root, providers=providers), StopFlag()
        preview = partial(engine.preview, refresh=self._refresh, stop=stop, idle=idle)
        with ThreadPoolExecutor(len(asked)) as threads:
            begun = [threads.submit(preview, stack, units) for stack, units in asked.items()]
            try:
                return [each.result() for each in begun]
            except BaseException:
                stop.set()
                raise

    def _check_providers(
        self, program: Mapping[Address, Unit], before: Mapping[Address, Unit], aside: Collection[Address]
    ) -> set[str]:
        """Return the providers of nothing but what is aside that cannot read.

        Raises `MlstackError` for one that must not be started, or is to read and cannot.
        """
        asked = (*before.values(), *(program.values() if self._ahead else ()))
        reading = {unit.provider.key: unit for unit in asked} if self._refresh else {}
        units = {unit.provider.key: unit for unit in (*before.values(), *program.values())} | reading
        needed = {
            each.provider.key for units in (before, program) for address, each in units.items() if address not in aside
        }
        idle = set()
        for key, unit in units.items():
            trouble = self._trouble(unit) if key in reading else None
            if trouble is not None or key not in reading:
                check_provider(unit.provider, root=self._root, address=unit.address, reads=False)
            if trouble is not None:
                if key in needed:
                    raise trouble
                idle.add(key)
        return idle

    def _trouble(self, unit: Unit) -> MlstackError | None:
        """Ask a unit's provider, once, whether it can read; return why not."""
        key = unit.provider.key
        if key not in self._troubles:
            try:
                check_provider(unit.provider, root=self._root, address=unit.address, reads=True)
                self._troubles[key] = None
            except MlstackError as error:
                self._troubles[key] = error
        return self._troubles[key]

    def _unit(self, address: Address, desired: Attributes, previous: Mapping[Address, Address]) -> Unit | None:
        resource = self._graph.resources[address]
        driver = stack_driver(resource, self._graph, root=self._root)
        if driver is None:
            return None
        record = self._records.get(previous.get(address, address))
        desired = with_kept(driver, desired, record, forced=address in self._forced)
        unit = driver.unit(resource, self._graph, desired, images=self._images)
        before = recorded_unit(record) if record is not None else None
        unit = as_known(with_existing(unit, self._graph.spec, before), self._recorded.values())
        is_beside = comes_beside(driver, unit, before, resource, self._graph)
        return unit if is_beside else renamed(unit, previous.get(address))


def _with_former(
    readings: Mapping[Address, UnitReading], previous: Mapping[Address, Address]
) -> dict[Address, UnitReading]:
    """Return the readings with what is said of the address that something had before at the one that it has now."""
    found = dict(readings)
    for address, source in previous.items():
        if source in found:
            found[address] = found.get(address, UnitReading()).joined(found.pop(source))
    return found


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


def comes_beside(
    driver: StackDriver, unit: Unit, before: Unit | None, resource: Resource, graph: ResourceGraph
) -> bool:
    """Whether a unit that got another address is made beside what it was, which goes when the new one is ready.

    So it can where no object is the same one to its provider, and the driver says that both have room.
    """
    if before is None or before.address == unit.address or not isinstance(driver, SupportsOverlap):
        return False
    ids = [{each.options.get("id", "") for each in one.objects} for one in (unit, before)]
    return not ids[0] & ids[1] and driver.may_overlap(resource, graph)


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
