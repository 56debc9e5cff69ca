"""One attempt at one stage: its commands under common limits, followed to their end.

Shared by the process around a stage on this machine (`mlstack.drivers.local.launch`) and the runner elsewhere. It must
be there in milliseconds, so it imports only what costs nothing (not `json`, `signal`, `subprocess`, `typing`).
"""
# pathlib and contextlib take longer to import than this program has time:

from __future__ import annotations

import os
import select
import time

from .processes import MARK, Group, kill_marked, out_of_memory_kills, signal, spawn

CHUNK = 65536
LINGER = 1.0  # seconds that processes left behind by a command that ended get to finish, a `tee` for example
AFTER_TERM = 2.0  # ... and then, between SIGTERM and SIGKILL
AFTER_KILL = 5.0  # seconds after SIGKILL until a process that cannot be ended is given up
LOOK_AGAIN_MS = 20.0
WATCHED_FILES = 10_000
KILLED_BY_OTHERS = "mlstack did not send that; a person did, or a guard of memory such as systemd-oomd"


class Limits:
    """What an attempt runs, and what ends it: times in seconds, None for never.

    `watch` is the folder in which a change counts as a sign of life ("": none), `folder` the one in which whoever
    cancels may leave another grace ("": none).
    """

    commands: list[bytes]
    env: dict[bytes, bytes]
    watch: str = ""
    folder: str = ""
    grace: float = 0.0
    run_timeout: float | None = None
    hang_timeout: float | None = None


class Output:
    """Where the output of an attempt goes."""

    def write(self, data: bytes) -> None:
        """Take one chunk of output; empty at its end."""
        raise NotImplementedError


class Liveliness:
    """When a run last did something: output, or a change in its checkpoint folder (sampled)."""

    def __init__(self, folder: str, quiet: float | None) -> None:
        self.output_at = self._looked_at = self._changed_at = time.monotonic()
        self._folder = folder
        self._quiet = quiet
        self._seen = activity(folder)
        self._every = min(30.0, (quiet or 0.0) / 4)

    def next_look(self) -> float | None:
        """Return when to call `hangs` again, None for never."""
        if self._quiet is None:
            return None
        due = max(self.output_at, self._changed_at) + self._quiet
        return min(due, self._looked_at + self._every) if self._folder else due

    def hangs(self, now: float) -> bool:
        """Whether nothing has happened for too long."""
        if self._quiet is None:
            return False
        due = now - max(self.output_at, self._changed_at) >= self._quiet
        if self._folder and (due or now - self._looked_at >= self._every):
            self._looked_at = now
            seen = activity(self._folder)
            if seen != self._seen:
                self._seen, self._changed_at = seen, now
                return False
        return due


def activity(folder: str) -> tuple[int, int]:
    """Return the newest change below a folder (nanoseconds) and the number of files: what changes with a checkpoint."""
    newest = count = 0
    waiting = [folder] if folder else []
    while waiting and count < WATCHED_FILES:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    newest = max(newest, entry.stat(follow_symlinks=False).st_mtime_ns)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
    return newest, count


