"""The process around one stage: starts its command, keeps its log, enforces its limits, writes its result.

It is started by `mlstack.drivers.local.stages` in a session of its own and outlives mlstack. It runs as
`python -I -S` and must be there in milliseconds, so it imports only what costs nothing (not `json`, `signal`,
`subprocess`, `typing`); its order comes over standard input as NUL-terminated fields, since it may hold secret values
that belong in no file. Every byte of output is masked before it is written.
"""
# pathlib and contextlib take longer to import than this program has time:

from __future__ import annotations

import os
import time

from mlstack.drivers.local.run_files import Log, ResultFile
from mlstack.runner.command import CHUNK, Limits, Run
from mlstack.runner.masking import StreamMasker
from mlstack.runner.processes import signal

TYPE_CHECKING = False  # `typing` costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Order", "Run", "main"]


class Order(Limits):
    """What to do, as read from standard input. Repeated fields are `command`, `env`, `secret` and `mask`.

    `secrets` are the names of the variables in `env` that hold secrets.
    """

    def __init__(self, data: bytes) -> None:
        parts = data.split(b"\0")
        pairs = list(zip(parts[0::2], parts[1::2], strict=False))
        if not pairs or pairs[-1][0] != b"end":
            raise ValueError("the order is not complete")
        self._fields = dict(pairs)
        self.commands = [value for name, value in pairs if name == b"command"]
        self.masks = tuple(value for name, value in pairs if name == b"mask")
        self.secrets = frozenset(value for name, value in pairs if name == b"secret")
        self.env = {}
        for name, value in pairs:
            if name == b"env":
                key, _, content = value.partition(b"=")
                self.env[key] = content
        self.folder = self.text("folder")
        self.cwd = self.text("cwd")
        self.watch = self.text("watch")
        self.grace = self.seconds("grace") or 0.0
        self.run_timeout = self.seconds("run_timeout")
        self.hang_timeout = self.seconds("hang_timeout")

    def text(self, name: str) -> str:
        """Return one field as text, empty when it is not there."""
        return os.fsdecode(self._fields.get(name.encode(), b""))

    def seconds(self, name: str) -> float | None:
        """Return one field as a number, None when it is not there."""
        value = self._fields.get(name.encode())
        return float(value) if value else None


def listen() -> int:
    """Turn SIGTERM and SIGCHLD into bytes that can be polled; ignore what a vanished terminal sends."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return reading


def read_order() -> Order:
    """Read the whole order from standard input and close that."""
    chunks = []
    while chunk := os.read(0, CHUNK):
        chunks.append(chunk)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return Order(b"".join(chunks))


def keep_lock(fd: int) -> None:
    """Hold the lock of the run's folder, taken by whoever started us, until this process ends."""
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
    try:
        import fcntl

        # On local disks we have this lock already; network file systems do not hand it on, so it is taken again.
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        pass


def main(make_run: Callable[[Order, Log, int], Run] = Run) -> None:
    """Carry out the order on standard input. Ends without cleaning up the interpreter, which costs milliseconds."""
    wake = listen()
    order = read_order()
    keep_lock(int(order.text("lock")))
    result = ResultFile(order.folder)
    masker = StreamMasker(order.masks)
    log = Log(order.folder, masker, head=int(order.text("log_head")), part=int(order.text("log_part")))
    began, clock = time.time(), time.monotonic()
    run = make_run(order, log, wake)
    try:
        os.chdir(order.cwd)
        run.carry_out()
    except OSError as error:
        run.cause, run.detail = "error", f"the run could not be carried on: {error}"
    log.close()
    result.write(
        {
            "exit_code": run.exit_code,
            "cause": run.cause or None,
            "detail": run.detail,
            "started": began,
            "ended": time.time(),
            "seconds": time.monotonic() - clock,
            "max_rss": run.max_rss,
            "log_bytes": log.written + log.lost,
            "log_lost": log.lost,
            "log_problem": log.problem,
        }
    )
    os._exit(0)
