"""References between resources: what is written → the addresses that are meant."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mlstack.diagnostics import Position
from mlstack.spec.address import NAME, Address, Kind, make_address
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.matrix import normal_instance
from mlstack.spec.scope import Scope

_KINDS = "|".join(kind.value for kind in Kind)
_REFERENCE = re.compile(
    rf"(?:(?P<component>{NAME})?(?P<slash>/))?(?P<kind>{_KINDS})\.(?P<name>{NAME})"
    r"(?:\[(?P<instance>[^\[\]]+)\])?(?:\.(?P<part>outs|metrics)\.(?P<rest>.+))?"
)
_BARE = re.compile(rf"(?:(?P<component>{NAME})?(?P<slash>/))?(?P<name>{NAME})(?:\[(?P<instance>[^\[\]]+)\])?")
_SINGULAR = {
    Kind.POOL: "pool",
    Kind.IMAGE: "image",
    Kind.DATASET: "dataset",
    Kind.STAGE: "stage",
    Kind.MODEL: "model",
    Kind.ENDPOINT: "endpoint",
}


class Reference(NamedTuple):
    """A reference taken apart. `component` None: where it stands; "": the top level."""

    component: str | None
    kind: Kind
    name: str
    instance: str
    part: str
    rest: str


def parse_reference(text: str, *, kind: Kind | None = None) -> Reference | None:
    """Take a reference apart; with `kind`, a bare name is accepted as well. None if it is none."""
    found = _REFERENCE.fullmatch(text)
    if found is not None:
        component = (found["component"] or "") if found["slash"] else None
        instance = normal_instance(found["instance"] or "")
        return Reference(
            component, Kind(found["kind"]), found["name"], instance, found["part"] or "", found["rest"] or ""
        )
    bare = _BARE.fullmatch(text) if kind is not None else None
    if bare is None or kind is None:
        return None
    component = (bare["component"] or "") if bare["slash"] else None
    return Reference(component, kind, bare["name"], normal_instance(bare["instance"] or ""), "", "")


class Index:
    """Everything that can be referred to. `instances` gives those of matrix stages, by address without instance."""

    def __init__(self, scopes: Mapping[str, Scope], instances: Mapping[Address, list[str]], faults: Faults) -> None:
        self.scopes = scopes
        self.instances = instances
        self.faults = faults

    def has(self, scope: Scope, reference: Reference) -> bool:
        """Whether something of that name is declared."""
        home = self.home(scope, reference)
        return home is not None and home.declares(reference.kind, reference.name)

    def home(self, scope: Scope, reference: Reference) -> Scope | None:
        """Return the scope that a reference points into; pools are those of the top level everywhere."""
        if reference.kind is Kind.POOL:
            return self.scopes[""]
        return scope if reference.component is None else self.scopes.get(reference.component)

    def resolve(self, reference: Reference, scope: Scope, *, place: Position, by: str) -> list[Address]:
        """Return the addresses that are meant: one, or all instances of a matrix stage.

        Empty with a fault, or if what is meant has faults of its own.
        """
        home = self.home(scope, reference)
        kind, name = reference.kind, reference.name
        if home is None:
            near = suggest(reference.component or "", filter(None, self.scopes))
            known = listed(filter(None, self.scopes))
            detail = f"{by} refers to the component `{reference.component}`, which does not exist.{near}"
            self.faults.add("unknown-reference", place, detail, f"Components: {known}.")
            return []
        if not home.declares(kind, name):
            self._unknown(reference, home, place, by)
            return []
        if home.is_broken(kind, name):
            return []
        base = home.address(kind, name)
        instances = self.instances.get(base)
        if instances is None:
            if reference.instance:
                detail = f"{by} refers to an instance of `{base}`, which has no matrix."
                self.faults.add("unknown-reference", place, detail, f"Write {base}.")
                return []
            return [base]
        if not reference.instance:
            return [home.address(kind, name, instance) for instance in sorted(instances)]
        if reference.instance not in instances:
            near = suggest(reference.instance, instances)
            detail = f"`{base}` has no instance [{reference.instance}]." + near
            known = listed((f"{base}[{instance}]" for instance in instances), most=6)
            self.faults.add("unknown-reference", place, detail, f"Its instances: {known}.")
            return []
        return [home.address(kind, name, reference.instance)]

    def _unknown(self, reference: Reference, home: Scope, place: Position, by: str) -> None:
        kind, name = reference.kind, reference.name
        written = make_address(kind, name, component=home.name)
        detail = f"{by} refers to `{written}`, which does not exist."
        near = suggest(name, home.names(kind))
        detail += near
        elsewhere = [other for other in self.scopes.values() if other.declares(kind, name) and other is not home]
        if elsewhere and kind is not Kind.POOL:
            prefix = elsewhere[0].name or ""
            hint = f"`{prefix}/{kind.value}.{name}` exists: write it so."
        elif kind is Kind.POOL and not home.names(kind):
            hint = f"Declare it: compute: {{{name}: {{target: …}}}}. Or leave `compute` out, to run on this machine."
        else:
            hint = f"Declared {_SINGULAR[kind]}s: {listed(home.names(kind))}."
        self.faults.add("unknown-reference", place, detail, hint)


def wrong_kind(reference: Reference, expected: Iterable[Kind]) -> str:
    """Return a sentence that says which kind was expected."""
    words = " or ".join(f"a {_SINGULAR[kind]}" for kind in expected)
    return f"`{reference.kind.value}.{reference.name}` is not {words}."
