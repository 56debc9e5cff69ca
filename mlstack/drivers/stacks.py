"""The contract between an engine with stacks (Pulumi), those who describe what it makes, and apply.

A *unit* is what stands behind one address: objects of a provider, such as the Deployment and the Service of an
endpoint. A *stack* holds the units of many addresses and is previewed and updated as a whole. Who describes units
(`drivers/kubernetes/`) is pure and never talks to the engine; the engine (`drivers/pulumi/`) knows of no endpoints.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Event as StopFlag
from typing import Any, Final, Literal, Protocol, runtime_checkable

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
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

UNSCALED: Final = "unscaled"
"""The attribute that says, of what replicas are to be added to, why none will be."""

UNCONFIRMED: Final = "unconfirmed"
"""The attribute of a record that says what of it was applied and is confirmed by nobody; left out where all is."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin of the engine with its settings, which hold no secret. Equal ones are one provider of the stack.

    `name` is Pulumi's package ("kubernetes"), `version` the plugin's. `key` names it in the stack, stable and short: it
    says what is reached (a cluster), `settings` by which way from here. `identifier` is the plugin's setting for that
    which is reached, if it has one: where another key has what is there already, all of it is made anew.
    """

    name: str
    version: str
    key: str
    settings: dict[str, Any] = {}
    identifier: str = ""


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of a provider. `inputs` are JSON, with `UNKNOWN` where a value is known only after apply.

    In the stack it is called `ADDRESS#key` ("endpoints.quality#deployment"), so `key` never changes. `type` is Pulumi's
    token ("kubernetes:apps/v1:Deployment"). `needs` are keys of its unit, or `ADDRESS#key` in the same stack.
    `aliases` are names that it had before (`moved`), `adopt` the ID of an object that becomes this one if
    it is there (then the reading has a part `IMPORT` with what would be changed of it), and is made if not.
    `shared` is the name of what several units have together, such as their namespace: each of them has the same object
    with the same key, there is one of it, and it goes with the last of them (`drivers/shared_objects.py`).
    `options` are the engine's own: `protect`, `retain_on_delete`, `delete_before_replace`, `ignore_changes`, `timeout`.
    """

    key: str
    type: str
    inputs: dict[str, Any]
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    adopt: str = ""
    shared: str = ""
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
    `exists`: an object of this address is there; without refresh, as recorded.
    """

    parts: tuple[Change, ...] = ()
    drifted: tuple[Change, ...] = ()
    exists: bool = False

    def joined(self, other: "UnitReading") -> "UnitReading":
        """Return both as the reading of one address."""
        return UnitReading(
            parts=(*self.parts, *other.parts),
            drifted=(*self.drifted, *other.drifted),
            exists=self.exists or other.exists,
        )


class UnitResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an update made of one address: outputs by object key, or what went wrong (the rest of the stack goes on)."""

    outputs: dict[str, dict[str, Any]] = {}
    problem: Diagnostic | None = None


class StepTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is told of an update that went wrong."""

    diagnostic: Diagnostic
    log_tail: tuple[str, ...] = ()


UNREACHED: Final = "update-unreached"
"""The code of an update's problem that says: the place where the objects are did not answer."""


class UnseenError(MlstackError):
    """What was brought could not be looked at: whether it is as it should be nobody knows, and nothing is undone."""


class Stop(StopFlag):
    """Tells an engine to end its update; `grace`: seconds that steps in flight have for that, None: its own measure."""

    grace: float | None = None


Tell = Callable[[Address, str], None]
"""Reports one line of progress of an address."""


class StackEngine(Protocol):
    """Makes stacks. One call at a time for each stack; every call names the whole stack, never a part of it."""

    def check(self) -> Sequence[Diagnostic]:
        """Say what is missing to use it: its program, plugins, the passphrase. Starts nothing that takes long."""
        ...

    def preview(
        self,
        stack: StackName,
        units: Sequence[Unit],
        *,
        refresh: bool,
        stop: StopFlag | None = None,
        idle: Collection[str] = (),
    ) -> Mapping[Address, UnitReading]:
        """Return a reading for every address that is in `units` or in the stack (then it would be removed).

        With `refresh` the providers read every object first. Those of `idle` keys are not started, and nothing is said
        of what they have made. Raises `MlstackError`: also when one cannot be read, and
        when it is stopped.
        """
        ...

    def up(
        self, stack: StackName, units: Sequence[Unit], *, tell: Tell, stop: StopFlag, idle: Collection[str] = ()
    ) -> Mapping[Address, UnitResult]:
        """Make the stack hold exactly these units, and wait; an interrupted update is repaired first.

        Units of providers of `idle` keys are as they were recorded: these need not be there, and nothing is read first.
        Raises `MlstackError` when nothing could be tried (engine, login, a unit with unknown values).
        """
        ...

    def recorded(self, stack: StackName) -> Mapping[Address, Unit]:
        """Return what the stack holds according to its last update; nothing in the world is asked."""
        ...


@runtime_checkable
class StackDriver(Driver, Protocol):
    """A driver whose resources are made in stacks. `apply` and `delete` of `Driver` are not called for them.

    Nor is `read` by a plan, which asks the engine; it says whether what was applied is well.

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

    def taken_back(self, unit: Unit, context: StepContext) -> None:
        """Remove what `prepare` made for a unit that did not get ready, and that nothing needs now. Raises."""
        ...

    def removed(self, record: Record, context: StepContext) -> None:
        """Remove what did not pass through the engine, after the unit is gone: secrets."""
        ...


@runtime_checkable
class SupportsOverlap(Protocol):
    """A `StackDriver` of things that can be there twice for a while: before and after they got another name."""

    def may_overlap(self, resource: Resource, graph: ResourceGraph) -> bool:
        """Whether there is room for both, and nothing that only one of them can have. Pure."""
        ...


def _has_unknown(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_has_unknown(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_has_unknown(each) for each in value)
    return isinstance(value, Unknown)
