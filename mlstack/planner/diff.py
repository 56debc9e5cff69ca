"""From desired, prior and observed to changes: pure, total, exactly one `Change` per address, sorted."""

from collections.abc import Callable, Mapping
from typing import Any, assert_never

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import (
    ADDRESS_ATTRIBUTES,
    Absent,
    DatasetReading,
    NotChecked,
    Observation,
    Readings,
    StageReading,
    Unreadable,
)
from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.outputs import Known, fill_endpoint, given_by
from mlstack.graph.sources import FileDigest
from mlstack.planner.datasets import check_dataset, diff_dataset, with_old_path
from mlstack.planner.images import LookAt, asked_once, built_again, diff_images, forget_image, never_looked
from mlstack.planner.models import behind_gates, check_gates, diff_model, judge
from mlstack.planner.moves import not_moved_yet, reading_before_move, sources_of_moves
from mlstack.planner.plan import Scope
from mlstack.planner.removed import hint_renames, removed_rows
from mlstack.planner.safety import check_protected, with_affected
from mlstack.planner.scope import select
from mlstack.planner.stacks import AskStacks, lay_over, left_in_stack, no_stacks, only_drift, question_of, unasked
from mlstack.planner.stages import StageView, decide_stage, stage_row
from mlstack.planner.standing import diff_standing, with_secrets_noted
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Dataset, Endpoint, Image, Model, Pool, Stage
from mlstack.state.state import Record, RunRecord, State

Describe = Callable[[Endpoint | Pool, Mapping[str, str | None]], Mapping[str, Any] | None]
"""Gives the attributes that an endpoint should have, from the versions of its models (None: known after apply).

Those of a pool too; None for a pool that nothing has to be made for.
"""


class Diffed(msgspec.Struct, frozen=True, kw_only=True):
    """The changes, and what is known before anything is done: digests by path, and versions of models.

    `views` is what the executor needs to decide about a stage again when more is known, `running` what it may have to
    cancel.
    """

    changes: tuple[Change, ...]
    known: dict[str, FileDigest]
    versions: dict[str, str | None]
    views: dict[Address, StageView]
    running: dict[Address, tuple[RunRecord, ...]] = {}
    diagnostics: tuple[Diagnostic, ...] = ()


def diff(
    graph: ResourceGraph,
    prior: State | None,
    readings: Readings,
    *,
    scope: Scope,
    describe: Describe,
    pins: Mapping[str, str],
    look_at: LookAt = never_looked,
    ask_stacks: AskStacks = no_stacks,
) -> Diffed:
    """Compare the file with the world.

    `pins` are the resolved versions of `models.x@REV`. `look_at` is asked about images that are needed, `ask_stacks`
    about what is made in stacks.
    """
    walk = _Walk(graph, prior, readings, scope=scope, describe=describe, pins=pins)
    return walk.diff(look_at, ask_stacks)


