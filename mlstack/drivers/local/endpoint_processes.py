"""Model servers as processes of this machine, which stay when the command has ended.

Nothing restarts one that has ended; `apply` does.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlstack.drivers.base import Say
from mlstack.drivers.local.endpoint_housing import Job, Start
from mlstack.drivers.local.endpoint_overlay import SERVING, ensure_overlay
from mlstack.drivers.local.endpoint_process import (
    birth_of,
    is_same_process,
    servers_below,
    start_detached,
    stop_process,
    wait_until,
)
from mlstack.drivers.local.endpoint_server import Launch, Ready, Running, server_in, wait_until_ready, write_settings
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.spec import Endpoint, Model

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
INHERITED_PREFIXES = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "SSL_CERT_", "DYLD_")
"""What a server gets of the environment of the command: it outlives the command, so not whatever is in a shell."""

FindPython = Callable[[Endpoint, Model, EnvironmentIdentity, Path, Say], tuple[Path, dict[str, str]]]
"""Returns the interpreter of an endpoint's environment, made if need be, and the variables that select it."""


def locked_python(
    endpoint: Endpoint, model: Model, identity: EnvironmentIdentity, root: Path, say: Say
) -> tuple[Path, dict[str, str]]:
    """Return the interpreter that the file names for this endpoint. Raises `MlstackError`."""
    from mlstack.drivers.local.environments import ensure_environment, python_variables

    found = ensure_environment(endpoint.python, identity, root=root, directory=model.directory, say=say)
    variables = python_variables(
        endpoint.python,
        identity,
        root=root,
        directory=model.directory,
        search_path=os.environ.get("PATH", ""),
    )
    return found / "python", variables or {}


class Processes:
    """The housing of endpoints whose pool has `target: local`."""

    def __init__(self, find_python: FindPython = locked_python) -> None:
        self._find_python = find_python

    def prepare(self, job: Job, model: Model) -> Start:
        """Make the endpoint's Python environment and the server's packages. Raises `MlstackError`."""
        context = job.context
        identity = context.graph.environments.get(job.endpoint.address, EnvironmentIdentity(digest="system"))
        python, selecting = self._find_python(job.endpoint, model, identity, context.root, context.say)
        overlay = ensure_overlay(python, say=context.say)
        environment = _inherited() | selecting

        def start(launch: Launch, settings: Mapping[str, Any]) -> Running:
            return start_server(launch, settings, python=python, overlay=overlay, environment=environment)

        return start

    def below(self, folder: Path) -> Sequence[Running]:
        """Return the servers whose command line names this folder."""
        found = []
        for pid, place in sorted(servers_below(folder).items()):
            birth = birth_of(pid)
            if birth is not None:
                found.append(msgspec.structs.replace(server_in(place), pid=pid, birth=birth))
        return found

    def lives(self, running: Running) -> bool:
        """Whether this very process is still there."""
        return is_same_process(running.pid, running.birth)

    def why_gone(self, running: Running) -> str:
        """Say that the process is gone, if it is."""
        return "" if self.lives(running) else f"process {running.pid} is gone"

    def settle(self, running: Running) -> None:
        """Do nothing: a process stays until it ends."""

    def stop(self, running: Running, *, grace: float, say: Say) -> None:
        """End it: SIGTERM, after `grace` seconds SIGKILL."""
        stop_process(running.pid, running.birth, grace=grace, say=say)

    def wait_gone(self, running: Running, *, seconds: float) -> None:
        """Wait for a process that ends by itself."""
        wait_until(lambda: not self.lives(running), seconds=seconds)


def start_server(
    launch: Launch, settings: Mapping[str, Any], *, python: Path, overlay: Path, environment: Mapping[str, str]
) -> Running:
    """Start a server as a process that detaches itself, and wait until it is ready."""
    before = str(launch.before.folder) if launch.before is not None else None
    file = write_settings(launch.folder, {**settings, "take_over": before})
    command = [str(python), str(SERVING / "boot.py"), str(file), str(overlay)]
    pid = start_detached(command, env={**environment, **launch.env}, cwd=launch.folder)
    birth = birth_of(pid) or ""

    def found(_ready: Ready) -> Running:
        return msgspec.structs.replace(server_in(launch.folder), pid=pid, birth=birth)

    def why_ended() -> str:
        return "" if birth and is_same_process(pid, birth) else f"process {pid} ended while it started"

    try:
        return wait_until_ready(launch, settings, found=found, why_ended=why_ended)
    except BaseException:  # whatever ends the waiting (Ctrl-C too), nothing half-started stays behind
        stop_process(pid, birth, grace=3.0)
        raise


def _inherited() -> dict[str, str]:
    found = {
        name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    return found | {"PYTHONUNBUFFERED": "1"}
