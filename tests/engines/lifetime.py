"""From the first engine that a run needs to the last trace of it.

A run that may need engines has a session. Its process holds a lock on `alive` in the session's folder; the kernel lets
go of it when the process ends, however it ends. A folder whose lock can be had is therefore a dead run's, and whoever
begins a session clears it away.
"""

import fcntl
import os
import secrets
import shutil
from pathlib import Path

from filelock import FileLock

from tests.engines import leftovers, network, node, processes, session
from tests.engines.daemons import DAEMONS
from tests.engines.session import Session, machine_lock

BY_HAND = "by-hand"
"""The session of a person: who said `up` says `down`."""

_held: dict[Path, int] = {}
"""The locks that keep sessions of this process alive; closed by `end`."""


def begin() -> Session:
    """Begin the session of this process, which ends it; clear away what dead ones have left."""
    with machine_lock() as folder:
        _sweep()
        own = folder / secrets.token_hex(4)  # containerd and interfaces take no underscores, as of tempfile
        own.mkdir(mode=0o700)
        made = session.make(own)
        alive = os.open(made.folder / "alive", os.O_CREAT | os.O_RDWR)
        fcntl.flock(alive, fcntl.LOCK_EX)
        _held[made.folder] = alive
    return made


def by_hand() -> Session:
    """The session that lasts until `python -m tests.engines down`."""
    with machine_lock() as folder:
        _sweep()
        (folder / BY_HAND).mkdir(exist_ok=True)
        return session.make(folder / BY_HAND)


def need(used: Session, engine: str) -> str:
    """Return the address of an engine, started if it does not run yet. Raises EngineError when it does not start."""
    with FileLock(used.folder / "lock"):
        return _need(used, engine)


def _need(used: Session, engine: str) -> str:
    daemon = DAEMONS[engine]
    for first in daemon.needs:
        _need(used, first)
    if processes.recorded(used, engine) is None:
        used.address(engine).unlink(missing_ok=True)
        used.address(engine).write_text(daemon.start(used), encoding="utf-8")
    return used.address(engine).read_text(encoding="utf-8")


def end(ended: Session) -> list[str]:
    """End all processes that a session recorded and remove all that they stored; the names of those that ran.

    All of them, not only those of `DAEMONS`: tests record further ones, and so may another version of these files.
    """
    stopped = processes.all_recorded(ended)
    for name in stopped:
        if name in DAEMONS:
            DAEMONS[name].before_stop(ended)
        processes.stop(ended, name)
    leftovers.remove(ended)
    network.remove(ended)
    node.remove(ended)
    shutil.rmtree(ended.data, ignore_errors=True)
    shutil.rmtree(ended.folder, ignore_errors=True)
    if (alive := _held.pop(ended.folder, None)) is not None:
        os.close(alive)
    return stopped


def sweep() -> list[str]:
    """Clear away the sessions of dead owners; their names."""
    with machine_lock():
        return _sweep()


def _sweep() -> list[str]:
    dead = [each for each in session.all_sessions() if each.name != BY_HAND and not _alive(each)]
    for each in dead:
        end(each)
    return [each.name for each in dead]


def _alive(asked: Session) -> bool:
    try:
        alive = os.open(asked.folder / "alive", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(alive)
