"""Stages in containers of a Docker engine on this machine.

A run is kept, followed and ended as one of a process is: the same folder, lock, log and result. Only what its own
process starts is a container.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOrder
from mlstack.drivers.docker.engine import (
    ask_engine,
    connect,
    engine_elsewhere,
    engine_host,
    remove_container,
    user_mapped,
)
from mlstack.drivers.docker.stage_container import container_name, container_of
from mlstack.drivers.local.capacity import amount_text, check_capacity, resources_of
from mlstack.drivers.local.machine import describe_machine
from mlstack.drivers.local.run_folder import read_order
from mlstack.drivers.local.stages import LocalStages
from mlstack.drivers.local.start_run import build_message, launch
from mlstack.drivers.registry import pool_of
from mlstack.drivers.secrets import SecretValues
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
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

    def preflight(self, rows: Sequence[Change], graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Ask each pool's engine whether it is there, can see this machine's files, and has what is declared."""
        stages: dict[Address, list[Stage]] = {}
        for row in rows:
            stage = graph.resources[row.address]
            assert isinstance(stage, Stage)  # noqa: S101 - rows of stages
            stages.setdefault(stage.pool, []).append(stage)
        found: list[Diagnostic] = []
        for stages_there in stages.values():
            found.extend(check_engine(pool_of(stages_there[0], graph), stages_there))
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


def check_engine(pool: Pool, stages: Sequence[Stage]) -> Iterable[Diagnostic]:
    """Ask a pool's engine whether it is there, can see this machine's files, and has what these stages ask for."""
    try:
        facts = ask_engine(engine_host(pool.settings), address=pool.address)
    except MlstackError as error:
        yield from error.diagnostics
        return
    if not facts.shares_files:
        yield engine_elsewhere(pool, facts.host)
    if facts.maps_users and not pool.settings.get("user"):
        yield user_mapped(pool, facts.host)
    if pool.accelerator and not facts.has_gpus:
        yield _no_gpus(pool, facts.host)
    # An engine in a virtual machine (Docker Desktop) has less than this machine.
    has = {"cpu": float(facts.cpus), "memory": float(facts.memory)}
    for stage in stages:
        for name, amount in resources_of(stage, pool).items():
            if name in has and amount > has[name]:
                yield _exceeds_engine(stage, name, amount, has[name])


def _exceeds_engine(stage: Stage, name: str, amount: float, has: float) -> Diagnostic:
    return Diagnostic(
        code="stage-exceeds-engine",
        summary="The stage asks for more than the Docker engine has",
        detail=f"{stage.address} asks for {amount_text(name, amount)}; the engine has {amount_text(name, has)}.",
        hint="Lower `resources`, or give the engine's virtual machine more.",
        address=stage.address,
    )


def _no_gpus(pool: Pool, host: str) -> Diagnostic:
    return Diagnostic(
        code="docker-no-gpus",
        summary="The Docker engine cannot hand out GPUs",
        detail=f"{pool.address} wants {' or '.join(pool.accelerator)}; the engine at {host} has no NVIDIA runtime.",
        hint="Install the NVIDIA Container Toolkit, or run the stage in another pool.",
        address=pool.address,
    )
