"""`mlstack drift`: whether what was made is still as mlstack left it."""

from collections.abc import Iterator
from typing import Annotated

import typer

from mlstack.cli.console import report, say, say_json
from mlstack.cli.project import Planned, make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import ExitCode
from mlstack.graph.change import Change
from mlstack.planner.plan import Scope
from mlstack.render.table import Column, render_table
from mlstack.render.words import because
from mlstack.spec.address import Address, Kind

CLEAN, DRIFTED, UNCHECKED = "clean", "drifted", "not checked"
_MADE = (Kind.POOL, Kind.IMAGE, Kind.ENDPOINT)

ExitCodes = Annotated[bool, typer.Option("--detailed-exitcode", help="Exit 2 when something is drifted.")]


def drift(context: typer.Context, detailed_exitcode: ExitCodes = False) -> int:
    """Show what was changed or removed outside of mlstack since the last apply, whatever the file says by now.

    Each pool, image and endpoint that is recorded is clean, drifted or not checked. Nothing is changed: the next apply
    puts drift right.
    """
    settings = settings_of(context)
    project = open_project(settings)
    planned = make_plan(project, Scope(refresh_only=True), tolerant=True)
    rows = list(_rows(planned))
    if settings.json:
        said = [{"address": address, "state": state, "because": why} for address, state, why in rows]
        say_json({"format_version": "1.0", "resources": said, "diagnostics": planned.plan.diagnostics})
    else:
        report(settings, planned.plan.diagnostics)
        heads = (Column("ADDRESS", keep=True), Column("STATE", keep=True), Column("BECAUSE", wrap=True))
        say(render_table(heads, rows, style=settings.out) if rows else "Nothing is recorded.")
    if planned.plan.errored:
        return ExitCode.ERROR
    is_drifted = any(state == DRIFTED for _, state, _ in rows)
    return ExitCode.CHANGES if detailed_exitcode and is_drifted else ExitCode.OK


def _rows(planned: Planned) -> Iterator[tuple[Address, str, str]]:
    recorded = planned.prior.resources if planned.prior is not None else {}
    for change in planned.plan.changes:
        if change.kind in _MADE and change.address in recorded:
            yield change.address, *_state(change)


def _state(change: Change) -> tuple[str, str]:
    if change.drift:
        return DRIFTED, because(change, most=len(change.reasons))
    return (UNCHECKED, change.not_checked) if change.not_checked else (CLEAN, "")
