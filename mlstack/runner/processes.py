"""The processes of a stage: their group, those that left it, and what the kernel did to them.

Imported by `launch`, so only what costs nothing at start is imported here.
"""
# pathlib and contextlib take longer to import than this program has time:
# ruff: noqa: SIM105

from __future__ import annotations

import os
import sys
import time

# The public `signal` wraps this built-in module in enums, which costs 4 ms of the 10 that there are.
try:
    signal = __import__("_signal")
except ImportError:  # an interpreter without it
    import signal

MARK = "MLSTACK_RUN"
"""The variable by which the processes of one run are found again, whatever group or session they moved to."""

_HAS_PROC = os.path.isdir("/proc/self")
_DEFAULTS = ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP")


class Group:
    """The processes of one command: a process group, led by its shell."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.max_rss = 0
        self.kill_at: float | None = None
        self.killed_at: float | None = None

    def reap(self) -> bool:
        """Collect the leader if it ended; return whether it has."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                self.max_rss = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return self.status is not None

    def ask_to_end(self, grace: float) -> None:
        """Send SIGTERM; `grace` seconds later SIGKILL is due. Asking again can only shorten that."""
        due = time.monotonic() + grace
        self.kill_at = due if self.kill_at is None else min(self.kill_at, due)
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a stopped process could not end

    def kill(self) -> None:
        """Send SIGKILL to all of them."""
        self.killed_at = time.monotonic()
        self.send(signal.SIGKILL)

    def alive(self) -> bool:
        """Whether any of them still runs; a zombie that nobody collects does not count."""
        if self.status is None:
            return True
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return not _HAS_PROC or bool(members(self.pid))

    def send(self, number: int) -> None:
        """Send a signal to all of them; nobody there is fine."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def spawn(command: bytes, environment: dict[bytes, bytes], output: int, *, before: tuple[bytes, ...] = ()) -> Group:
    """Start `/bin/sh -c command` in a process group of its own, with its output going to `output`.

    `before` is a program with its first arguments that is started instead, and goes over into the shell.

    Always `/bin/sh`, as make and containers do: DVC takes the person's login shell, with which the same commit would
    mean different things on two machines. Raises OSError.
    """
    arguments = [*before, b"/bin/sh", b"-c", command]
    pid = os.posix_spawn(
        arguments[0],
        arguments,
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
        setpgroup=0,
        setsigmask=[],
        setsigdef=[getattr(signal, name) for name in _DEFAULTS],
    )
    return Group(pid)


def members(group: int) -> list[int]:
    """Return the processes of a process group that are not zombies (Linux)."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields and fields[0] not in {b"Z", b"X"} and int(fields[2]) == group:
                found.append(int(name))
    return found


def marked(mark: bytes) -> list[int]:
    """Return the processes that were started with this run's mark in their environment (Linux)."""
    found: list[int] = []
    if not (_HAS_PROC and mark):
        return found
    needle = b"\0" + MARK.encode() + b"=" + mark + b"\0"
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    environ = file.read()
            except OSError:
                continue
            if needle in b"\0" + environ + b"\0":
                found.append(int(name))
    return found


def kill_marked(mark: bytes) -> int:
    """Kill whatever is left of a run, those that daemonised too; return how many there were."""
    killed = 0
    for _ in range(5):  # one that is just starting another is caught by the next round
        found = marked(mark)
        if not found:
            break
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.01)
    return killed


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has ended for lack of memory since it started (Linux), else 0."""
    try:
        with open("/proc/vmstat", "rb") as file:
            return int(file.read().partition(b"\noom_kill ")[2].split(b"\n", 1)[0] or 0)
    except (OSError, ValueError):
        return 0
