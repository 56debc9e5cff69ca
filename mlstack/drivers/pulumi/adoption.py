"""Objects that are there already and are taken in (`Object.adopt`).

Pulumi's own import takes an object in only if the program describes it exactly as it is, labels and all: nothing that
somebody made by hand is. So an object is noted in the record as if it had been made as described. The refresh reads it,
which turns what is different into an update, or drops it if it is not there, and then it is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.pulumi.checkpoint import FORMAT, NO_MANIFEST
from mlstack.drivers.pulumi.names import COMPONENT, Place, object_name, place_of
from mlstack.drivers.pulumi.program import provider_settings
from mlstack.drivers.pulumi.readings import note_of
from mlstack.drivers.stacks import Object, Provider, Unit, UnitReading, Unknown
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, kind_of

_ROOT = "pulumi:pulumi:Stack"


def with_adopted(data: bytes, units: Sequence[Unit], *, project: str, stack: str) -> bytes | None:
    """Return the checkpoint with what is to be taken in noted; None if all of it is recorded already, or nothing is."""
    adopting = list(_adopting(units))
    if not adopting:
        return None
    whole = msgspec.json.decode(data)
    deployment: dict[str, Any] = whole["checkpoint"].get("latest") or {}
    resources: list[dict[str, Any]] = list(deployment.get("resources") or ())
    recorded = {place_of(each["urn"]) for each in resources if not each.get("delete")}
    wanted = [(unit, part) for unit, part in adopting if Place(unit.address, part.key) not in recorded]
    if not wanted:
        return None
    notes = _Notes(resources, f"urn:pulumi:{stack}::{project}::", f"{project}-{stack}")
    for unit, part in wanted:
        notes.add(unit, part)
    whole["version"] = FORMAT
    whole["checkpoint"]["latest"] = {"manifest": NO_MANIFEST, **deployment, "resources": resources}
    return msgspec.json.encode(whole)


class _Notes:
    """The resources of a record, and what is added to them; each after those that it refers to."""

    def __init__(self, resources: list[dict[str, Any]], prefix: str, root_name: str) -> None:
        self.resources, self.prefix = resources, prefix
        self.known = {each["urn"]: each for each in resources if not each.get("delete")}
        self.root = self._note({"urn": f"{prefix}{_ROOT}::{root_name}", "custom": False, "type": _ROOT})["urn"]

    def add(self, unit: Unit, part: Object) -> None:
        """Note an object as if it had been made as it is described."""
        component = f"{self.prefix}{COMPONENT}::{unit.address}"
        self._note({"urn": component, "custom": False, "type": COMPONENT, "parent": self.root})
        inputs = _without_unknown(part.inputs)
        self._note(
            {
                "urn": f"{self.prefix}{COMPONENT}${part.type}::{object_name(unit.address, part.key)}",
                "custom": True,
                "id": part.adopt,
                "type": part.type,
                "inputs": inputs,
                "outputs": inputs,
                "parent": component,
                "provider": self._provider(unit.provider),
                "propertyDependencies": {name: [] for name in part.inputs},
            }
        )

    def _provider(self, provider: Provider) -> str:
        kind = f"pulumi:providers:{provider.name}"
        urn = f"{self.prefix}{kind}::{provider.key}"
        settings = {**provider_settings(provider), "version": provider.version}
        noted = self._note(
            {
                "urn": urn,
                "custom": True,
                "id": str(uuid5(NAMESPACE_URL, urn)),
                "type": kind,
                "inputs": {"__internal": {}, **settings},
                "outputs": settings,
                "parent": self.root,
            }
        )
        return f"{urn}::{noted['id']}"

    def _note(self, resource: dict[str, Any]) -> dict[str, Any]:
        if resource["urn"] not in self.known:
            self.known[resource["urn"]] = resource
            self.resources.append(resource)
        return self.known[resource["urn"]]


def _adopting(units: Sequence[Unit]) -> Iterator[tuple[Unit, Object]]:
    return ((unit, part) for unit in units for part in unit.objects if part.adopt)


def _without_unknown(value: Any) -> Any:
    """Return inputs without what is known only after apply: no mark of the engine may get into a record."""
    if isinstance(value, Mapping):
        return {key: _without_unknown(each) for key, each in value.items() if not isinstance(each, Unknown)}
    if isinstance(value, list | tuple):
        return [_without_unknown(each) for each in value if not isinstance(each, Unknown)]
    return value


# ---------------------------------------------------------------------------------------------------- readings


def as_imports(
    readings: Mapping[Address, UnitReading], units: Sequence[Unit], recorded: set[Place]
) -> dict[Address, UnitReading]:
    """Return the readings with what is taken in as parts `IMPORT`, and without the drift that only the noting made.

    `recorded` are the objects that the stack held before. Raises `MlstackError` for what could be had only by removing
    what is there.
    """
    found, problems = dict(readings), []
    for unit in units:
        new = [each for each in unit.objects if each.adopt and Place(unit.address, each.key) not in recorded]
        if new and unit.address in found:
            found[unit.address] = reading = _with_imports(unit, new, found[unit.address])
            names = {object_name(unit.address, each.key) for each in new}
            problems += [
                _replaces(unit.address, part)
                for part in reading.parts
                if part.address in names and part.action is Action.REPLACE
            ]
    if problems:
        raise MlstackError(*problems)
    return found


def _with_imports(unit: Unit, new: Sequence[Object], reading: UnitReading) -> UnitReading:
    names = {object_name(unit.address, each.key) for each in new}
    gone = {part.address for part in reading.drifted if part.address in names and part.action is Action.DELETE}
    parts = {part.address: part for part in reading.parts}
    for each in new:
        name = Address(object_name(unit.address, each.key))
        part = parts.get(name)
        if name in gone or (part is not None and part.action is Action.REPLACE):
            continue
        parts[name] = _as_import(unit, each, part)
    return msgspec.structs.replace(
        reading,
        parts=tuple(parts[name] for name in sorted(parts)),
        drifted=tuple(part for part in reading.drifted if part.address not in names),
    )


def _as_import(unit: Unit, part: Object, change: Change | None) -> Change:
    if change is not None:
        return msgspec.structs.replace(change, action=Action.IMPORT)
    return Change(
        address=Address(object_name(unit.address, part.key)),
        kind=kind_of(unit.address),
        action=Action.IMPORT,
        reasons=(),
        note=note_of(part.type, part.key, part.inputs),
    )


def _replaces(address: Address, part: Change) -> Diagnostic:
    fixed = [field.path for field in part.fields if field.forces_replacement]
    what = ", ".join(fixed) or "what it is"
    return Diagnostic(
        code="import-replaces",
        summary="What is there cannot become this resource",
        detail=f"{part.note}, which {address} is to take in, would have to be removed and made anew: {what} cannot be "
        "changed.",
        hint="Take it out of `import` and give the resource another name. Or remove it yourself, if it may be gone for "
        "a while; then the resource is made.",
        address=address,
    )