class _Walk:
    """One walk in topological order, collecting what is known on the way."""

    def __init__(
        self,
        graph: ResourceGraph,
        prior: State | None,
        readings: Readings,
        *,
        scope: Scope,
        describe: Describe,
        pins: Mapping[str, str],
    ) -> None:
        self.graph = graph
        self.prior = prior
        self.readings = readings
        self.scope = scope
        self.describe = describe
        self.records: Mapping[Address, Record] = prior.resources if prior else {}
        self.selected = select(graph, scope, self._exists)
        self.changes: dict[Address, Change] = {}
        self.known: dict[str, FileDigest] = {}
        self.versions: dict[str, str | None] = dict(pins)
        self.outputs: dict[Address, dict[str, Any]] = {}
        self.views: dict[Address, StageView] = {}
        self.diagnostics: list[Diagnostic] = []
        self.moves = sources_of_moves(graph.spec)
        self.moved: set[Address] = set()
        self.replace = frozenset(scope.replace)
        self.unsettled: set[Address] = set()
        self.desired: dict[Address, dict[str, Any]] = {}
        self.sources: dict[Address, Address] = {}

    def diff(self, look_at: LookAt, ask_stacks: AskStacks) -> Diffed:
        for address in self.graph.order:
            self.changes[address] = self._unsettle(self._row(address))
        self.changes |= removed_rows(
            self.prior, self.readings, self.scope, declared=self.changes.keys(), moved=self.moved
        )
        before, look_once = dict(self.changes), asked_once(look_at)
        self._ask_stacks(ask_stacks)
        images = self._images(look_once)
        if rebuilt := built_again(images, self.graph, self.desired):
            self.changes = before
            self._ask_stacks(ask_stacks, rebuilt)
            images = self._images(look_once)
        self.changes |= images
        self.diagnostics.extend(hint_renames(self.changes, self.views, self.readings))
        rows = (self.changes[address] for address in sorted(self.changes))
        changes = with_affected(rows, self.graph, self.records, self.readings.running)
        self.diagnostics.extend(check_protected(changes, self.graph, self.records, self.scope))
        return Diffed(
            changes=changes,
            known=self.known,
            versions=self.versions,
            views=self.views,
            running=self.readings.running,
            diagnostics=tuple(self.diagnostics),
        )

    def _row(self, address: Address) -> Change:
        resource = self.graph.resources[address]
        match resource:
            case Pool():
                return self._standing(resource, lambda: self.describe(resource, {}))
            case Image():
                return _no_op(address, Kind.IMAGE, ReasonCode.NOT_NEEDED)  # decided after those that run in it
            case Dataset():
                return self._dataset(resource)
            case Stage():
                return self._stage(resource)
            case Model():
                return self._model(resource)
            case Endpoint():
                change = self._endpoint(resource)
                self._learn_outputs(change)
                return change
            case _:
                assert_never(resource)

    # ------------------------------------------------------------------------------------------------ data

    def _dataset(self, dataset: Dataset) -> Change:
        address = dataset.address
        reading = self.readings.datasets.get(address, DatasetReading())
        desired, digest = self.graph.datasets.get(address), None
        if address not in self.graph.datasets:
            change = _no_op(address, Kind.DATASET, ReasonCode.TRACKED_BY_GIT)
        else:
            change, digest = diff_dataset(dataset, desired, reading)
        change = with_old_path(change, dataset, reading)
        if self.scope.destroy or self.scope.refresh_only:
            change, digest = _no_op(address, Kind.DATASET, ReasonCode.KEPT), reading.recorded
        elif address not in self.selected:
            change, digest = self._left_out(change), reading.recorded
        elif address in self.graph.datasets and (problem := check_dataset(dataset, desired, reading)) is not None:
            self.diagnostics.append(problem)
        if digest is not None:
            self.known[dataset.path] = digest
        return change

    # ------------------------------------------------------------------------------------------------ stages

    def _stage(self, stage: Stage) -> Change:
        address = stage.address
        inputs = self.graph.stages[address]
        reading = self.readings.stages.get(address, StageReading())
        moved_from: Address | None = None
        before_move = reading_before_move(inputs, self.moves.get(address, ()), self.readings.stages)
        if before_move is not None:
            reading, moved_from = before_move
            self.moved.add(moved_from)
        accepted = self.prior.accepted if self.prior else {}
        view = StageView(
            stage=stage,
            inputs=inputs,
            reading=reading,
            moved_from=moved_from,
            acceptance=accepted.get(moved_from or address, accepted.get(address)),
            runs=tuple(run for name in (address, moved_from) if name for run in self.readings.running.get(name, ())),
            forced=address in self.replace,
        )
        self.views[address] = view
        decision = decide_stage(view, self.known)
        change = stage_row(view, decision, needs=self.graph.needs.get(address, ()))
        if not self.scope.refresh and any(run.remote is not None for run in view.runs):
            change = unasked(change)
        entry = decision.entry
        if self.scope.destroy:
            change, entry = self._destroyed_stage(view), reading.recorded
        elif self.scope.refresh_only:
            change, entry = _no_op(address, Kind.STAGE, ReasonCode.KEPT), reading.recorded
        elif address not in self.selected:
            change, entry = self._left_out(change), reading.recorded
        if entry is not None:
            self.known.update(entry.digests())
        return change

    def _destroyed_stage(self, view: StageView) -> Change:
        """Results are kept; a run that is going on is cancelled."""
        address = view.stage.address
        if not view.runs or address not in self.selected:
            return _no_op(address, Kind.STAGE, ReasonCode.KEPT)
        reason = Reason(code=ReasonCode.DESTROY_ASKED)
        return Change(address=address, kind=Kind.STAGE, action=Action.CANCEL, reasons=(reason,))

    # ------------------------------------------------------------------------------------------------ models

    def _model(self, model: Model) -> Change:
        address = model.address
        recorded = self.views[model.stage].reading.recorded
        before = _digest_of(model.out, recorded.digests() if recorded else {})
        after = _digest_of(model.out, self.known)
        made_by = self.changes.get(model.stage)
        if made_by is not None and made_by.action in (Action.RUN, Action.FOLLOW) and not made_by.is_always:
            after = None
        self.versions[address] = after
        if self.scope.destroy or self.scope.refresh_only:
            return _no_op(address, Kind.MODEL, ReasonCode.KEPT)
        unsure = tuple(
            gate.stage
            for gate in model.gates
            if (change := self.changes.get(gate.stage)) is not None
            and change.action not in (Action.NO_OP, Action.UPDATE, Action.ACCEPT, Action.CANCEL)
            and not change.is_always
        )
        gates = judge(model, self.readings.metrics)
        if address in self.selected and not unsure:
            self.diagnostics.extend(check_gates(gates, model))
        change = diff_model(
            model,
            before=before,
            after=after,
            gate_stages_pending=tuple(dict.fromkeys(unsure)),
            gates=gates,
        )
        return change if address in self.selected else self._left_out(change)

    # ------------------------------------------------------------------------------------------------ endpoints

    def _endpoint(self, endpoint: Endpoint) -> Change:
        filled = fill_endpoint(endpoint, self.graph, self._known_outputs())
        change = self._standing(endpoint, lambda: self.describe(filled, self.versions))
        return change if self.scope.destroy or self.scope.refresh_only else behind_gates(change, self.changes)

    def _standing(self, resource: Endpoint | Pool, describe: Callable[[], Mapping[str, Any] | None]) -> Change:
        """Return the row of an endpoint or pool, and note what stacks would have to hold for it."""
        address = resource.address
        found = diff_standing(
            address,
            scope=self.scope,
            records=self.records,
            moves=self.moves.get(address, ()),
            observe=self._observed,
            describe=describe,
            needs=self.graph.needs.get(address, ()),
            protect=resource.protect,
        )
        if found.source is not None:
            self.moved.add(found.source)
            self.sources[address] = found.source
        if address not in self.selected:
            return self._left_out(found.change)
        if found.desired is not None:
            self.desired[address] = found.desired
        return with_secrets_noted(found.change)

    def _observed(self, address: Address) -> Observation:
        observation = self.readings.observations.get(address, Absent(reason="never made"))
        if isinstance(observation, Unreadable):
            self.diagnostics.append(observation.diagnostic)
            return NotChecked(reason=observation.diagnostic.summary)
        return observation

    def _ask_stacks(self, ask: AskStacks, rebuilt: frozenset[Address] = frozenset()) -> None:
        """Lay over what the engine of stacks says of the rows that are its own."""
        is_only_read = self.scope.refresh_only
        question = question_of(
            self.changes,
            self.desired,
            self.records,
            selected=self.selected,
            previous=not_moved_yet(self.moves, self.records) if is_only_read else self.sources,
            is_only_read=is_only_read,
            rebuilt=rebuilt,
        )
        for address, reading in ask(question).items():
            change = self.changes.get(address)
            is_left = bool(question.kept & {address, question.previous.get(address)})
            if change is not None:
                laid = with_secrets_noted((only_drift if is_left else lay_over)(change, reading))
                self.changes[address] = laid if self.scope.refresh else unasked(laid)
            elif not is_left and address not in self.moved:
                self.changes[address] = left_in_stack(address, reading)

    def _known_outputs(self) -> Known:
        versions = {Address(name): version for name, version in self.versions.items()}
        return Known(digests=self.known, versions=versions, endpoints=self.outputs)

    def _learn_outputs(self, change: Change) -> None:
        """Note what an endpoint gives to others, if this is known before it is applied."""
        touched = {field.path.partition(".")[0] for field in change.fields}
        keeps = change.action in (Action.NO_OP, Action.MOVE)
        if keeps or (change.action is Action.UPDATE and not touched & ADDRESS_ATTRIBUTES):
            record = self.records.get(change.previous_address or change.address)
            self.outputs[change.address] = given_by(record.attributes) if record is not None else {}

    # ------------------------------------------------------------------------------------------------ images

    def _images(self, look_at: LookAt) -> dict[Address, Change]:
        """Decide about images, now that it is known what will run in them."""
        records, images = self.records, self.graph.images
        if self.scope.destroy:
            rows = {each: forget_image(each, records.get(each), ReasonCode.DESTROY_ASKED) for each in images}
        elif self.scope.refresh_only:
            return {address: _no_op(address, Kind.IMAGE, ReasonCode.KEPT) for address in images}
        else:
            asked = frozenset(self.scope.targets)
            rows = diff_images(self.graph, self.changes, records, asked=asked, forced=self.replace, look_at=look_at)
        return {each: row if each in self.selected else self._left_out(row) for each, row in rows.items()}

    def _unsettle(self, change: Change) -> Change:
        """What follows from a stage marked `always` may have to be done too: that is known only after it has run."""
        if change.is_always:
            self.unsettled.add(change.address)
            return change
        causes = [need for need in self.graph.needs.get(change.address, ()) if need in self.unsettled]
        if not causes or change.address not in self.selected:
            return change
        self.unsettled.add(change.address)
        reasons = tuple(Reason(code=ReasonCode.ALWAYS, subject=cause) for cause in causes)
        most = Action.RUN if change.kind is Kind.STAGE else Action.UPDATE
        if change.action is Action.NO_OP:
            return msgspec.structs.replace(change, action=most, reasons=reasons)
        if change.action in _MAY_TURN_INTO[most]:
            return msgspec.structs.replace(change, up_to=most, reasons=(*change.reasons, *reasons))
        return change

    # ------------------------------------------------------------------------------------------------ scope

    def _exists(self, address: Address) -> bool:
        """Whether a recorded result can be used as it is (asked of what a target needs)."""
        stage = self.readings.stages.get(address)
        if stage is not None:
            return stage.recorded is not None and not isinstance(stage.outs, Absent)
        dataset = self.readings.datasets.get(address)
        if dataset is not None:
            declared, desired = self.graph.resources[address], self.graph.datasets.get(address)
            is_local = isinstance(declared, Dataset) and declared.source is None
            if is_local and desired is not None and desired != dataset.recorded:
                return False  # what is recorded is not what lies there: taking it would put the person's data aside
            return dataset.recorded is not None and not isinstance(dataset.content, Absent)
        if kind_of(address) is Kind.ENDPOINT:
            return address in self.records
        pool = self.graph.resources.get(address)
        if isinstance(pool, Pool):
            return address in self.records or self.describe(pool, {}) is None
        return address not in self.graph.datasets

    def _left_out(self, change: Change) -> Change:
        if change.action is Action.NO_OP:
            return change
        return _no_op(change.address, change.kind, ReasonCode.NOT_SELECTED)


_MAY_TURN_INTO = {
    Action.RUN: (Action.RESTORE, Action.FOLLOW, Action.ACCEPT, Action.MOVE, Action.UPDATE, Action.CANCEL),
    Action.UPDATE: (Action.MOVE,),
}
"""Rows that rest on what an upstream `always` stage gave the last time, by what is done if it gives something else."""


def _digest_of(path: str, digests: Mapping[str, FileDigest]) -> str | None:
    found = digests.get(path)
    return found.md5 if found is not None else None


def _no_op(address: Address, kind: Kind, code: ReasonCode) -> Change:
    return Change(address=address, kind=kind, action=Action.NO_OP, reasons=(Reason(code=code),))
