"""`mlstack accept`: say that a change does not alter a stage's result."""

import time

import typer

from mlstack.cli import options
from mlstack.cli.carry_out import locked
from mlstack.cli.console import say, say_json
from mlstack.cli.project import make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Absent
from mlstack.graph.change import Action
from mlstack.graph.graph import fingerprint
from mlstack.planner.plan import Plan, Scope
from mlstack.planner.scope import expand_addresses
from mlstack.planner.stages import StageView
from mlstack.spec.address import Address, Kind
from mlstack.state.identity import host_name, iso_time, new_id, person
from mlstack.state.state import Acceptance, Entry, HistoryRecord, State, StepResult
from mlstack.state.store import open_store

_ACCEPTABLE = (Action.RUN, Action.RESTORE, Action.FOLLOW, Action.ACCEPT)
"""What a change of its inputs leads to; everything else keeps the result as it is."""


def accept(
    context: typer.Context,
    address: options.AddressArgument,
    because: options.Because,
    lock_timeout: options.LockTimeout = "0s",
) -> int:
    """Say that a change does not alter a result: a comment, a typo, a reformatting.

    It is recorded with your name and reason. The plan then shows the stage as accepted, and apply keeps its result for
    the new inputs instead of running it. Any further change asks again.
    """
    settings = settings_of(context)
    project = open_project(settings)
    if not because.strip():
        raise MlstackError(_refusal(address, "A reason is needed, for those who come later."))
    with locked(settings, project, operation="accept", lock_timeout=lock_timeout):
        project = open_project(settings)
        planned = make_plan(project, Scope(refresh=False))
        store = open_store(project.backend, project=project.spec.project, environment=project.spec.environment)
        accepted = []
        for stage in expand_addresses([address], project.graph, kinds=(Kind.STAGE,)):
            change = planned.plan.change(stage)
            view = planned.diffed.views.get(stage)
            if change is None or view is None:
                raise MlstackError(_refusal(stage, "Only stages have results that could be kept."))
            if change.action not in _ACCEPTABLE:
                continue
            accepted.append(_acceptance(stage, change.fingerprint, view, because=because))
        if not accepted:
            raise MlstackError(_refusal(address, "It is up to date: there is nothing to accept."))
        apply_id = new_id()
        for acceptance in accepted:
            store.append(
                Entry(
                    at=acceptance.at,
                    apply_id=apply_id,
                    event="accepted",
                    address=acceptance.address,
                    acceptance=acceptance,
                )
            )
        # The journal is left to the next apply: it may hold results that are not in dvc.lock yet.
        store.add_history(_history(apply_id, accepted, planned.plan, after=store.state()))
    if settings.json:
        say_json(accepted)
    else:
        for acceptance in accepted:
            say(f"{acceptance.address}: accepted. `mlstack apply` keeps its result for the new inputs.")
    return 0


def _history(apply_id: str, accepted: list[Acceptance], plan: Plan, *, after: State | None) -> HistoryRecord:
    at = iso_time(time.time())
    return HistoryRecord(
        id=apply_id,
        operation="accept",
        who=person(),
        host=host_name(),
        started_at=accepted[0].at,
        ended_at=at,
        outcome="done",
        commit=plan.commit,
        dirty=plan.dirty,
        serial_before=plan.serial,
        serial_after=after.serial if after else plan.serial,
        mlstack_version=plan.mlstack_version,
        steps=tuple(StepResult(address=each.address, action=Action.ACCEPT, outcome="done") for each in accepted),
        because=accepted[0].because,
    )


def _acceptance(address: Address, current: str | None, view: StageView, *, because: str) -> Acceptance:
    recorded = view.reading.recorded
    if recorded is None:
        raise MlstackError(_refusal(address, "No result is recorded yet that could be kept."))
    if isinstance(view.reading.outs, Absent):
        raise MlstackError(_refusal(address, f"Its result cannot be kept: {view.reading.outs.reason}."))
    if current == fingerprint(recorded.key):
        raise MlstackError(_refusal(address, "Nothing that its result depends on has changed."))
    if current is None:
        raise MlstackError(_refusal(address, "What it needs will change first, so its inputs are not known yet."))
    return Acceptance(
        address=address,
        fingerprint=current,
        recorded_fingerprint=fingerprint(recorded.key),
        because=because.strip(),
        who=person(),
        at=iso_time(time.time()),
    )


def _refusal(address: str, detail: str) -> Diagnostic:
    return Diagnostic(
        code="nothing-to-accept",
        summary="This cannot be accepted",
        detail=detail,
        address=address,
        hint="See why it would run.",
        command=f"mlstack explain {address}",
    )
