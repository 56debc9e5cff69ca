"""`mlstack shell ADDR --failed`: a shell where a run on a cluster has failed, as long as its pod is kept."""

import subprocess

from mlstack.cli.addresses import one_address
from mlstack.cli.console import note
from mlstack.cli.project import open_spec
from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.registry import make_driver
from mlstack.render.escape import plain
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Stage
from mlstack.state.environment_folder import backend_for
from mlstack.state.runs import read_runs


def shell_where_it_failed(settings: Settings, word: str) -> int:
    """Open the shell with kubectl; return its exit code. Raises `MlstackError` when nothing is kept."""
    root, spec = open_spec(settings)
    address = one_address(word, spec.of(Stage))
    runs = read_runs(backend_for(spec.state, root, spec.environment), address)
    run = next((each for each in runs if each.remote is not None), None)
    if run is None or run.remote is None:
        raise MlstackError(_not_elsewhere(address))
    command = make_driver(Kind.STAGE, run.remote.target, root=root).failed_shell(run)
    note(f"Where {plain(address)} failed (attempt {run.attempt}). `exit` or Ctrl-D leaves it.")
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise MlstackError(_no_kubectl(address)) from None


def _not_elsewhere(address: Address) -> Diagnostic:
    return Diagnostic(
        code="no-run-elsewhere",
        summary="The stage has not run on a cluster",
        detail=f"{address}: no run of it is recorded that was not on this machine.",
        hint="What a run of this machine left lies in your workspace; for its environment:",
        command=f"mlstack shell {address}",
        address=address,
    )


def _no_kubectl(address: Address) -> Diagnostic:
    return Diagnostic(
        code="kubectl-missing",
        summary="kubectl is not installed",
        detail="A shell in a pod is opened with it, and it is not on the PATH.",
        hint="Install kubectl, of about the cluster's version.",
        address=address,
    )
