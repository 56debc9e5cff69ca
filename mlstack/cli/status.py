"""`mlstack status`: what is there, whether it is well, and what is going on."""

import typer

from mlstack.cli.console import report, say, say_json
from mlstack.cli.project import make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import ExitCode
from mlstack.drivers.base import Absent, NotChecked, Observation, Present
from mlstack.drivers.read import observe_in_stacks
from mlstack.graph.change import Action
from mlstack.planner.plan import Scope
from mlstack.render.table import render_table
from mlstack.render.words import because
from mlstack.spec.address import Kind


def status(context: typer.Context) -> int:
    """Show what is there, whether it is well, and what is going on.

    Exit code 0 when everything is as the file says, 1 when something is down, unreadable or failed to be checked.
    """
    settings = settings_of(context)
    project = open_project(settings)
    planned = make_plan(project, Scope())
    failed = {(run.address, run.fingerprint) for run in project.reader().runs() if run.status == "failed"}
    rows = []
    observations = {
        **planned.readings.observations,
        **observe_in_stacks(project.graph, planned.prior, root=project.root),
    }
    for change in planned.plan.changes:
        if change.kind is Kind.POOL and change.before is None:
            continue  # nothing is made for it
        observation = observations.get(change.address)
        has_failed = change.action is Action.RUN and (change.address, change.fingerprint) in failed
        word = "failed" if has_failed else _state_word(change.action, observation, change.kind)
        version = (planned.plan.versions.get(change.address) or "")[:12]
        url = str((change.before or {}).get("url", "")) if word.startswith("ready") else ""
        rows.append((change.address, word, url or version, because(change)))
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
        say(render_table(("ADDRESS", "STATUS", "VERSION OR URL", "BECAUSE"), rows, style=settings.out))
    well = all(word not in ("down", "not ready") for _, word, _, _ in rows) and not planned.plan.errored
    return ExitCode.OK if well else ExitCode.ERROR


def _state_word(action: Action, observation: Observation | None, kind: Kind) -> str:
    """Say in one word how something is."""
    if kind is Kind.ENDPOINT:
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
                return "ready" if action is Action.NO_OP else "ready, old"
            case _:
                return "unreadable"
    return {
        Action.NO_OP: "up to date",
        Action.FOLLOW: "running",
        Action.CREATE: "not made",
        Action.RESTORE: "in run-cache",
    }.get(action, "out of date")
