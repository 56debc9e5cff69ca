"""What the steps of one apply share: what is known by now, the journal, and the hands that do the work."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal, NoReturn, Protocol

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import Driver, ResultStore, RunOrder, Say, SupportsRun
from mlstack.drivers.elsewhere import RemoteOrder, SupportsRemoteRun
from mlstack.drivers.registry import seen_from_here
from mlstack.drivers.stack_programs import providers_of, recorded_unit
from mlstack.drivers.stacks import UNIT, Provider, StackDriver, StackEngine, Unit
from mlstack.executor.events import Event, StepProgress, StepRefined, StepWaiting
from mlstack.executor.interrupt import Interrupt
from mlstack.executor.others import Others
from mlstack.executor.recording import NoRecording, Recording
from mlstack.executor.tenure import Tenure
from mlstack.executor.walk import NotApprovedError
from mlstack.executor.waves import Waves
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import EntryKey, LockEntry, ResourceGraph
from mlstack.graph.images import reference_to_run
from mlstack.graph.outputs import Known, given_by
from mlstack.graph.sources import FileDigest
from mlstack.planner.build_plan import may_refine
from mlstack.planner.diff import Diffed
from mlstack.planner.plan import Plan
from mlstack.planner.stages import Decision, decide_stage
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Image, Model, Pool, Stage
from mlstack.state.held_lock import ApplyLock, NoLock
from mlstack.state.protocols import StateStore
from mlstack.state.state import Entry, Record, RunRecord

StepEvent = Literal["step-started", "step-done", "step-failed"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal keeps of a finished step."""

    record: Record | None = None
    removed: bool = False
    lock_entry: LockEntry | None = None
    detail: str = ""


NOTHING = Outcome()


class Admission(Protocol):
    """Lets a stage begin when its share of the pool is free."""

    def admit(
        self, stage: Stage, *, stop: Callable[[], bool], on_wait: Callable[[str], None]
    ) -> Mapping[str, str] | None:
        """Wait for room and return the variables that go with it (`CUDA_VISIBLE_DEVICES`); None when told to stop.

        `on_wait` is told what lacks ("cpu of compute.local") once, when there is no room at first.
        """
        ...

    def leave(self, stage: Stage) -> None:
        """Give the share back."""
        ...


