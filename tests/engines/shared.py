"""Engines shared by all who test on this machine at a time: started by the first who needs one, ended by the last."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from tests.engines import processes
from tests.engines.daemons import DAEMONS, address_file
from tests.engines.places import data, running
from tests.engines.processes import Process, recorded

HELD = "held"
"""The user that stands for a person: who said `up` says `down`."""


@contextlib.contextmanager
def locked() -> Iterator[Path]:
    """Hold the lock of all engines; yields the folder of their users."""
    running().mkdir(mode=0o700, exist_ok=True)
    with FileLock(running() / "lock"):
        users = running() / "users"
        users.mkdir(exist_ok=True)
        yield users


def owner() -> str:
    """Who uses the engines: the process that runs the tests, or under xdist the one that controls the workers."""
    return os.environ.get("MLSTACK_ENGINES_OWNER") or name_of(Process.of(os.getpid()))


def name_of(process: Process) -> str:
    return f"{process.pid}-{process.started}"


def need(name: str, user: str) -> str:
    """Return the address of an engine, started if it does not run yet. Raises EngineError when it does not start."""
    with locked() as users:
        (users / user).touch()
        if recorded(name) is None:
            address_file(name).unlink(missing_ok=True)
            address_file(name).write_text(DAEMONS[name].start(), encoding="utf-8")
        return address_file(name).read_text(encoding="utf-8")


def release(user: str) -> None:
    """Give up the engines; they end with their last living user."""
    if not (running() / "users").exists():
        return
    with locked() as users:
        (users / user).unlink(missing_ok=True)
        for left in users.iterdir():
            if left.name != HELD and not _lives(left.name):
                left.unlink()
        if not any(users.iterdir()):
            _stop_all()


def stop_all() -> list[str]:
    """End every engine, whoever uses it; the names of those that ran."""
    with locked() as users:
        shutil.rmtree(users)
        return _stop_all()


def _lives(user: str) -> bool:
    pid, _, started = user.partition("-")
    return Process(int(pid), float(started)).alive()


def _stop_all() -> list[str]:
    stopped = []
    for daemon in reversed(DAEMONS.values()):
        if recorded(daemon.name) is not None:
            daemon.before_stop()
            processes.stop(daemon.name)
            stopped.append(daemon.name)
        daemon.after_stop()
        address_file(daemon.name).unlink(missing_ok=True)
    shutil.rmtree(data(), ignore_errors=True)
    return stopped
