"""Stages in containers of a Docker engine on this machine.

A run is kept, followed and ended as one of a process is: the same folder, lock, log and result. Only what its own
process starts is a container.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOrder
from mlstack.drivers.docker.engine import ask_engine, connect, engine_host, remove_container
from mlstack.drivers.docker.stage_container import container_name, container_of
from mlstack.drivers.local.capacity import check_capacity
from mlstack.drivers.local.machine import describe_machine
from mlstack.drivers.local.run_folder import read_order
from mlstack.drivers.local.stages import LocalStages
from mlstack.drivers.local.start_run import build_message, launch
from mlstack.drivers.secrets import SecretValues
from mlstack.spec.spec import Pool, Stage

_KEPT_OF_THE_SHELL = ("LANG", "LANGUAGE", "LC_ALL", "TZ")
_SUPERVISOR = "mlstack.drivers.docker.supervise"


class DockerStages(LocalStages):
    """Runs stages in containers; `check` asks no engine, so that planning works without one."""

    name = "docker"

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        """Say whether this machine has what the stage asks for: cores, memory, GPUs."""
        if self._machine is None:
            self._machine = describe_machine()
        return check_capacity(stage, pool, self._machine)

    def preflight(self, pools: Sequence[Pool]) -> Sequence[Diagnostic]:
        """Ask each pool's engine whether it is there and can see this machine's files. Before anything is changed."""
        found: list[Diagnostic] = []
        for pool in pools:
            try:
                facts = ask_engine(engine_host(pool.settings), address=pool.address)
            except MlstackError as error:
                found.extend(error.diagnostics)
                continue
            if not facts.shares_files:
                found.append(_elsewhere(pool, facts.host))
            if pool.accelerator and not facts.has_gpus:
                found.append(_no_gpus(pool, facts.host))
        return found

    def inherited(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return what a container gets of the environment that mlstack was called in: next to nothing."""
        kept = {name: environ[name] for name in _KEPT_OF_THE_SHELL if name in environ}
        # The user may have no home in the image; and it is tini that signals reach: all processes are to get them.
        return kept | {"HOME": "/tmp", "TINI_KILL_PROCESS_GROUP": "1"}  # noqa: S108

    def _launch(self, lock: int) -> "subprocess.Popen[bytes]":
        return launch(lock, module=_SUPERVISOR, packages=True, env=_of_the_engine())

    def _message(self, order: RunOrder, secrets: SecretValues, *, mark: str, lock: int) -> bytes:
        from mlstack.drivers.dvc.settings import read_settings

        container = container_of(order, cache=read_settings(order.root).cache)
        return build_message(order, secrets, mark=mark, lock=lock, container=container)

    def _container(self, order: RunOrder) -> tuple[str, str | None]:
        return container_name(order), engine_host(order.pool.settings)

    def _end_what_is_left(self, folder: Path) -> None:
        super()._end_what_is_left(folder)
        saved = read_order(folder)
        if saved is None or not saved.container:
            return
        from docker.errors import DockerException

        with suppress(DockerException, OSError):  # no engine, no container
            client = connect(saved.engine)
            try:
                remove_container(client, saved.container)
            finally:
                client.close()


def _of_the_engine() -> dict[str, str]:
    """Return the variables by which the engine is found; the process around a run has no others."""
    names = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG", "HOME", "PATH", "SSH_AUTH_SOCK")
    return {name: os.environ[name] for name in names if name in os.environ}


def _elsewhere(pool: Pool, host: str) -> Diagnostic:
    return Diagnostic(
        code="docker-elsewhere",
        summary="The Docker engine does not see this machine's files",
        detail=f"{pool.address} uses the engine at {host}, which runs on another machine. Stages in containers work on "
        "the project's folder, which such an engine cannot mount.",
        hint="Name an engine on this machine in `targets: {docker: {host: …}}`.",
        address=pool.address,
    )


def _no_gpus(pool: Pool, host: str) -> Diagnostic:
    return Diagnostic(
        code="docker-no-gpus",
        summary="The Docker engine cannot hand out GPUs",
        detail=f"{pool.address} wants {' or '.join(pool.accelerator)}; the engine at {host} has no NVIDIA runtime.",
        hint="Install the NVIDIA Container Toolkit, or run the stage in another pool.",
        address=pool.address,
    )