class Hands(Protocol):
    """The drivers of one apply, as the registry made them."""

    @property
    def results(self) -> ResultStore:
        """Where data and results are versioned."""
        ...

    @property
    def admission(self) -> Admission:
        """What lets stages begin within the limits of their pools."""
        ...

    def forget_dataset(self, address: Address, path: str) -> None:
        """Drop the record of a dataset that is not declared any more, or not at this path; its data stays."""
        ...

    def runner(self, stage: Stage) -> SupportsRun:
        """Return what runs this stage."""
        ...

    def runner_of(self, run: RunRecord) -> SupportsRun:
        """Return what can cancel a run, also of a stage that is not declared any more."""
        ...

    def remote_runner(self, stage: Stage) -> SupportsRemoteRun | None:
        """Return what runs this stage elsewhere; None for a stage that runs on this machine."""
        ...

    def remote_runner_of(self, run: RunRecord) -> SupportsRemoteRun | None:
        """Return what follows or cancels a run elsewhere, also of a stage that is not declared any more."""
        ...

    def remote_order(self, stage: Stage, key: EntryKey, *, image: str, runner: str, again: str) -> RemoteOrder:
        """Decide everything about a run elsewhere but the number of its attempt."""
        ...

    def order(
        self,
        stage: Stage,
        fingerprint: str,
        *,
        attempt: int,
        extra: Mapping[str, str],
        say: Say,
        image: str | None = None,
    ) -> RunOrder:
        """Decide everything about one run: its folder, its environment (made if need be), its share, its image."""
        ...

    def order_of(self, stage: Stage, run: RunRecord) -> RunOrder:
        """Return what is needed to follow a run that was started before: nothing is made."""
        ...

    def driver(self, resource: Endpoint | Image) -> Driver:
        """Return the driver of an endpoint or image."""
        ...

    def stack_driver(self, resource: Endpoint | Pool) -> StackDriver | None:
        """Return the driver of what is made in a stack; None for everything else."""
        ...

    def stack_engine(self, providers: Sequence[Provider]) -> StackEngine:
        """Return what makes stacks, by these ways to what is recorded. Raises `MlstackError` when it cannot be used."""
        ...

    def driver_named(self, name: str) -> Driver:
        """Return the driver that wrote a record whose declaration is gone."""
        ...

    def changed_inputs(self, key: EntryKey) -> tuple[str, ...]:
        """Return the inputs whose content in the workspace is not (or no longer) the one in `key`."""
        ...

    def metrics_of(self, address: Address, entry: LockEntry) -> dict[str, float]:
        """Read the metrics that an entry records."""
        ...


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What is around one apply: `now` gives ISO 8601 in UTC, `lock` is the environment's.

    `is_detached`: runs elsewhere are not waited for.
    """

    root: Path
    apply_id: str
    now: Callable[[], str]
    interrupt: Interrupt
    lock: ApplyLock = NoLock()
    metrics: dict[Address, dict[str, float]] = {}
    is_detached: bool = False
    recording: Recording = NoRecording()


def _tell_nobody(_event: Event) -> None:
    """The walk puts its own voice here when it begins."""


class Work:
    """One apply. Its dictionaries are only touched under its lock."""

    def __init__(
        self, plan: Plan, diffed: Diffed, graph: ResourceGraph, store: StateStore, *, hands: Hands, session: Session
    ) -> None:
        self.plan, self.graph, self.store, self.hands = plan, graph, store, hands
        self.root, self.apply_id, self.now = session.root, session.apply_id, session.now
        self.interrupt, self.verify_lock = session.interrupt, session.lock.verify
        self.recording, self.is_detached = session.recording, session.is_detached
        self.tell: Callable[[Event], None] = _tell_nobody
        self.views, self.running = diffed.views, diffed.running
        self.planned = {change.address: change for change in plan.changes}
        self.records = self.recorded()
        self._outputs = {address: given_by(record.attributes) for address, record in self.records.items()}
        self._known = dict(diffed.known)
        self._versions = {key: version for key, version in diffed.versions.items() if version is not None}
        self._metrics = {address: dict(values) for address, values in session.metrics.items()}
        self._done_as: dict[Address, Action] = {}
        self._lock = Lock()
        recorded = {address: unit for address, record in self.records.items() if (unit := recorded_unit(record))}
        engine = partial(hands.stack_engine, providers_of(recorded.values()))
        self.waves = Waves(engine, recorded, stop=self.interrupt.stacks, verify=self.verify_lock)
        self.expanded: dict[Address, tuple[StackDriver, Unit]] = {}
        self.others = Others(self)
        self.tenure = Tenure(session.lock, settle=self.others.settle, renew=self.others.renew, stop=self.interrupt.now)

    # ------------------------------------------------------------------------------------------------ knowledge

    def recorded(self) -> dict[Address, Record]:
        """Read what is recorded at this moment."""
        state = seen_from_here(self.store.state(), self.graph.spec, root=self.root)
        return dict(state.resources) if state else {}

    def decide(self, address: Address) -> Decision:
        """Decide about a stage again, with what is known by now."""
        with self._lock:
            return decide_stage(self.views[address], self._known)

    def learn(self, address: Address, entry: LockEntry) -> None:
        """Note a stage's outputs and metrics, and the versions of the models that are made of them."""
        metrics = self.hands.metrics_of(address, entry)
        with self._lock:
            self._known.update(entry.digests())
            self._metrics[address] = metrics

    def learn_digest(self, path: str, digest: FileDigest) -> None:
        """Note the content of a dataset."""
        with self._lock:
            self._known[path] = digest

    def version_of(self, model: Model) -> str:
        """Return the hash of a model's output, which is known once its stage is done."""
        with self._lock:
            return self._known[model.out].md5

    def learn_version(self, model: Address, version: str) -> None:
        """Note a model's version."""
        with self._lock:
            self._versions[model] = version

    def versions(self) -> dict[str, str]:
        """Return a copy of the model versions that are known by now."""
        with self._lock:
            return dict(self._versions)

    def learn_record(self, record: Record) -> None:
        """Note what a resource gives to others: an endpoint its URL, an image what containers are made from."""
        with self._lock:
            self.records[record.address] = record
            self._outputs[record.address] = given_by(record.attributes)

    def forget_record(self, address: Address) -> None:
        """Note that nothing is recorded at an address any more."""
        with self._lock:
            self.records.pop(address, None)
            self._outputs.pop(address, None)

    def image_of(self, address: Address) -> str | None:
        """Return what the container of a stage or endpoint is made from; None if it runs in none."""
        image = self.graph.image_of.get(address)
        with self._lock:
            record = self.records.get(image) if image is not None else None
        return reference_to_run(record.attributes) if record is not None else None

    def is_elsewhere(self, address: Address) -> bool:
        """Whether it is a stage that does not run on this machine: then its step mostly waits."""
        stage = self.graph.resources.get(address)
        return isinstance(stage, Stage) and self.hands.remote_runner(stage) is not None

    def runner_image_of(self, address: Address) -> str | None:
        """Return what the pods of a stage take the runner from; None if it runs in none."""
        image = self.graph.runner_of.get(address)
        with self._lock:
            record = self.records.get(image) if image is not None else None
        return reference_to_run(record.attributes) if record is not None else None

    def outputs(self) -> Known:
        """Return a copy of what resources are known by now to give."""
        with self._lock:
            versions: dict[Address, str | None] = {Address(name): found for name, found in self._versions.items()}
            return Known(digests=dict(self._known), versions=versions, endpoints=dict(self._outputs))

    def metrics(self) -> dict[Address, dict[str, float]]:
        """Return a copy of the metrics that are known by now."""
        with self._lock:
            return dict(self._metrics)

    # ------------------------------------------------------------------------------------------------ reporting

    def say(self, address: Address) -> Callable[[str], None]:
        """Return the function with which the step at `address` reports a line."""

        def report(line: str) -> None:
            self.tell(StepProgress(address=address, line=line))

        return report

    def waits(self, address: Address) -> Callable[[str], None]:
        """Return the function with which the step at `address` reports what room it waits for ("": none any more)."""

        def report(room: str) -> None:
            self.tell(StepWaiting(address=address, room=room))

        return report

    def is_in_stack(self, address: Address) -> bool:
        """Whether what is at this address is, or is to be, in a stack: then its steps wait for a wave together."""
        resource, record = self.graph.resources.get(address), self.records.get(address)
        if record is not None and UNIT in record.attributes:
            return True
        return isinstance(resource, Endpoint | Pool) and self.hands.stack_driver(resource) is not None

    def refuse(self, change: Change, because: str) -> NoReturn:
        """Raise `NotApprovedError`: what is known now asks for more than the row says."""
        raise NotApprovedError(
            Diagnostic(
                code="more-than-approved",
                summary="More would be done than was approved",
                detail=f"to be planned anew: the plan says {change.action.value}, {because}",
                hint="Nothing was done here. Plan again, and have a look.",
                command="mlstack plan",
                address=change.address,
            )
        )

    def refine(self, change: Change, action: Action, because: str) -> None:
        """Report that something else is needed than planned. Raises `NotApprovedError` if it is more than approved."""
        if not may_refine(change.action, action, up_to=change.up_to):
            self.refuse(change, f"what is known now asks for {action.value} ({because})")
        with self._lock:
            self._done_as[change.address] = action
        if action is not change.action:
            self.tell(StepRefined(address=change.address, planned=change.action, action=action, because=because))

    def done_as(self, change: Change) -> Action:
        """Return what was done, or is being done, at an address: what was planned, unless it was refined."""
        with self._lock:
            return self._done_as.get(change.address, change.action)

    # ------------------------------------------------------------------------------------------------ journal

    def journal(self, event: StepEvent, change: Change, outcome: Outcome = NOTHING) -> None:
        """Record durably what became of a step; the lock is verified before."""
        self.verify_lock()
        entry = outcome.lock_entry
        self.store.append(
            Entry(
                at=self.now(),
                apply_id=self.apply_id,
                event=event,
                address=change.address,
                action=change.action.value,
                moved_from=change.previous_address if event == "step-done" else None,
                record=outcome.record,
                removed=outcome.removed,
                fingerprint=change.fingerprint,
                lock_entry=msgspec.to_builtins(entry) if entry is not None else None,
                detail=outcome.detail,
            )
        )
