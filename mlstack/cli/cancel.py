"""`mlstack cancel`: stop the run of a stage, wherever it is."""

import time

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.addresses import one_address
from mlstack.cli.console import say, say_json
from mlstack.cli.project import open_spec
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.local.start_run import grace_of
from mlstack.drivers.open_runs import OPEN, in_tree, target_of
from mlstack.drivers.registry import make_driver
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Spec, Stage
from mlstack.state.environment_folder import backend_for
from mlstack.state.identity import iso_time
from mlstack.state.runs import read_runs, update_run


def cancel(context: typer.Context, address: options.AddressArgument) -> int:
    """Stop the runs of a stage that go on: on this machine, in a container, in a cluster.

    Each gets the grace of its checkpoint. Nothing of it is recorded as a result; the next apply runs the stage again,
    from its checkpoint if it has one. An apply that waits for it says that it was cancelled, and tries no more.
    """
    settings = settings_of(context)
    root, spec = open_spec(settings)
    where = one_address(address, spec.resources, kinds=(Kind.STAGE,))
    if kind_of(where) is not Kind.STAGE:
        raise MlstackError(_no_run(where, "only stages run."))
    backend = backend_for(spec.state, root, spec.environment)
    ended = []
    for run in (in_tree(each, root) for each in read_runs(backend, where) if each.status in OPEN):
        # The record first: who waits for the run asks it why that has ended.
        update_run(backend, msgspec.structs.replace(run, status="cancelled", ended_at=iso_time(time.time())))
        make_driver(Kind.STAGE, target_of(run), root=root).cancel(run, grace=_grace(spec, where))
        ended.append(run)
    if not ended:
        raise MlstackError(_no_run(where, "no run of it goes on."))
    if settings.json:
        say_json({"address": where, "cancelled": [run.fingerprint for run in ended]})
    else:
        for run in ended:
            say(f"{where}: the run {run.fingerprint[:12]} is cancelled.")
    return ExitCode.OK


def _grace(spec: Spec, address: Address) -> float:
    stage = spec.resources.get(address)
    return grace_of(stage) if isinstance(stage, Stage) else 0.0


def _no_run(address: Address, why: str) -> Diagnostic:
    return Diagnostic(code="no-run", summary="There is no run to cancel", detail=f"{address}: {why}", address=address)
