"""Objects that several units of a stack have together: there once, until the last of them goes.

A namespace stands for every pool in it. It belongs to none of them: else it would be made anew, with all that is in it,
when its owner goes or another pool comes first. To the engine such objects are a unit of their own (decision 0039).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.stacks import Object, Unit, UnitReading, UnitResult
from mlstack.spec.address import Address, kind_of

_MARK = ".@"
"""In no address of a file."""


def is_shared(address: Address) -> bool:
    """Whether this is the address of objects that several units have together, or of one of these objects."""
    return _MARK in address


def shared_name(unit: Unit, part: Object) -> Address:
    """Return what an object that a unit shares is called in its stack."""
    return Address(f"{_place(unit, part)}#{part.key}")


def gathered(units: Mapping[Address, Unit], *, newer: Collection[Address]) -> list[Unit]:
    """Return the units as an engine gets them: what they share taken out of each, into a unit of its own.

    Where they differ about it, those of `newer` count: the others are as they were recorded.
    """
    shared: dict[Address, dict[str, Object]] = {}
    first: dict[Address, Unit] = {}
    own: list[Unit] = []
    for address in sorted(units, key=lambda each: (each not in newer, each)):
        unit = units[address]
        own.append(_without_shared(unit))
        for part in unit.objects:
            if part.shared:
                place = _place(unit, part)
                first.setdefault(place, unit)
                _note(shared.setdefault(place, {}), part)
    together = [
        msgspec.structs.replace(first[place], address=place, objects=tuple(parts.values()))
        for place, parts in sorted(shared.items())
    ]
    return [*together, *sorted(own, key=lambda unit: unit.address)]


def folded(readings: Mapping[Address, UnitReading], units: Iterable[Unit]) -> dict[Address, UnitReading]:
    """Return the readings with those of shared objects given to the first of `units` that has them."""
    found = dict(readings)
    for place, address in _holders(units).items():
        if place in found:
            found[address] = found.pop(place).joined(found.get(address, UnitReading()))
    return found


def result_of(results: Mapping[Address, UnitResult], unit: Unit | None, address: Address) -> UnitResult:
    """Return what became of a unit: it is not there while something that it shares is not."""
    own = results.get(address, UnitResult())
    for part in unit.objects if unit is not None else ():
        problem = results.get(_place(unit, part), own).problem if unit is not None and part.shared else None
        if problem is not None:
            return UnitResult(problem=msgspec.structs.replace(problem, address=address))
    return own


def holder_of(address: Address, units: Iterable[Unit]) -> Address:
    """Return the unit of which shared objects are told, and any other address as it is."""
    return _holders(units).get(address, address) if is_shared(address) else address


@contextmanager
def told_of_holders(units: Sequence[Unit]) -> Iterator[None]:
    """Have what goes wrong with shared objects said of the first of `units` that has them: their own name is ours."""
    try:
        yield
    except MlstackError as error:
        told = [
            msgspec.structs.replace(each, address=holder_of(Address(each.address), units)) if each.address else each
            for each in error.diagnostics
        ]
        raise MlstackError(*told, exit_code=error.exit_code) from error


def _holders(units: Iterable[Unit]) -> dict[Address, Address]:
    found: dict[Address, Address] = {}
    for unit in units:
        for part in unit.objects:
            if part.shared:
                found.setdefault(_place(unit, part), unit.address)
    return found


def _place(unit: Unit, part: Object) -> Address:
    return Address(f"{kind_of(unit.address).value}{_MARK}{unit.provider.key}.{part.shared}")


def _note(parts: dict[str, Object], part: Object) -> None:
    """Keep the first that says what an object is like; whoever takes it in says so for all."""
    kept = parts.setdefault(part.key, msgspec.structs.replace(part, aliases=()))
    if part.adopt and not kept.adopt:
        parts[part.key] = msgspec.structs.replace(kept, adopt=part.adopt)


def _without_shared(unit: Unit) -> Unit:
    places = {part.key: _place(unit, part) for part in unit.objects if part.shared}
    if not places:
        return unit
    objects = tuple(
        msgspec.structs.replace(
            part, needs=tuple(f"{places[need]}#{need}" if need in places else need for need in part.needs)
        )
        for part in unit.objects
        if not part.shared
    )
    return msgspec.structs.replace(unit, objects=objects)