class Run:
    """One attempt at one stage: its commands, one after the other, under common limits."""

    output_within = LINGER
    """Seconds that the last output may take to arrive after the end."""

    def __init__(self, limits: Limits, log: Output, wake: int) -> None:
        self.cause = ""
        self.exit_code: int | None = None
        self.detail = ""
        self.max_rss = 0
        self._limits = limits
        self._log = log
        self._wake = wake
        self._mark = limits.env.get(MARK.encode(), b"")
        self._began = time.monotonic()
        self._life = Liveliness(limits.watch, limits.hang_timeout)
        self._starved_before = self._count_starved()

    def carry_out(self) -> None:
        """Run all commands; stop at the first that fails."""
        for command in self._limits.commands:
            self._run(command)
            if self.cause:
                break

    def _run(self, command: bytes) -> None:
        reading, writing = os.pipe()
        try:
            group = self._spawn(command, writing)
        except OSError as error:
            os.close(reading)
            self.cause, self.exit_code = "error", 126
            self.detail = f"the command could not be started: {error.strerror}"
            return
        finally:
            os.close(writing)
        try:
            self._follow(group, reading)
        finally:
            os.close(reading)
        self._judge(group)

    def _spawn(self, command: bytes, output: int) -> Group:
        """Start one command. Raises OSError."""
        return spawn(command, self._limits.env, output)

    def _count_starved(self) -> int:
        """Return how many processes the kernel has ended for lack of memory so far."""
        return out_of_memory_kills()

    def _follow(self, group: Group, reading: int) -> None:
        """Read output until the command has ended and nothing of it is left."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(reading, select.POLLIN)
        is_open = True
        ended_at: float | None = None
        while True:
            ready = {fd for fd, _ in poll.poll(self._wait_for(group, ended=ended_at is not None))}
            now = time.monotonic()
            if self._wake in ready:
                self._hear(group, os.read(self._wake, 512))
            if reading in ready:
                data = os.read(reading, CHUNK)
                self._life.output_at = now
                self._log.write(data)
                if not data:
                    is_open = False
                    poll.unregister(reading)
            if group.reap() and ended_at is None:
                ended_at = now
            self._enforce(group, now)
            if ended_at is not None and self._is_over(group, ended_at, is_open=is_open):
                return

    def _hear(self, group: Group, numbers: bytes) -> None:
        """React to signals that this process got."""
        if signal.SIGTERM in numbers:
            self._stop(group, "cancelled", self._grace_of_cancel())

    def _wait_for(self, group: Group, *, ended: bool) -> float | None:
        """Return for how many milliseconds nothing needs to be looked at but the output."""
        if ended or group.killed_at is not None:
            return LOOK_AGAIN_MS
        if group.kill_at is not None:
            moments = [group.kill_at]
        else:
            limit = self._limits.run_timeout
            due = [None if limit is None else self._began + limit, self._life.next_look()]
            moments = [moment for moment in due if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) * 1000 + 1 if moments else None

    def _enforce(self, group: Group, now: float) -> None:
        """Apply the timeouts, and SIGKILL when the grace is over."""
        if group.kill_at is not None:
            if now >= group.kill_at and group.killed_at is None:
                group.kill()
                kill_marked(self._mark)
        elif group.status is None:
            limit = self._limits.run_timeout
            if limit is not None and now - self._began >= limit:
                self._stop(group, "timeout", self._limits.grace)
            elif self._life.hangs(now):
                self._stop(group, "hang", self._limits.grace)

    def _stop(self, group: Group, cause: str, grace: float) -> None:
        if group.status is None and not self.cause:
            self.cause = cause
        group.ask_to_end(grace)

    def _is_over(self, group: Group, ended_at: float, *, is_open: bool) -> bool:
        """Whether nothing is left to wait for after the command itself ended."""
        now = time.monotonic()
        if group.killed_at is not None and now - group.killed_at >= AFTER_KILL:
            self.detail = "a process of this stage could not be ended"
            return True
        if not group.alive():
            if self.cause:
                kill_marked(self._mark)  # what daemonised is part of what is stopped
            # Otherwise what still holds the pipe left the group on purpose: it is not waited for.
            return not is_open or now - ended_at >= self.output_within
        if group.kill_at is None and now - ended_at >= LINGER:
            self.detail = "processes that the command left running were ended"
            group.ask_to_end(AFTER_TERM)
        return False

    def _grace_of_cancel(self) -> float:
        """Return the grace that whoever cancels asked for."""
        try:
            with open(f"{self._limits.folder}/cancel", "rb") as file:
                return float(file.read())
        except (OSError, ValueError):
            return self._limits.grace

    def _judge(self, group: Group) -> None:
        """Set exit code, cause and detail from how the leader ended."""
        code = os.waitstatus_to_exitcode(group.status or 0)
        self.exit_code = 128 - code if code < 0 else code
        self.max_rss = max(self.max_rss, group.max_rss)
        if self.cause:
            if self.exit_code == 0:
                self.exit_code = None  # it was stopped before it was through: an orderly exit is no success
            if group.killed_at is not None and not self.detail:
                self.detail = "it did not end within its grace and was killed"
            return
        starved = self._count_starved() > self._starved_before
        if self.exit_code == 128 + signal.SIGKILL:
            self.cause = "out-of-memory" if starved else "error"
            self.detail = "the kernel ended it for lack of memory" if starved else KILLED_BY_OTHERS
        elif self.exit_code != 0:
            self.cause = "error"
            if starved:
                self.detail = "meanwhile the kernel ended a process on this machine for lack of memory"
