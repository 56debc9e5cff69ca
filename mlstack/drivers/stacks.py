"""The contract between an engine with stacks (Pulumi), those who describe what it makes, and apply.

A *unit* is what stands behind one address: objects of a provider, such as the Deployment and the Service of an
endpoint. A *stack* holds the units of many addresses and is previewed and updated as a whole. Who describes units
(`drivers/kubernetes/`) is pure and never talks to the engine; the engine (`drivers/pulumi/`) knows of no endpoints.
"""

from collections.abc import Callable, Mapping, Sequence
from threading import Event as StopFlag
from typing import Any, Final, Literal, Protocol, runtime_checkable

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import Driver, StepContext
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Resource
from mlstack.state.state import Record

StackName = Literal["platform", "serving"]
"""*platform*: pools and what they stand on. *serving*: endpoints and routes. Platform is there first and goes last."""


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """The place of a value that is known only after apply. A preview shows it so; an update refuses it."""


UNKNOWN: Final = Unknown()


UNIT: Final = "unit"
"""The attribute of a record that holds the unit as it was applied; apply puts it there, people see its parts."""


REPLACED: Final = "replaced"
"""The attribute that counts how often somebody asked to have a thing made anew (`--replace`)."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin of the engine with its settings, which hold no secret. Equal ones are one provider of the stack.

    `name` is Pulumi's package ("kubernetes"), `version` the plugin's. `key` names it in the stack, stable and short.
    """

    name: str
    version: str
    key: str
    settings: dict[str, Any] = {}


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of a provider. `inputs` are JSON, with `UNKNOWN` where a value is known only after apply.

    In the stack it is called `ADDRESS#key` ("endpoints.quality#deployment"), so `key` never changes. `type` is Pulumi's
    token ("kubernetes:apps/v1:Deployment"). `needs` are keys of its unit, or `ADDRESS#key` in the same stack.
    `aliases` are names that it had before (`moved`), `adopt` the ID of an object that is there and becomes this one.
    `options` are the engine's own: `protect`, `retain_on_delete`, `delete_before_replace`, `ignore_changes`, `timeout`.
    """

    key: str
    type: str
    inputs: dict[str, Any]
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    adopt: str = ""
    options: dict[str, Any] = {}


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """The objects behind one address."""

    address: Address
    stack: StackName
    provider: Provider
    objects: tuple[Object, ...]

    @property
    def is_known(self) -> bool:
        """Whether no value waits for something that is not done yet."""
        return not any(_has_unknown(each.inputs) for each in self.objects)


class UnitReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a preview says of one address.

    `parts` is what would be done, one `Change` for each object that is not left alone: its address is `ADDRESS#key`,
    `note` says type and name for people, `fields` are the provider's property diffs. `drifted` is what was changed or
    removed outside since the last update (`before` as recorded, `after` as found; nothing of it if it was not asked).
    `exists`: the stack holds an object of this address.
    """

    parts: tuple[Change, ...] = ()
    drifted: tuple[Change, ...] = ()
    exists: bool = False


class UnitResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an update made of one address: outputs by object key, or what went wrong (the rest of the stack goes on)."""

    outputs: dict[str, dict[str, Any]] = {}
    problem: Diagnostic | None = None


class StepTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is told of an update that went wrong."""

    diagnostic: Diagnostic
    log_tail: tuple[str, ...] = ()


Tell = Callable[[Address, str], None]
"""Reports one line of progress of an address."""


class StackEngine(Protocol):
    """Makes stacks. One call at a time for each stack; every call names the whole stack, never a part of it."""

    def check(self) -> Sequence[Diagnostic]:
        """Say what is missing to use it: its program, plugins, the passphrase. Starts nothing that takes long."""
        ...

    def preview(self, stack: StackName, units: Sequence[Unit], *, refresh: bool) -> Mapping[Address, UnitReading]:
        """Return a reading for every address that is in `units` or in the stack (then it would be removed).

        With `refresh` the providers read every object first. Raises `MlstackError`: also when one cannot be read.
        """
        ...

    def up(
        self, stack: StackName, units: Sequence[Unit], *, tell: Tell, stop: StopFlag
    ) -> Mapping[Address, UnitResult]:
        """Make the stack hold exactly these units, and wait; an interrupted update is repaired first.

        Raises `MlstackError` when nothing could be tried (engine, login, a unit with unknown values).
        """
        ...

    def recorded(self, stack: StackName) -> Mapping[Address, Unit]:
        """Return what the stack holds according to its last update; nothing in the world is asked."""
        ...


@runtime_checkable
class StackDriver(Driver, Protocol):
    """A driver whose resources are made in stacks. `read`, `apply` and `delete` of `Driver` are not called for them.

    Keys of objects that others stand on (a namespace) hold what makes them another one, such as the name: when a unit
    moves, the old object stays in the stack as long as somebody stands on it.
    """

    stack: StackName
    kept: tuple[str, ...]
    """Attributes that `desired` leaves out where they cannot be known here: they are as recorded.

    With `REPLACED` among them, a unit says how often it was asked to be made anew, and differs each time.
    """

    def unit(
        self, resource: Resource, graph: ResourceGraph, desired: Mapping[str, Any], *, images: Mapping[Address, str]
    ) -> Unit:
        """Describe it. Pure: the same arguments give the same unit.

        `desired` is what `Driver.desired` returned; None in it is known only after apply. `images` gives by digest what
        containers are made from; an image that is not in it is known only after apply.
        """
        ...

    def prepare(self, unit: Unit, context: StepContext) -> None:
        """Do what must not pass through the engine, before its wave: secrets."""
        ...

    def settle(self, unit: Unit, result: UnitResult, context: StepContext) -> dict[str, Any]:
        """Read back what runs, wait until it is as it should be, and return facts. Raises `MlstackError`.

        `result` has no problem. What the facts leave out, the record takes from `desired`.
        """
        ...

    def explain(self, unit: Unit, problem: Diagnostic, context: StepContext) -> StepTrouble:
        """Say more of an update that went wrong: events and log lines, before it is taken back."""
        ...

    def removed(self, record: Record, context: StepContext) -> None:
        """Remove what did not pass through the engine, after the unit is gone: secrets."""
        ...


def _has_unknown(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_has_unknown(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_has_unknown(each) for each in value)
    return isinstance(value, Unknown)
