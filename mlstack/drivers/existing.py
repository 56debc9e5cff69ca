"""What is there already and is taken in (`import:` of the file): which objects of a unit that is."""

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.stacks import Object, Unit
from mlstack.spec.faults import suggest
from mlstack.spec.spec import Import, Spec


def with_existing(unit: Unit, spec: Spec, recorded: Unit | None) -> Unit:
    """Return the unit with the IDs of objects that are taken in where they are there (`Object.adopt`).

    What is recorded is ours already, so the key in the file has no effect on it. Raises `MlstackError` for an import of
    what the unit does not have.
    """
    imports = [each for each in spec.imports if each.to == unit.address]
    if not imports:
        return unit
    names = {name_of(each): each for each in unit.objects if each.options.get("id")}
    problems = [_no_such_object(each, unit, sorted(names)) for each in imports if each.id and each.id not in names]
    if problems:
        raise MlstackError(*problems)
    asked = {each.id for each in imports}
    ours = {each.key for each in recorded.objects} if recorded is not None else set()
    taken = {each.key for name, each in names.items() if asked & {"", name}} - ours
    objects = tuple(
        msgspec.structs.replace(each, adopt=each.options["id"]) if each.key in taken else each for each in unit.objects
    )
    return msgspec.structs.replace(unit, objects=objects) if taken else unit


def as_ours(unit: Unit) -> Unit:
    """Return the unit as it is recorded: nothing of it is still to be taken in."""
    if not is_taken_in(unit):
        return unit
    objects = tuple(msgspec.structs.replace(each, adopt="") for each in unit.objects)
    return msgspec.structs.replace(unit, objects=objects)


def is_taken_in(unit: Unit) -> bool:
    """Whether something of the unit may have been there before."""
    return any(each.adopt for each in unit.objects)


def name_of(part: Object) -> str:
    """Return how people name an object, as kubectl does: `namespace/ml`."""
    return f"{part.type.rpartition(':')[2].lower()}/{part.options['id'].rpartition('/')[2]}"


def _no_such_object(asked: Import, unit: Unit, names: list[str]) -> Diagnostic:
    return Diagnostic(
        code="import-unknown",
        summary="An import names an object that the resource does not have",
        detail=f"`{asked.id}` is not among the objects of {unit.address}.{suggest(asked.id, names)}",
        hint=f"It has: {', '.join(names)}. What is called otherwise needs another name here (`namespace`, the name of "
        "the endpoint), or there.",
        address=unit.address,
        position=asked.place,
    )
