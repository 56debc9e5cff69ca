"""Stages as processes of this machine: started so that they outlive mlstack, followed by whoever comes along."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event as StopFlag

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOrder, RunResult, Say
from mlstack.drivers.local.capacity import check_capacity
from mlstack.drivers.local.checkpoint import hand_over_checkpoint
from mlstack.drivers.local.environments import check_system_python
from mlstack.drivers.local.follow_run import RunWatch, ask_to_end, end_what_is_left
from mlstack.drivers.local.logs import LogTail, tail_of
from mlstack.drivers.local.machine import Machine, describe_machine
from mlstack.drivers.local.run_folder import (
    CANCEL,
    ORDER,
    SavedOrder,
    SavedResult,
    keep_earlier_attempt,
    name_process,
    read_order,
    read_result,
    running_pid,
    take,
)
from mlstack.drivers.local.start_run import build_message, grace_of, hand_over, launch
from mlstack.drivers.secrets import SecretValues, resolve_secrets
from mlstack.runner.secret_patterns import SHORTEST
from mlstack.spec.spec import Pool, Stage
from mlstack.state.identity import host_name, process_started
from mlstack.state.state import RunRecord

_LOOK_EVERY = 0.2
_OVERTIME = 10.0  # seconds that a run's own process gets, beyond the grace, to end what it started


class LocalStages:
    """Runs stages on this machine.

    `secrets_from` is where `env://` references are looked up (the environment of mlstack); `machine` is what there is.
    """

    name = "local"

    def __init__(self, *, machine: Machine | None = None, secrets_from: Mapping[str, str] | None = None) -> None:
        self._machine = machine
        self._secrets_from = secrets_from
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        """Say whether this stage could run here: cores, memory, GPUs, nodes, and a `python` if it takes any."""
        if self._machine is None:
            self._machine = describe_machine()
        no_python = check_system_python(stage)
        return (*check_capacity(stage, pool, self._machine), *([no_python] if no_python else []))

    def inherited(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return what a process gets of the environment that mlstack was called in: all, as from a shell."""
        return environ

    def start(self, order: RunOrder) -> tuple[int, float]:
        """Start the run so that it survives this process; return pid and start time.

        `order.environment` is the whole environment of the process but its secrets, which are found now. Raises
        `MlstackError` when a secret cannot be had, the folder is not there, or the run goes on already.
        """
        stage = order.stage
        secrets = resolve_secrets(
            stage.secrets,
            address=stage.address,
            root=order.root,
            environment=os.environ if self._secrets_from is None else self._secrets_from,
        )
        try:
            order.folder.mkdir(parents=True, exist_ok=True)
            lock = take(order.folder)
            if lock is None:
                raise MlstackError(_goes_on(order))
            try:
                self._end_what_is_left(order.folder)
                mark = self._prepare(order, secrets)
                child = self._launch(lock)
                name_process(lock, child.pid)
            finally:
                os.close(lock)
        except OSError as error:
            raise MlstackError(_cannot_start(order, error)) from error
        started = process_started(child.pid) or time.time()
        self._children[child.pid] = child
        hand_over(child, self._message(order, secrets, mark=mark, lock=lock))
        return child.pid, started

    def wait(self, order: RunOrder, run: RunRecord, *, say: Say, stop: StopFlag) -> RunResult:
        """Follow a started run to its end, whoever started it. With `stop` set: cancel it within its grace."""
        if run.host != host_name():
            raise MlstackError(_elsewhere(run))
        folder = Path(run.folder) if run.folder else order.folder
        watch = RunWatch(run, folder, self._children.pop(run.pid or 0, None))
        tail = LogTail(folder)
        _warn_of_unmasked(folder, say)
        give_up_at: float | None = None
        while not watch.ended(_LOOK_EVERY):
            line = tail.newest()
            if line is not None:
                say(line)
            if stop.is_set() and give_up_at is None:
                grace = grace_of(order.stage)
                give_up_at = time.monotonic() + grace + _OVERTIME
                ask_to_end(run, folder, grace)
            if give_up_at is not None and time.monotonic() > give_up_at:
                watch.kill()
                give_up_at = time.monotonic() + _OVERTIME
        return self._result(order.stage, folder, was_stopped=give_up_at is not None)

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        """Stop a run; one that is already over succeeds. Returns when it is gone."""
        if run.host != host_name():
            raise MlstackError(_elsewhere(run))
        if run.folder is None:
            return
        folder = Path(run.folder)
        watch = RunWatch(run, folder, self._children.pop(run.pid or 0, None))
        if not watch.ended(0.0):
            ask_to_end(run, folder, grace)
            if not watch.ended(grace + _OVERTIME):
                watch.kill()
                watch.ended(_OVERTIME)
        self._end_what_is_left(folder)

    # ------------------------------------------------------------------------------- what containers do differently

    def _launch(self, lock: int) -> "subprocess.Popen[bytes]":
        return launch(lock)

    def _message(self, order: RunOrder, secrets: SecretValues, *, mark: str, lock: int) -> bytes:
        return build_message(order, secrets, mark=mark, lock=lock)

    def _container(self, order: RunOrder) -> tuple[str, str | None]:
        """Return the name and the engine of the container of a run, for those who find it again; "" is none."""
        del order
        return "", None

    def _end_what_is_left(self, folder: Path) -> None:
        end_what_is_left(folder)

    # ------------------------------------------------------------------------------------------------ parts

    def _prepare(self, order: RunOrder, secrets: SecretValues) -> str:
        """Make the folder ready for a new attempt and return the mark of its processes."""
        stage, before = order.stage, read_result(order.folder)
        place = order.root / stage.directory
        if not place.is_dir():
            raise NotADirectoryError(20, "there is no such folder", str(place))
        keep_earlier_attempt(order.folder)
        if stage.checkpoint is not None:
            succeeded = before is not None and before.cause is None and before.exit_code == 0
            hand_over_checkpoint(order.root / stage.checkpoint.path, folder=order.folder, fresh=succeeded)
        mark = os.urandom(8).hex()
        container, engine = self._container(order)
        saved = SavedOrder(
            address=stage.address,
            fingerprint=order.fingerprint,
            attempt=order.attempt,
            host=host_name(),
            mark=mark,
            cmd=stage.cmd,
            directory=stage.directory,
            started_at=time.time(),
            grace=grace_of(stage),
            resources=order.resources,
            secrets=tuple(secrets),
            unmasked=secrets.unmasked(),
            container=container,
            image=order.image,
            engine=engine,
        )
        (order.folder / ORDER).write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n")
        return mark

    def _result(self, stage: Stage, folder: Path, *, was_stopped: bool) -> RunResult:
        saved = read_result(folder)
        log = tail_of(folder)
        if saved is None:
            self._end_what_is_left(folder)
            if was_stopped or (folder / CANCEL).exists():
                return RunResult(exit_code=None, cause="cancelled", detail="it was stopped", log_tail=log)
            detail = "it was killed, together with the process around it (SIGKILL, or the machine went down)"
            return RunResult(exit_code=None, cause="error", detail=detail, log_tail=log)
        if saved.cause in {"cancelled", "timeout", "hang"}:
            self._end_what_is_left(folder)
        return RunResult(
            exit_code=saved.exit_code,
            cause=saved.cause,
            detail=describe_end(saved, stage),
            seconds=saved.seconds,
            log_tail=log,
        )


