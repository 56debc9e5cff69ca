"""The program of a stack: units, as data, registered with the engine's resource monitor.

It speaks to the monitor itself, over the protocol that every language of Pulumi uses, instead of going through the
Python SDK's `Resource` classes: those send a stack trace with the paths of this machine for every resource, which the
checkpoint keeps, and three log lines (docs/decisions/0026-drive-pulumi-by-its-protocol.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from mlstack.drivers.pulumi.names import COMPONENT, UNKNOWN_TEXT, names_before, object_name
from mlstack.drivers.stacks import Object, Provider, Unit, Unknown
from mlstack.spec.address import Address


class Answer(Protocol):
    """What `Register` gives at once: the engine answers when the resource is made."""

    def result(self) -> Any:
        """Wait for the engine's answer. Raises what went wrong on the way."""
        ...

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None:
        """Have `fn` called when there is an answer."""
        ...


Register = Callable[[Any], Answer]
"""Hands one `RegisterResourceRequest` to the engine."""


class StackProgram:
    """Registers everything that a stack is to hold. What is not registered is removed by the engine."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._parts = {object_name(unit.address, part.key): (unit, part) for unit in units for part in unit.objects}
        self._urns: dict[str, str] = {}
        self._components: dict[Address, str] = {}
        self._providers: dict[str, str] = {}

    def run(self, register: Register, *, project: str, stack: str) -> None:
        """Register the stack, its providers and units, and return when the engine has answered for all of them.

        An object is registered when those that it needs have been answered for; many are in flight at once.
        """
        root = register(_stack(project, stack)).result().urn
        providers = {unit.provider.key: unit.provider for unit in self._units}
        answers = {key: register(_provider(each, root)) for key, each in sorted(providers.items())}
        components = {unit.address: register(_component(unit, root)) for unit in self._units}
        for key, answer in answers.items():
            given = answer.result()
            self._providers[key] = f"{given.urn}::{given.id or UNKNOWN_TEXT}"
        self._components = {address: answer.result().urn for address, answer in components.items()}
        self._run_objects(register)

    def _run_objects(self, register: Register) -> None:
        waiting = {name: self._needs(name) for name in self._parts}
        answered: SimpleQueue[tuple[str, Answer]] = SimpleQueue()
        in_flight = 0
        while waiting or in_flight:
            for name in [name for name, needs in waiting.items() if needs <= self._urns.keys()]:
                del waiting[name]
                in_flight += 1
                answer = register(self._request(name))
                answer.add_done_callback(partial(_put, answered, name))
            name, done = answered.get()
            in_flight -= 1
            self._urns[name] = done.result().urn

    def _needs(self, name: str) -> set[str]:
        unit, part = self._parts[name]
        return {each if "#" in each else object_name(unit.address, each) for each in part.needs}

    def _request(self, name: str) -> Any:
        unit, part = self._parts[name]
        return _object(
            part,
            name=name,
            parent=self._components[unit.address],
            provider=(unit.provider, self._providers[unit.provider.key]),
            needs=[self._urns[each] for each in sorted(self._needs(name))],
        )


def _put(answered: "SimpleQueue[tuple[str, Answer]]", name: str, answer: Answer) -> None:
    answered.put((name, answer))


# ---------------------------------------------------------------------------------------------------- requests


def _stack(project: str, stack: str) -> Any:
    from pulumi.runtime.proto import resource_pb2

    return resource_pb2.RegisterResourceRequest(
        type="pulumi:pulumi:Stack", name=f"{project}-{stack}", custom=False, acceptSecrets=True
    )


def _provider(provider: Provider, root: str) -> Any:
    from pulumi.runtime.proto import resource_pb2

    return resource_pb2.RegisterResourceRequest(
        type=f"pulumi:providers:{provider.name}",
        name=provider.key,
        custom=True,
        parent=root,
        version=provider.version,
        object=as_struct(provider_settings(provider)),
        acceptSecrets=True,
    )


def provider_settings(provider: Provider) -> dict[str, Any]:
    """Return settings as providers want them: what is no text is JSON in a text."""
    import msgspec

    identified = {provider.identifier: provider.key} if provider.identifier else {}
    return identified | {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in provider.settings.items()
        if value is not None
    }


def _component(unit: Unit, root: str) -> Any:
    from pulumi.runtime.proto import resource_pb2

    before = {name.partition("#")[0] for part in unit.objects for name in part.aliases} - {unit.address}
    return resource_pb2.RegisterResourceRequest(
        type=COMPONENT,
        name=unit.address,
        custom=False,
        parent=root,
        acceptSecrets=True,
        aliases=_aliases(sorted(before)),
        aliasSpecs=True,
    )


def _object(part: Object, *, name: str, parent: str, provider: tuple[Provider, str], needs: Sequence[str]) -> Any:
    from pulumi.runtime.proto import resource_pb2

    described, reference = provider
    options = part.options
    request = resource_pb2.RegisterResourceRequest(
        type=part.type,
        name=name,
        custom=True,
        parent=parent,
        object=as_struct(part.inputs),
        provider=reference,
        version=described.version,
        dependencies=needs,
        # `needs` is order only. Unsaid, all inputs would count as taken from there, and be replaced with it.
        propertyDependencies={
            name: resource_pb2.RegisterResourceRequest.PropertyDependencies() for name in part.inputs
        },
        aliases=_aliases(names_before(part)),
        aliasSpecs=True,
        ignoreChanges=list(options.get("ignore_changes", ())),
        acceptSecrets=True,
        acceptResources=True,
        supportsPartialValues=True,
        supportsResultReporting=True,
    )
    if "protect" in options:
        request.protect = bool(options["protect"])
    if "retain_on_delete" in options:
        request.retainOnDelete = bool(options["retain_on_delete"])
    if "delete_before_replace" in options:
        request.deleteBeforeReplace = bool(options["delete_before_replace"])
        request.deleteBeforeReplaceDefined = True
    if "timeout" in options:
        limit = f"{options['timeout']}s"
        request.customTimeouts.CopyFrom(
            resource_pb2.RegisterResourceRequest.CustomTimeouts(create=limit, update=limit, delete=limit)
        )
    return request


def _aliases(names: Iterable[str]) -> list[Any]:
    from pulumi.runtime.proto import alias_pb2

    return [alias_pb2.Alias(spec=alias_pb2.Alias.Spec(name=name)) for name in names]


def as_struct(values: Mapping[str, Any]) -> Any:
    """Return JSON as the protocol's struct, with the engine's mark in place of what is known only after apply."""
    from google.protobuf import json_format, struct_pb2

    return json_format.ParseDict(_with_marks(values), struct_pb2.Struct())


def _with_marks(value: Any) -> Any:
    if isinstance(value, Unknown):
        return UNKNOWN_TEXT
    if isinstance(value, Mapping):
        return {str(key): _with_marks(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_marks(each) for each in value]
    return value
