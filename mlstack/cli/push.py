"""`mlstack push`: copy what is recorded into the remote, so that others have it too."""

from typing import Annotated

import typer

from mlstack.cli import options
from mlstack.cli.console import note, report, say, say_json
from mlstack.cli.project import open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.transfer_lines import transfer_lines
from mlstack.diagnostics import ExitCode
from mlstack.drivers.dvc.exchange import Exchange, Pushed
from mlstack.drivers.dvc.settings import require_initialised
from mlstack.planner.scope import expand_addresses
from mlstack.render.diagnostics_json import diagnostic_object
from mlstack.render.human import counted, size

RunCache = Annotated[
    bool, typer.Option("--run-cache", help="Also results that no commit records: of `mlstack run`, of before.")
]


def push(context: typer.Context, addresses: options.Addresses = None, run_cache: RunCache = False) -> int:
    """Copy recorded data, results and models into the remote.

    All of them, or those of the addresses and what they need. What is there already is not moved again, so that a push
    that was cut off goes on where it stopped. `dvc push` and `dvc pull` work on the same remote.
    """
    settings = settings_of(context)
    project = open_project(settings)
    require_initialised(project.root)
    chosen = expand_addresses(addresses, project.graph, option="ADDR") if addresses else None
    exchange = Exchange(project.graph, root=project.root, cache_folder=project.cache_folder)
    configured = exchange.configure()
    with transfer_lines(settings) as line:
        done = exchange.push(chosen, run_cache=run_cache, say=line)
    _show(settings, done, configured)
    return ExitCode.OK if done.problem is None else ExitCode.ERROR


def _show(settings: Settings, done: Pushed, configured: list[str]) -> None:
    if settings.json:
        say_json(
            {
                "format_version": "1.0",
                "remote": done.remote,
                "pushed": done.moved,
                "bytes": done.size,
                "there_before": done.there,
                "runs_pushed": done.runs,
                "complete": done.problem is None,
                "configured": configured,
                "diagnostics": [diagnostic_object(done.problem)] if done.problem else [],
            }
        )
        return
    for sentence in configured:
        note(sentence)
    if done.problem is not None:
        report(settings, [done.problem])
        return
    say(pushed_sentence(done))


def pushed_sentence(done: Pushed) -> str:
    """Return `Pushed 3 objects (1.2 MiB) to s3://…; 12 were there`."""
    runs = f" and {counted(done.runs, 'entry', 'entries')} of the run-cache" if done.runs else ""
    if not done.moved and not done.runs:
        return f"Nothing to push: {done.remote} has all that is recorded ({counted(done.there, 'object')})."
    there = f"; {done.there} were there" if done.there else ""
    return f"Pushed {counted(done.moved, 'object')} ({size(done.size)}){runs} to {done.remote}{there}."
