"""Variables that hold what other resources give: looked up once every resource is known."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from mlstack.diagnostics import Position
from mlstack.spec.address import Address, Kind
from mlstack.spec.computed import ATTRIBUTES, Computed, Later, Output
from mlstack.spec.draft import Draft
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.later import Named
from mlstack.spec.node import Node
from mlstack.spec.references import Index
from mlstack.spec.scope import Scope
from mlstack.spec.spec import Dataset, Dep, Endpoint, Model, Resource, Stage

_OUT = ("outs.", ".digest")


class _Holder(NamedTuple):
    address: Address
    scope: Scope
    env: Node


class ComputedBuilder:
    """Looks up outputs. `places` tells, after `build`, where a resource names another one."""

    def __init__(
        self, resources: Mapping[Address, Resource], drafts: Mapping[Address, Draft], index: Index, faults: Faults
    ) -> None:
        self.resources = resources
        self.drafts = drafts
        self.index = index
        self.faults = faults
        self.places: dict[tuple[Address, Address], Position] = {}

    def build(self) -> dict[Address, Resource]:
        """Return the resources that have such variables, with them. Faults are collected."""
        found: dict[Address, Resource] = {}
        for holder in self._holders():
            resource = self.resources.get(holder.address)
            computed = {name: self._computed(holder, node) for name, node in holder.env.map.items() if node.later}
            sound = {name: each for name, each in computed.items() if each is not None}
            if isinstance(resource, Endpoint) and sound:
                found[holder.address] = msgspec.structs.replace(resource, computed=sound)
            elif isinstance(resource, Stage) and sound:
                found[holder.address] = msgspec.structs.replace(
                    resource, computed=sound, deps=self._deps(resource, sound)
                )
        return found

    def _holders(self) -> Iterator[_Holder]:
        for draft in self.drafts.values():
            env = draft.node.get("env")
            if env is not None:
                yield _Holder(draft.address, draft.scope, env)
        for scope in self.index.scopes.values():
            section = scope.interpolated.get(Kind.ENDPOINT.value)
            for name, node in section.map.items() if section is not None else ():
                env = node.get("env")
                if env is not None:
                    yield _Holder(scope.address(Kind.ENDPOINT, name), scope, env)

    def _deps(self, stage: Stage, computed: Mapping[str, Computed]) -> tuple[Dep, ...]:
        """Return its inputs with what is hashed: so the value is in the fingerprint without being written anywhere."""
        found = {dep.path: dep for dep in stage.deps}
        for each in computed.values():
            for output in each.outputs:
                maker = self.resources.get(output.address)
                producer = maker.stage if isinstance(maker, Model) else output.address
                if output.path is not None:
                    found.setdefault(output.path, Dep(output.path, producer))
        return tuple(found.values())

    def _computed(self, holder: _Holder, node: Node) -> Computed | None:
        parts: list[str | Later] = []
        for part in node.later:
            if not isinstance(part, Named):
                parts.append(part)
                continue
            output = self._output(holder, part)
            if output is None:
                return None
            parts.append(Later(output=output, filters=part.filters))
            self.places.setdefault((holder.address, output.address), part.place)
        return Computed(tuple(parts))

    def _output(self, holder: _Holder, named: Named) -> Output | None:
        kind = named.reference.kind
        known = ATTRIBUTES.get(kind, ())
        if kind is not Kind.STAGE and not known:
            detail = f"`{named.text}`: a resource under `{kind.value}` gives nothing that could be put in."
            self._fault("wrong-reference", holder, named, detail, f"Of use are {listed(_examples())}.")
            return None
        found = self.index.resolve(named.reference, holder.scope, place=named.place, by=f"`{holder.address}`")
        if len(found) > 1:
            detail = f"`{named.text}` means {len(found)} instances of a matrix; one value is needed."
            self._fault("wrong-reference", holder, named, detail, f"Name one, for example {found[0]}.")
        maker = self.resources.get(found[0]) if len(found) == 1 else None
        if maker is None:
            return None
        if maker.address == holder.address:
            detail = f"`{holder.address}` needs what it gives itself."
            self._fault("depends-on-itself", holder, named, detail, "Take the value from another resource.")
            return None
        if isinstance(maker, Stage):
            return self._of_stage(holder, named, maker)
        if named.attribute not in known:
            near = suggest(named.attribute, known)
            detail = _gives_no(maker.address, named.attribute) + near
            hint = f"It gives {listed(f'{maker.address}.{each}' for each in known)}."
            self._fault("expression-undefined", holder, named, detail, hint)
            return None
        if isinstance(maker, Endpoint) and isinstance(self.resources.get(holder.address), Stage):
            self._refuse_in_stage(holder, named)
            return None
        path = maker.path if isinstance(maker, Dataset) else maker.out if isinstance(maker, Model) else None
        return Output(address=maker.address, attribute=named.attribute, path=path)

    def _of_stage(self, holder: _Holder, named: Named, maker: Stage) -> Output | None:
        head, tail = _OUT
        name = named.attribute
        if name.startswith(head) and name.endswith(tail) and len(name) > len(head) + len(tail):
            wanted = name[len(head) : -len(tail)]
            out = next((out for out in maker.outs if wanted in (out.name, out.path)), None)
            if out is not None:
                return Output(address=maker.address, attribute=name, path=out.path)
        gives = [f"{maker.address}.{head}{out.name or out.path}{tail}" for out in maker.outs]
        near = suggest(f"{maker.address}.{name}", gives)
        detail = _gives_no(maker.address, name) + near
        self._fault("expression-undefined", holder, named, detail, f"It gives {listed(gives, most=6, none='nothing')}.")
        return None

    def _refuse_in_stage(self, holder: _Holder, named: Named) -> None:
        detail = (
            f"`{named.text}` depends on the machine and is known only after apply; the `env` of a stage is part of "
            "what is computed, so every machine would compute it anew."
        )
        hint = "Hand the address over as a reference, which is not computed with: env: {URL: {secret: env://URL}}."
        self._fault("expression-volatile", holder, named, detail, hint)

    def _fault(self, code: str, holder: _Holder, named: Named, detail: str, hint: str) -> None:
        self.faults.add(code, named.place, detail, hint, address=holder.address)


def _gives_no(address: Address, attribute: str) -> str:
    return f"`{address}` gives no `{attribute}`." if attribute else f"`{address}` alone is no value."


def _examples() -> list[str]:
    plain = [f"{kind.value}.NAME.{name}" for kind, names in ATTRIBUTES.items() for name in names]
    return [*plain, "stages.NAME.outs.NAME.digest"]
