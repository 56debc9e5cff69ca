"""Processes that outlive the one that starts them, and are ended by their identity only: pid and time of start."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.engines.session import Session

GRACE = 20.0  # seconds between SIGTERM and SIGKILL
STARTS_WITHIN = 300.0  # seconds; one or five when nothing else runs


class EngineError(Exception):
    """An engine that should be there did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Process:
    """One process of the operating system; a pid alone may by now belong to another."""

    pid: int
    started: int
    """Ticks since the machine's start. Not a time of day: that changes when the machine's clock is set."""

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Raises FileNotFoundError or ProcessLookupError where there is none."""
        return cls(pid, int(_stat(pid)[19]))

    def alive(self) -> bool:
        try:
            fields = _stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(fields[19]) == self.started and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s `stat` from the third on; the second, the name, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def recorded(session: Session, engine: str) -> Process | None:
    """The process of an engine of this session, if it still runs."""
    try:
        process = Process(**json.loads(session.record(engine).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    return process if process.alive() else None


def all_recorded(session: Session) -> list[str]:
    """The names of everything that this session started and that still runs, the latest first."""
    running = [(each, found) for each in session.records() if (found := recorded(session, each)) is not None]
    return [name for name, process in sorted(running, key=lambda one: one[1].started, reverse=True)]


def start(session: Session, engine: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> Process:
    """Start a process in a session of its own, its output in a log file. The caller holds the session's lock."""
    log = session.log(engine)
    words = [os.fspath(word) for word in command]
    # Not subprocess.Popen: it warns when its object goes while the process stays, which here is the purpose.
    pid = os.posix_spawn(
        words[0],
        words,
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM],
    )
    process = Process.of(pid)
    session.record(engine).write_text(json.dumps(asdict(process)), encoding="utf-8")
    return process


def wait_until_ready(
    session: Session, engine: str, process: Process, ready: Callable[[], bool], *, seconds: float = STARTS_WITHIN
) -> None:
    """Wait until the engine answers; one that ends or never answers is an error, and does not stay behind."""
    until = time.monotonic() + seconds
    while not ready():
        ended = not process.alive()
        if ended or time.monotonic() > until:
            stop(session, engine)
            said = session.log(engine).read_text(encoding="utf-8", errors="replace").splitlines()
            how = "ended" if ended else f"did not answer for {seconds:.0f} s"
            raise EngineError("\n".join([f"{engine} {how}. Its log:", *said[-15:]]))
        time.sleep(0.05)


def stop(session: Session, engine: str, *, grace: float = GRACE) -> bool:
    """End an engine with its children; whether there was anything to end."""
    process = recorded(session, engine)
    if process is not None:
        children = [*descendants(process.pid)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        until = time.monotonic() + grace
        while process.alive() and time.monotonic() < until:
            time.sleep(0.05)
        kill([process, *children])
        with contextlib.suppress(ChildProcessError):  # not ours to reap if another process started it
            os.waitpid(process.pid, 0)
    session.record(engine).unlink(missing_ok=True)
    return process is not None


def descendants(pid: int) -> Iterable[Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield Process.of(child.pid)


def kill(processes: Sequence[Process]) -> None:
    """Kill those that still live, and wait until they are gone."""
    for process in processes:
        if process.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + GRACE
    while any(process.alive() for process in processes) and time.monotonic() < until:
        time.sleep(0.02)
