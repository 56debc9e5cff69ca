"""The whole way of one attempt: order, code, inputs, checkpoint, command, outputs, result.

It can be killed anywhere and started again: what is in the remote is whole, what is here is checked, and the result
record, written last and only if there is none, is what makes the run done.

Exit codes: that of the command; 0 also when another attempt has succeeded before. 124 timeout, 125 hang, 137 out of
memory, 143 asked to end; 120 the remote does not answer, 121 the order cannot be followed as it is, 122 superseded.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from .attempt import ENDING, PASSED_ON, Attempt
from .bundle import unpack_bundle
from .checkpoint import Checkpoints
from .command import Limits
from .fetch import Fetcher
from .fetch_order import FETCH, fetch_contents
from .keeper import BEAT_EVERY, Keeper, new_instance
from .layout import RunKeys
from .log import RunLog
from .order import Order, decode_order
from .problems import Problem
from .processes import MARK, signal
from .push import describe, push
from .record import End, Heartbeat, Made, decode_end, encode_record
from .secret_patterns import patterns_of
from .store import CREDENTIALS, PATIENCE, Store
from .workplace import Workplace, default_work, parse_user

CODES = {
    "timeout": 124,
    "hang": 125,
    "out-of-memory": 137,
    "stopped": 143,
    "storage": 120,
    "refused": 121,
    "superseded": 122,
}
_CREDENTIALS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_SERVICE_ACCOUNT_KEY",
)  # fmt: skip


class Signals:
    """Signals as bytes that can be polled; `interrupt` is set by one that asks to end, as long as `may_interrupt`."""

    def __init__(self) -> None:
        self.interrupt = threading.Event()
        self.may_interrupt = True
        self.wake, writing = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (*ENDING, *PASSED_ON, signal.SIGCHLD):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        if number in ENDING and self.may_interrupt:
            self.interrupt.set()


class Runner:
    """One attempt at one order."""

    def __init__(self, order: Order, store: Store, signals: Signals, *, environment: Mapping[str, str]) -> None:
        self._order = order
        self._store = store
        self._signals = signals
        self._environment = environment
        self._keys = RunKeys(order.run)
        self._rank = int(environment.get("MLSTACK_NODE_RANK") or environment.get("JOB_COMPLETION_INDEX") or 0)
        self._number = int(environment.get("MLSTACK_ATTEMPT") or 1)
        self._instance = new_instance() + (f"-{self._rank}" if self._rank else "")
        self._began = time.time()
        self._phases: dict[str, float] = {}
        self._phase_began = ("", 0.0)
        beat = Heartbeat(
            attempt=self._number,
            instance=self._instance,
            started=self._began,
            at=self._began,
            every=float(environment.get("MLSTACK_RUNNER_BEAT") or BEAT_EVERY),
            phase="start",
            host=platform.node(),
        )
        self._log = RunLog(self._keys, beat.name, _masks(order, environment))
        self._keeper = Keeper(store, self._keys, self._log, beat, superseded=self._supersede)
        self._checkpoints: Checkpoints | None = None
        self._attempt: Attempt | None = None
        self._superseded = False

    def run(self) -> int:
        """Carry the order out; return the exit code of this process."""
        try:
            if self._is_done():
                return 0
        except Problem as problem:
            return self._finish(problem.cause, None, problem.detail)
        if self._rank == 0:
            self._keeper.start()
        try:
            outs = self._work()
        except Problem as problem:
            cause = "superseded" if self._superseded and problem.cause == "stopped" else problem.cause
            return self._finish(cause, getattr(self._attempt, "exit_code", None), problem.detail)
        except OSError as error:  # a full disk, most of all
            where = f"{error.filename}: " if error.filename else ""
            return self._finish("error", None, f"{where}{error.strerror or error}")
        except Exception as error:
            self._finish("error", None, f"a bug in the runner: {type(error).__name__}: {error}")
            raise
        return self._finish(None, 0, "", outs)

    def _is_done(self) -> bool:
        """Whether a success is recorded already: then there is nothing to do."""
        data = self._store.get(self._keys.result)
        if data is None:
            return False
        found = decode_end(data)
        if found is None:
            raise Problem("refused", f"{self._keys.result} is there, but no record that this runner understands")
        self._log.say(f"attempt {found.attempt} has done this run: nothing to do")
        return True

    def _work(self) -> tuple[Made, ...]:
        order = self._order
        self._phase("fetch")
        user = parse_user(order.user)
        place = Workplace(default_work(self._environment))
        variables = place.variables(order, self._environment, attempt=self._number)
        place.clear(order)
        unpack_bundle(self._store, order.bundle, place.project, scratch=place.scratch, say=self._log.say)
        fetcher = Fetcher(self._store, place.project, place.scratch, say=self._log.say, stop=self._signals.interrupt)
        fetched = fetcher.bring(order.inputs)
        self._log.say(f"{len(order.inputs)} inputs checked, {fetched} files fetched")
        if order.checkpoint is not None:
            folder = os.path.join(place.project, order.checkpoint.path)
            self._checkpoints = Checkpoints(self._store, self._keys, folder, say=self._log.say)
            self._checkpoints.bring(place.scratch)
        cwd = place.make_ready(order)
        if user is not None:
            place.give_to(user)
        self._command(place, variables, cwd=cwd, user=user)
        if self._rank != 0:
            return ()
        self._phase("push")
        contents = [describe(place.project, out) for out in order.outs]
        pushed = push(self._store, contents, say=self._log.say)
        self._log.say(f"{len(contents)} outputs hashed, {pushed} objects pushed")
        return tuple(content.made for content in contents)

    def _command(self, place: Workplace, variables: dict[str, str], *, cwd: str, user: tuple[int, int] | None) -> None:
        """Run the commands. Raises `Problem` with the cause when they do not succeed."""
        order = self._order
        limits = Limits()
        limits.commands = [os.fsencode(command) for command in order.commands]
        limits.env = {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
        limits.env[MARK.encode()] = self._instance.encode()
        limits.grace, limits.run_timeout, limits.hang_timeout = order.grace, order.run_timeout, order.hang_timeout
        if order.checkpoint is not None:
            limits.watch = os.path.join(place.project, order.checkpoint.path)
        self._phase("run")
        self._signals.may_interrupt = False
        if self._signals.interrupt.is_set():
            raise Problem("stopped", "it was asked to end before its command began")
        os.chdir(cwd)
        self._attempt = attempt = Attempt(limits, self._log, self._signals.wake, user=user)
        if self._checkpoints is not None and order.checkpoint is not None and self._rank == 0:
            self._keeper.watch(self._checkpoints, every=order.checkpoint.every)
        try:
            attempt.carry_out()
        finally:
            self._log.write(b"")
            os.chdir("/")
        if attempt.cause:
            raise Problem(attempt.cause, attempt.detail)

    def _finish(self, cause: str | None, code: int | None, detail: str, outs: tuple[Made, ...] = ()) -> int:
        """Record how it ended; return the exit code. What cannot be recorded is no success."""
        self._signals.may_interrupt = False
        self._signals.interrupt.clear()
        self._phase("finish" if cause is None else "failed")
        if cause is not None:
            self._log.say(f"{cause}: {detail}" if detail else cause)
        try:
            if cause is not None and cause != "superseded" and self._checkpoints is not None and self._rank == 0:
                self._keep_last()
            end = self._end(cause, code, detail, outs)
            if cause is None and self._rank == 0:
                self._record(end)
            self._leave(end)
        except Problem as problem:
            self._log.say(f"{problem.cause}: {problem.detail}")
            cause, code = cause or problem.cause, code or None
        finally:
            self._keeper.stop()
        _tell_pod(self._environment, cause, detail)
        return CODES.get(cause or "", code or 1) if cause is not None else 0

    def _keep_last(self) -> None:
        assert self._checkpoints is not None  # noqa: S101 - asked before
        if self._checkpoints.keep(final=True):
            self._log.say("checkpoint kept")

    def _record(self, end: End) -> None:
        """Write the result, which makes the run done; another attempt may have been faster."""
        if not self._store.create(self._keys.result, encode_record(end)):
            data = self._store.get(self._keys.result)
            other = decode_end(data) if data is not None else None
            if other is None:
                raise Problem("refused", f"{self._keys.result} is there, but no record that this runner understands")
            same = {(out.path, out.md5) for out in other.outs} == {(out.path, out.md5) for out in end.outs}
            note = "with the same outputs" if same else "with OTHER outputs, which are the ones that count"
            self._log.say(f"attempt {other.attempt} was faster, {note}")
        if self._checkpoints is not None:
            self._checkpoints.drop()

    def _leave(self, end: End) -> None:
        self._log.upload(self._store)
        self._store.put(self._keys.end(end.name), encode_record(end))

    def _end(self, cause: str | None, code: int | None, detail: str, outs: tuple[Made, ...]) -> End:
        return End(
            address=self._order.address,
            fingerprint=self._order.fingerprint,
            attempt=self._number,
            instance=self._instance,
            cause=cause,
            exit_code=code,
            detail=detail,
            started=self._began,
            ended=time.time(),
            phases=dict(self._phases),
            max_rss=getattr(self._attempt, "max_rss", 0),
            log_parts=self._log.parts,
            log_lost=self._log.lost,
            machine=_describe_machine(self._environment),
            outs=outs,
            bundle=self._order.bundle,
        )

    def _phase(self, name: str) -> None:
        now = time.monotonic()
        before, began = self._phase_began
        if before:
            self._phases[before] = self._phases.get(before, 0.0) + now - began
        self._phase_began = (name, now)
        self._keeper.phase(name)

    def _supersede(self) -> None:
        self._superseded = True
        if self._attempt is not None:
            self._attempt.superseded = True
        os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the order that the first argument or MLSTACK_ORDER names: a file, or the URL of an object.

    `fetch` as the first argument only brings contents (`fetch_order.py`).
    """
    signals = Signals()
    patience = float(environment.get("MLSTACK_RUNNER_PATIENCE") or PATIENCE)
    source = arguments[0] if arguments else environment.get("MLSTACK_ORDER", "")
    options: dict[str, Any] = {"environment": environment, "patience": patience, "stop": signals.interrupt}
    try:
        if source == FETCH:
            fetch_contents(options)
            return 0
        order = decode_order(_read_order(source, options))
        store = Store(order.remote.url, order.remote.config, **options)
    except Problem as problem:
        sys.stderr.write(f"mlstack: {problem.cause}: {problem.detail}\n")
        _tell_pod(environment, problem.cause, problem.detail)
        return CODES.get(problem.cause, 1)
    code = Runner(order, store, signals, environment=environment).run()
    _keep_failed(code, signals, environment)
    return code


