"""Starting the process around a stage: what it is told, and how."""

import subprocess
import sys
from os import fsencode
from pathlib import Path

import mlstack
from mlstack.drivers.base import RunOrder
from mlstack.drivers.local.run_processes import MARK
from mlstack.drivers.secrets import SecretValues
from mlstack.spec.spec import Stage

DEFAULT_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a stage without a checkpoint, as containers have it."""

LOG_HEAD = 64 * 1024 * 1024
LOG_PART = 16 * 1024 * 1024
"""Bytes of a log that are kept: its beginning, and the last one to two parts."""


def grace_of(stage: Stage) -> float:
    """Return the seconds between the request to end and the kill."""
    return stage.checkpoint.grace if stage.checkpoint is not None else DEFAULT_GRACE


def launch(lock: int) -> subprocess.Popen[bytes]:
    """Start the process around the stage, in a session of its own, with nothing of ours but the lock."""
    home = str(Path(mlstack.__file__).parent.parent)
    program = f"import sys; sys.path.append({home!r}); from mlstack.drivers.local.launch import main; main()"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        pass_fds=(lock,),
        start_new_session=True,
    )


def build_message(order: RunOrder, secrets: SecretValues, *, mark: str, lock: int) -> bytes:
    """Return the order as `launch` reads it."""
    stage = order.stage
    fields: list[tuple[str, str | bytes]] = [
        ("folder", str(order.folder.absolute())),
        ("cwd", str((order.root / stage.directory).absolute())),
        ("lock", str(lock)),
        ("grace", repr(grace_of(stage))),
        ("log_head", str(LOG_HEAD)),
        ("log_part", str(LOG_PART)),
    ]
    if stage.timeout.run is not None:
        fields.append(("run_timeout", repr(stage.timeout.run)))
    if stage.timeout.hang is not None:
        fields.append(("hang_timeout", repr(stage.timeout.hang)))
    if stage.checkpoint is not None:
        fields.append(("watch", str((order.root / stage.checkpoint.path).absolute())))
    # As DVC does: every line is a command of its own, and the first that fails ends the stage.
    fields += [("command", line) for line in stage.cmd.splitlines() if line.strip()]
    variables = order.environment | secrets.reveal() | {MARK: mark}
    fields += [("env", f"{name}={value}") for name, value in variables.items()]
    fields += [("mask", pattern) for pattern in secrets.masker().patterns]
    fields.append(("end", ""))
    return b"".join(fsencode(name) + b"\0" + fsencode(value) + b"\0" for name, value in fields)


def hand_over(child: subprocess.Popen[bytes], message: bytes) -> None:
    """Give a process its order."""
    assert child.stdin is not None  # noqa: S101 - it is a pipe
    try:
        with child.stdin:
            child.stdin.write(message)
    except BrokenPipeError:
        return  # it died at once: whoever waits for it says so
