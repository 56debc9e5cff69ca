"""Following and ending the process around a stage, whoever started it."""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from mlstack.drivers.local.run_folder import CANCEL, read_order, read_result, running_pid
from mlstack.runner.processes import kill_marked
from mlstack.state.identity import host_name, is_running
from mlstack.state.state import RunRecord

_NEW_PROCESS_GETS = 5.0  # seconds until a process that was just started must have shown itself


class RunWatch:
    """Tells when the process of a run is over: at once where the system can wake us, else by looking."""

    def __init__(self, run: RunRecord, folder: Path, child: subprocess.Popen[bytes] | None) -> None:
        self._run = run
        self._folder = folder
        self._child = child
        self._pid = child.pid if child is not None else run.pid
        self._handle = self._open()

    def ended(self, seconds: float) -> bool:
        """Wait up to so many seconds; return whether the run is over."""
        if self._child is not None:
            return self._child_ended(self._child, seconds)
        if self._handle >= 0:
            if not _is_readable(self._handle, seconds):
                return False
            self._close()
        until = time.monotonic() + seconds
        while self._goes_on():
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(0.02, left))
        return True

    def kill(self) -> None:
        """Kill the process around the stage; what it started is found by its mark."""
        pid = self._child.pid if self._child is not None else _process_of(self._run, self._folder)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end_what_is_left(self._folder)

    def _child_ended(self, child: subprocess.Popen[bytes], seconds: float) -> bool:
        if self._handle >= 0 and not _is_readable(self._handle, seconds):
            return False
        try:
            child.wait(None if self._handle >= 0 else seconds)
        except subprocess.TimeoutExpired:
            return False
        self._close()
        return True

    def _open(self) -> int:
        """Return a handle of the process that becomes readable when it ends; -1 where there is no such thing."""
        if self._pid is None or not hasattr(os, "pidfd_open"):
            return -1
        try:
            handle = os.pidfd_open(self._pid)
        except OSError:
            return -1
        if self._child is None and running_pid(self._folder) != self._pid:
            os.close(handle)  # a process of another run, or the number was given to somebody else
            return -1
        return handle

    def _goes_on(self) -> bool:
        """Whether somebody carries out this run: he holds its lock, or has not come so far yet."""
        if running_pid(self._folder) is not None:
            return True
        if self._run.pid is None or self._run.started is None or read_result(self._folder) is not None:
            return False
        is_new = time.time() - self._run.started < _NEW_PROCESS_GETS
        return is_new and is_running(self._run.pid, self._run.started)

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self._close()


def _is_readable(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def ask_to_end(run: RunRecord, folder: Path, grace: float) -> None:
    """Send SIGTERM to the process around the stage, which passes it on and sees to the grace."""
    with suppress(OSError):  # a full disk: then the grace is the stage's own
        (folder / CANCEL).write_text(repr(grace), encoding="utf-8")
    pid = _process_of(run, folder)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _process_of(run: RunRecord, folder: Path) -> int | None:
    """Return the process that carries out a run: by its lock, and by the record only if it is that very process."""
    holder = running_pid(folder)
    if holder != 0:
        return holder
    is_recorded = run.pid is not None and run.started is not None and is_running(run.pid, run.started)
    return run.pid if is_recorded else None


def end_what_is_left(folder: Path) -> None:
    """Kill what is left of a run whose own process could not see to it any more."""
    order = read_order(folder)
    if order is not None and order.host == host_name():
        kill_marked(order.mark.encode())
