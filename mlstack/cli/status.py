"""`mlstack status`: what is there, whether it is well, and what is going on."""

from collections.abc import Mapping

import typer

from mlstack.cli.console import report, say, say_json
from mlstack.cli.project import make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import ExitCode
from mlstack.drivers.base import Absent, NotChecked, Observation, Present, Readings, Unreadable
from mlstack.drivers.read import observe_in_stacks
from mlstack.graph.change import Action, Change, ReasonCode
from mlstack.planner.plan import Scope
from mlstack.render.table import Column, render_table
from mlstack.render.words import because
from mlstack.spec.address import Address, Kind
from mlstack.state.state import RunRecord

_HEADS = (Column("ADDRESS", keep=True), Column("STATUS", keep=True), "VERSION OR URL", Column("BECAUSE", wrap=True))


def status(context: typer.Context) -> int:
    """Show what is there, whether it is well, and what is going on.

    Exit code 0 when everything is as the file says, 1 when something is down, unreadable or failed to be checked.
    """
    settings = settings_of(context)
    project = open_project(settings)
    planned = make_plan(project, Scope(), tolerant=True)
    runs = {(run.address, run.fingerprint): run for run in project.reader().runs()}
    rows = []
    observations = {
        **planned.readings.observations,
        **observe_in_stacks(project.graph, planned.prior, root=project.root),
    }
    for change in planned.plan.changes:
        if change.kind is Kind.POOL and change.before is None and change.action is Action.NO_OP:
            continue  # nothing is made for it
        observation = observations.get(change.address)
        said = _said_of_run(change, runs, planned.readings)
        word, why = said or (_state_word(change, observation), _because(change, observation))
        if change.kind is Kind.POOL and change.not_checked:
            word, why = "not checked", change.not_checked
        version = (planned.plan.versions.get(change.address) or "")[:12]
        url = str((change.before or {}).get("url", "")) if word.startswith("ready") else ""
        rows.append((change.address, word, url or version, why))
    if settings.json:
        say_json(
            {
                "format_version": "1.0",
                "project": project.spec.project,
                "environment": project.spec.environment,
                "resources": [
                    {"address": address, "status": word, "at": at, "because": why} for address, word, at, why in rows
                ],
                "diagnostics": planned.plan.diagnostics,
            }
        )
    else:
        report(settings, planned.plan.diagnostics)
        shown = [(*row, "" if why == f"it is {row[1]}" else why) for *row, why in rows]
        say(render_table(_HEADS, shown, style=settings.out))
    well = all(word not in ("down", "not ready") for _, word, _, _ in rows) and not planned.plan.errored
    return ExitCode.OK if well else ExitCode.ERROR


def _said_of_run(
    change: Change, runs: Mapping[tuple[Address, str], RunRecord], readings: Readings
) -> tuple[str, str] | None:
    """Say in a word how far the run is that a row is about, and why; None where its row says all.

    Of a run that failed and that nobody collects any more, and of those elsewhere that nobody has collected yet.
    """
    key = (change.address, change.fingerprint or "")
    run, outcome = runs.get(key), readings.outcomes.get(key)
    if run is None or change.action not in (Action.FOLLOW, Action.RUN):
        return None
    if run.status == "failed" and change.action is Action.RUN:
        return "failed", run.detail or because(change)
    if outcome is None:
        return None
    if outcome.goes_on:
        return outcome.phase, outcome.said or f"attempt {run.attempt}"
    if outcome.ended_well:
        return "done", f"{outcome.said}; apply takes its result over"
    # The apply that is at it, if there is one, decides in a moment.
    return "between attempts", f"attempt {run.attempt} failed: {outcome.said}; apply begins the next, if `retry` allows"


def _because(change: Change, observation: Observation | None) -> str:
    """Say why something is as it is: by the plan, and by what was seen of it."""
    if isinstance(observation, Unreadable):
        return observation.diagnostic.summary
    seen = observation.attributes if isinstance(observation, Present) and change.kind is Kind.ENDPOINT else {}
    replicas = int(seen.get("replicas", 1))
    runs = f"{replicas} replicas run" if replicas > 1 else ""
    return "; ".join(filter(None, (because(change), runs, str(seen.get("reason", "")))))


def _state_word(change: Change, observation: Observation | None) -> str:
    """Say in one word how something is."""
    if change.kind is Kind.ENDPOINT:
        match observation:
            case Absent(reason="never made"):
                return "not made"
            case Absent():
                return "down"
            case NotChecked():
                return "not checked"
            case Present(attributes=attributes) if attributes.get("ready") is False:
                return "not ready"
            case Present():
                return "ready" if change.action is Action.NO_OP else "ready, old"
            case _:
                return "unreadable"
    if change.action is Action.RUN and any(each.code is ReasonCode.NOT_RECORDED for each in change.reasons):
        return "not run yet"
    return {
        Action.NO_OP: "up to date",
        Action.FOLLOW: "running",
        Action.CREATE: "not made",
        Action.RESTORE: "in run-cache",
    }.get(change.action, "out of date")