def describe_end(result: SavedResult, stage: Stage) -> str:
    """Say in a sentence how an attempt ended; empty for a success that needs no word."""
    code = result.exit_code
    match result.cause:
        case None:
            said = ""
        case "timeout":
            said = f"it ran longer than timeout.run ({_seconds(stage.timeout.run)})"
        case "hang":
            what = "no output and no change in its checkpoint folder" if stage.checkpoint else "no output"
            said = f"{what} for longer than timeout.hang ({_seconds(stage.timeout.hang)})"
        case "cancelled":
            said = "it was cancelled"
        case "out-of-memory":
            said = "it ran out of memory"
        case _:
            said = _words_of(code)
    lost = f"{result.log_lost} bytes of its log could not be written: {result.log_problem}" if result.log_lost else ""
    return "; ".join(part for part in (said, result.detail, lost) if part)


# ---------------------------------------------------------------------------------------------------- words


def _warn_of_unmasked(folder: Path, say: Say) -> None:
    saved = read_order(folder)
    if saved is not None and saved.unmasked:
        say(f"too short to be masked in the log (under {SHORTEST} characters): {', '.join(saved.unmasked)}")


def _seconds(value: float | None) -> str:
    return f"{value or 0:g} s"


def _words_of(code: int | None) -> str:
    import signal

    match code:
        case None:
            return ""
        case 126:
            return "exit code 126: the command cannot be executed"
        case 127:
            return "exit code 127: the command was not found"
        case _ if code > 128 and code - 128 in {number.value for number in signal.Signals}:
            return f"exit code {code}: ended by {signal.Signals(code - 128).name}"
        case _:
            return f"exit code {code}"


def _goes_on(order: RunOrder) -> Diagnostic:
    return Diagnostic(
        code="run-in-progress",
        summary="This run goes on already",
        detail=f"Process {running_pid(order.folder) or '?'} carries out the run {order.fingerprint[:12]}.",
        hint="Wait until it is done and apply again, or stop it:",
        command=f"mlstack cancel {order.stage.address}",
        address=order.stage.address,
    )


def _elsewhere(run: RunRecord) -> Diagnostic:
    return Diagnostic(
        code="run-elsewhere",
        summary="The run goes on on another machine",
        detail=f"{run.address} runs on {run.host}; this is {host_name()}.",
        hint=f"Follow or cancel it on {run.host}.",
        address=run.address,
    )


def _cannot_start(order: RunOrder, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="stage-not-started",
        summary="The stage could not be started",
        detail=f"{error.filename or order.folder}: {error.strerror}.",
        hint="Correct that and apply again.",
        address=order.stage.address,
    )
