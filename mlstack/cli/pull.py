"""`mlstack pull`: bring what is recorded from the remote into the workspace, without running anything."""

from typing import Annotated

import typer

from mlstack.cli import options
from mlstack.cli.carry_out import read_timeout
from mlstack.cli.console import report, say, say_json
from mlstack.cli.project import open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.transfer_lines import transfer_lines
from mlstack.diagnostics import ExitCode
from mlstack.drivers.dvc.exchange import Exchange, Pulled
from mlstack.drivers.dvc.settings import require_initialised
from mlstack.planner.scope import expand_addresses
from mlstack.render.diagnostics_json import diagnostic_object
from mlstack.render.human import counted, size
from mlstack.state.workspace_lock import workspace_lock

RunCache = Annotated[bool, typer.Option("--run-cache", help="Also the run-cache: then results of others are restored.")]


def pull(
    context: typer.Context,
    addresses: options.Addresses = None,
    run_cache: RunCache = False,
    lock_timeout: options.LockTimeout = "0s",
) -> int:
    """Bring recorded data, results and models from the remote into the workspace.

    All of them, or those of the addresses and what they need. Every content is checked against its hash before it is
    used. What would be overwritten and can be had nowhere else is moved aside.
    """
    settings = settings_of(context)
    project = open_project(settings)
    require_initialised(project.root)
    chosen = expand_addresses(addresses, project.graph, option="ADDR") if addresses else None
    exchange = Exchange(project.graph, root=project.root, cache_folder=project.cache_folder)
    with (
        workspace_lock(project.root, operation="pull", timeout=read_timeout(lock_timeout)),
        transfer_lines(settings) as line,
    ):
        done = exchange.pull(chosen, run_cache=run_cache, say=line)
    _show(settings, done)
    return ExitCode.OK if done.problem is None else ExitCode.ERROR


def _show(settings: Settings, done: Pulled) -> None:
    problems = [*done.notices, *([done.problem] if done.problem else [])]
    if settings.json:
        say_json(
            {
                "format_version": "1.0",
                "remote": done.remote,
                "fetched": done.moved,
                "bytes": done.size,
                "runs_fetched": done.runs,
                "restored": done.restored,
                "missing": done.missing,
                "complete": done.problem is None,
                "diagnostics": [diagnostic_object(problem) for problem in problems],
            }
        )
        return
    report(settings, problems)
    runs = f", and {counted(done.runs, 'entry', 'entries')} of the run-cache" if done.runs else ""
    if done.restored or done.runs:
        fetched = f"; fetched {counted(done.moved, 'object')} ({size(done.size)})" if done.moved else ""
        say(f"Restored {counted(len(done.restored), 'path')}{fetched}{runs}.")
    elif done.problem is None:
        say("Everything that is recorded is here.")
