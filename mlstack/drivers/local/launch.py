"""The process around one stage: starts its command, keeps its log, enforces its limits, writes its result.

It is started by `mlstack.drivers.local.stages` in a session of its own and outlives mlstack. It runs as
`python -I -S` and must be there in milliseconds, so it imports only what costs nothing (not `json`, `signal`,
`subprocess`, `typing`); its order comes over standard input as NUL-terminated fields, since it may hold secret values
that belong in no file. Every byte of output is masked before it is written.
"""
# pathlib and contextlib take longer to import than this program has time:
# ruff: noqa: PTH123

import os
import select
import time

from mlstack.drivers.local.run_files import Log, ResultFile
from mlstack.drivers.local.run_processes import MARK, Group, kill_marked, out_of_memory_kills, signal, spawn
from mlstack.drivers.masking import StreamMasker

CHUNK = 65536
LINGER = 1.0  # seconds that processes left behind by a command that ended get to finish, a `tee` for example
AFTER_TERM = 2.0  # ... and then, between SIGTERM and SIGKILL
AFTER_KILL = 5.0  # seconds after SIGKILL until a process that cannot be ended is given up
LOOK_AGAIN_MS = 20.0
WATCHED_FILES = 10_000
KILLED_BY_OTHERS = "mlstack did not send that; a person did, or a guard of memory such as systemd-oomd"


class Order:
    """What to do, as read from standard input. Repeated fields are `command`, `env` and `mask`."""

    def __init__(self, data: bytes) -> None:
        parts = data.split(b"\0")
        pairs = list(zip(parts[0::2], parts[1::2], strict=False))
        if not pairs or pairs[-1][0] != b"end":
            raise ValueError("the order is not complete")
        self._fields = dict(pairs)
        self.commands = [value for name, value in pairs if name == b"command"]
        self.masks = tuple(value for name, value in pairs if name == b"mask")
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

    def __init__(self, order: Order, log: Log, wake: int) -> None:
        self.cause = ""
        self.exit_code: int | None = None
        self.detail = ""
        self.max_rss = 0
        self._order = order
        self._log = log
        self._wake = wake
        self._mark = order.env.get(MARK.encode(), b"")
        self._began = time.monotonic()
        self._life = Liveliness(order.watch, order.hang_timeout)
        self._oom_before = out_of_memory_kills()

    def carry_out(self) -> None:
        """Run all commands; stop at the first that fails."""
        for command in self._order.commands:
            self._run(command)
            if self.cause:
                break

    def _run(self, command: bytes) -> None:
        reading, writing = os.pipe()
        try:
            group = spawn(command, self._order.env, writing)
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
            if self._wake in ready and signal.SIGTERM in os.read(self._wake, 512):
                self._stop(group, "cancelled", self._grace_of_cancel())
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

    def _wait_for(self, group: Group, *, ended: bool) -> float | None:
        """Return for how many milliseconds nothing needs to be looked at but the output."""
        if ended or group.killed_at is not None:
            return LOOK_AGAIN_MS
        if group.kill_at is not None:
            moments = [group.kill_at]
        else:
            limit = self._order.run_timeout
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
            limit = self._order.run_timeout
            if limit is not None and now - self._began >= limit:
                self._stop(group, "timeout", self._order.grace)
            elif self._life.hangs(now):
                self._stop(group, "hang", self._order.grace)

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
            return not is_open or now - ended_at >= LINGER
        if group.kill_at is None and now - ended_at >= LINGER:
            self.detail = "processes that the command left running were ended"
            group.ask_to_end(AFTER_TERM)
        return False

    def _grace_of_cancel(self) -> float:
        """Return the grace that whoever cancels asked for."""
        try:
            with open(f"{self._order.folder}/cancel", "rb") as file:
                return float(file.read())
        except (OSError, ValueError):
            return self._order.grace

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
        starved = out_of_memory_kills() > self._oom_before
        if self.exit_code == 128 + signal.SIGKILL:
            self.cause = "out-of-memory" if starved else "error"
            self.detail = "the kernel ended it for lack of memory" if starved else KILLED_BY_OTHERS
        elif self.exit_code != 0:
            self.cause = "error"
            if starved:
                self.detail = "meanwhile the kernel ended a process on this machine for lack of memory"


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


def main() -> None:
    """Carry out the order on standard input. Ends without cleaning up the interpreter, which costs milliseconds."""
    wake = listen()
    order = read_order()
    keep_lock(int(order.text("lock")))
    result = ResultFile(order.folder)
    masker = StreamMasker(order.masks)
    log = Log(order.folder, masker, head=int(order.text("log_head")), part=int(order.text("log_part")))
    began, clock = time.time(), time.monotonic()
    run = Run(order, log, wake)
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
