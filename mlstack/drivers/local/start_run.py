"""Starting the process around a stage: what it is told, and how."""

import json
import subprocess
import sys
from collections.abc import Mapping
from os import fsencode
from pathlib import Path
from typing import Any

import mlstack
from mlstack.drivers.base import RunOrder
from mlstack.drivers.secrets import SecretValues
from mlstack.runner.processes import MARK
from mlstack.spec.spec import Stage

DEFAULT_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a stage without a checkpoint, as containers have it."""

LOG_HEAD = 64 * 1024 * 1024
LOG_PART = 16 * 1024 * 1024
"""Bytes of a log that are kept: its beginning, and the last one to two parts."""


def grace_of(stage: Stage) -> float:
    """Return the seconds between the request to end and the kill."""
    return stage.checkpoint.grace if stage.checkpoint is not None else DEFAULT_GRACE


def launch(
    lock: int,
    *,
    module: str = "mlstack.drivers.local.launch",
    packages: bool = False,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the process around the stage, in a session of its own, with nothing of ours but the lock.

    With `packages` it can import what is installed beside mlstack, which costs milliseconds. `env` is all that it gets
    of our environment.
    """
    home = str(Path(mlstack.__file__).parent.parent)
    program = f"import sys; sys.path.append({home!r}); from {module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-I", *([] if packages else ["-S"]), "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=dict(env or {}),
        pass_fds=(lock,),
        start_new_session=True,
    )


def build_message(
    order: RunOrder, secrets: SecretValues, *, mark: str, lock: int, container: Mapping[str, Any] | None = None
) -> bytes:
    """Return the order as `launch` reads it; `container` is what the engine is asked for."""
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
    fields += [("secret", name) for name in secrets]
    if container is not None:
        fields.append(("container", json.dumps(container)))
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