def _keep_failed(code: int, signals: Signals, environment: Mapping[str, str]) -> None:
    """Leave the place of a failure as it is for MLSTACK_KEEP_FAILED seconds, for whoever wants to look into it."""
    seconds = float(environment.get("MLSTACK_KEEP_FAILED") or 0)
    if code and code not in {CODES["stopped"], CODES["superseded"]} and seconds:
        sys.stdout.write(f"mlstack: the place of this failure is kept for {seconds:g} s\n")
        sys.stdout.flush()
        signals.may_interrupt = True
        signals.interrupt.wait(seconds)


def _read_order(source: str, options: dict[str, Any]) -> bytes:
    if not source:
        raise Problem("refused", "there is no order: give its file or URL, or set MLSTACK_ORDER")
    if "://" not in source:
        try:
            with open(source, "rb") as file:
                return file.read()
        except OSError as error:
            raise Problem("refused", f"the order {source} cannot be read: {error.strerror}") from error
    folder, _, name = source.rpartition("/")
    data = Store(folder, **options).get(name)
    if data is None:
        raise Problem("refused", f"there is no order at {source}")
    return data


def _masks(order: Order, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    names = [*order.secrets, *_CREDENTIALS, *(name for name in environment if name.startswith(CREDENTIALS))]
    found = {pattern for name in names for pattern in patterns_of(environment.get(name, ""))}
    return tuple(sorted(found, key=lambda pattern: (-len(pattern), pattern)))


def _describe_machine(environment: Mapping[str, str]) -> dict[str, str]:
    found = {"host": platform.node(), "system": platform.platform(), "processor": platform.machine()}
    found["cores"] = str(os.cpu_count() or 0)
    return {**found, **{name: environment[name] for name in ("MLSTACK_IMAGE", "MLSTACK_NODE") if name in environment}}


def _tell_pod(environment: Mapping[str, str], cause: str | None, detail: str) -> None:
    """Leave a word where Kubernetes shows it."""
    path = environment.get("MLSTACK_RUNNER_LAST_WORD") or "/dev/termination-log"
    if cause is not None and os.path.exists(path) and os.access(path, os.W_OK):
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{cause}: {detail}"[:4000])
