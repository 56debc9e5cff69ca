"""Processes that outlive the one that starts them, and are ended by their identity only: pid and time of start."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.engines.places import running

GRACE = 20.0  # seconds between SIGTERM and SIGKILL


class EngineError(Exception):
    """An engine that should be there did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Process:
    """One process of the operating system; a pid alone may by now belong to another."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Process":
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def record_of(name: str) -> Path:
    return running() / f"{name}.json"


def log_of(name: str) -> Path:
    return running() / f"{name}.log"


def recorded(name: str) -> Process | None:
    """The process that was started under this name, if it still runs."""
    try:
        process = Process(**json.loads(record_of(name).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    return process if process.alive() else None


def start(name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> Process:
    """Start a process in a session of its own, its output in a log file. The caller holds the lock of the engines."""
    log = log_of(name)
    log.unlink(missing_ok=True)
    words = [os.fspath(word) for word in command]
    # Not subprocess.Popen: it warns when its object goes while the process stays, which here is the purpose.
    pid = os.posix_spawn(
        words[0],
        words,
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM],
    )
    process = Process.of(pid)
    record_of(name).write_text(json.dumps(asdict(process)), encoding="utf-8")
    return process


def wait_until_ready(name: str, process: Process, ready: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until the engine answers; one that ends or never answers is an error, and does not stay behind."""
    until = time.monotonic() + seconds
    while not ready():
        ended = not process.alive()
        if ended or time.monotonic() > until:
            stop(name)
            said = "\n".join(log_of(name).read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise EngineError(f"{name} {'ended' if ended else f'did not answer for {seconds:.0f} s'}. Its log:\n{said}")
        time.sleep(0.05)


def stop(name: str) -> bool:
    """End what was started under this name, with its children; whether there was anything to end."""
    process = recorded(name)
    if process is not None:
        children = psutil.Process(process.pid).children(recursive=True)
        _end(process, [Process(child.pid, child.create_time()) for child in children])
    record_of(name).unlink(missing_ok=True)
    return process is not None


def _end(process: Process, children: Sequence[Process]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while process.alive() and time.monotonic() < until:
        time.sleep(0.05)
    for left in (process, *children):
        if left.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # not ours to reap if another process started it
        os.waitpid(process.pid, 0)
