"""The lock of an environment: at most one apply at a time, on whichever machine.

Held by a record `lock.json` that is created if absent and that a thread keeps fresh. A dead owner never blocks: on this
machine its process is looked for, elsewhere its heartbeat has to stay away. `verify` is asked before every step.
"""

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.state import formats
from mlstack.state.formats import LOCK_KEY, Damage, LockFile
from mlstack.state.identity import (
    Clock,
    ci_run,
    host_name,
    is_running,
    iso_time,
    new_id,
    person,
    process_started,
)
from mlstack.state.protocols import Backend
from mlstack.state.state import LockRecord

LEASE = 60.0
"""Seconds without a heartbeat after which the owner counts as dead."""

_STOP_AT = 0.7
"""Part of its lease after which an owner that cannot renew it counts its lock as lost: there is time left to end what
is at work before anybody else may take it."""

_CLOCK_SKEW = 600.0
"""Seconds by which the clock of another machine may differ. A lease that is over by less than that is watched first."""

_POLL = 1.0


class EnvironmentLock:
    """The lock while it is held; a context manager that releases it. Made by `acquire`.

    `record` says what others see; `note` is set when the lock was taken over from a dead owner. `on_loss` is called
    once, from a thread, when the lock is lost, or cannot be renewed for so long that others may soon take it.
    """

    def __init__(
        self,
        backend: Backend,
        record: LockRecord,
        tag: str,
        *,
        note: Diagnostic | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.record = record
        self.note = note
        self._backend = backend
        self._tag = tag
        self._clock = clock
        self.on_loss: Callable[[], None] = lambda: None
        self._lost = self._late = self._why_late = ""
        self._unanswered_since: float | None = None
        self._mutex = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="mlstack-lock", daemon=True)
        self._thread.start()
        # A thread of its own: a write into a store that hangs takes its time, and the lease runs out meanwhile.
        threading.Thread(target=self._watch_lease, name="mlstack-lease", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether a heartbeat found that it is somebody else's, or none got through. `verify` looks for itself."""
        return bool(self._lost or self._late)

    def verify(self) -> None:
        """Make sure that the lock is still held. Raises `MlstackError` when it is not: no further step may start."""
        if self._late:  # a heartbeat may be on its way for long; nobody waits for it any more
            raise MlstackError(_lost_diagnostic(self.record, self._late))
        with self._mutex:
            if not self.lost:
                self._look()
            if not self.lost and self._clock() - self.record.heartbeat > self.record.lease / 2:
                self._write_heartbeat()  # the machine slept, or the thread got no time
            if self.lost:
                raise MlstackError(_lost_diagnostic(self.record, self._lost or self._late))

    def beat(self) -> None:
        """Write one heartbeat. Never raises: a write that fails is tried again, a lock that is lost is flagged."""
        with self._mutex:
            if self._lost or self._released.is_set():
                return
            self._unanswered_since = self._unanswered_since or self._clock()
            try:
                self._write_heartbeat()
            except (MlstackError, OSError) as error:
                self._why_late = error.brief if isinstance(error, MlstackError) else str(error)
                if self._clock() - self.record.heartbeat > self.record.lease:
                    self._be_late()
            else:
                self._unanswered_since = None

    def release(self) -> None:
        """Give the lock back. Releasing twice, or what is lost, changes nothing."""
        if self._released.is_set():
            return
        self._released.set()
        if self._late:  # nothing gets through, and who waited for that would wait for long: the lease is nearly over
            return
        self._thread.join()
        if not self._lost:
            self._look()
        if not self._lost:
            self._backend.delete(LOCK_KEY, tag=self._tag)

    def again(self) -> "EnvironmentLock":
        """Return the same lock, kept fresh anew: of one whose release failed nobody knows whether it is there still."""
        lock = EnvironmentLock(self._backend, self.record, self._tag, clock=self._clock)
        lock.on_loss = self.on_loss
        return lock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.release()
        except MlstackError:
            if error is None:
                raise
            # What went wrong first is what the person has to hear; a lock left behind has a dead owner in a moment.

    def _keep_fresh(self) -> None:
        while not self._released.wait(self.record.lease / 4):
            self.beat()

    def _watch_lease(self) -> None:
        """Say in time that heartbeats do not get through. After a sleep of the machine the first one is waited for."""
        while not self._released.wait(self.record.lease / 60) and not self.lost:
            now, since = self._clock(), self._unanswered_since
            is_late = now - self.record.heartbeat > self.record.lease * _STOP_AT
            if is_late and since is not None and now - since > self.record.lease / 4:
                self._be_late()
        if self.lost:
            self.on_loss()

    def _be_late(self) -> None:
        passed = self._clock() - self.record.heartbeat
        because = f" ({self._why_late.rstrip('.')})" if self._why_late else ""
        self._late = f"its heartbeat could not be written for {passed:.0f} s, and others may take it{because}"

    def _write_heartbeat(self) -> None:
        record = msgspec.structs.replace(self.record, heartbeat=self._clock())
        tag = self._backend.replace(LOCK_KEY, formats.encode(LockFile(record=record)), tag=self._tag)
        if tag is None:
            # Either it is somebody else's, or an earlier write of ours went through although it was reported as failed.
            self._look()
            return
        self.record, self._tag = record, tag

    def _look(self) -> None:
        """Read the lock file and see whether it is still ours."""
        found = self._backend.get(LOCK_KEY)
        content = None if found is None else formats.decode(found[0], LockFile)
        if found is not None and isinstance(content, LockFile) and content.record.id == self.record.id:
            self._tag = found[1]
        elif isinstance(content, LockFile):
            self._lost = f"{_describe(content.record)} holds it now"
        else:
            self._lost = "the lock file is gone" if content is None else f"the lock file {content.detail}"


def acquire(
    backend: Backend,
    *,
    operation: str,
    environment: str,
    timeout: float = 0.0,
    lease: float = LEASE,
    on_wait: Callable[[LockRecord], None] | None = None,
    clock: Clock = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> EnvironmentLock:
    """Take the lock, waiting up to `timeout` seconds for whoever holds it; `on_wait` is told once whom it waits for.

    A dead owner's lock is taken over: at once if its process is gone from this machine or its lease is long over; else
    after its heartbeat was seen to stay away for half a lease. Raises `MlstackError` (`lock-held`) for a live owner.
    """
    begun = clock()
    watched, since, told = "", begun, False
    while True:
        found = backend.get(LOCK_KEY)
        now = clock()
        if found is None:
            fresh = _fresh_record(operation, now, lease)
            tag = backend.create(LOCK_KEY, formats.encode(LockFile(record=fresh)))
            if tag is not None:
                return EnvironmentLock(backend, fresh, tag, clock=clock)
            continue
        data, tag = found
        owner = _owner(backend, data, tag, environment)
        if tag != watched:
            watched, since = tag, now
        dead = _why_dead(owner, now=now, silent=now - since)
        if dead:
            fresh = _fresh_record(operation, now, lease)
            new_tag = backend.replace(LOCK_KEY, formats.encode(LockFile(record=fresh)), tag=tag)
            if new_tag is not None:
                note = _taken_over(owner, environment, dead)
                return EnvironmentLock(backend, fresh, new_tag, note=note, clock=clock)
            continue
        if now - begun >= timeout and not _is_suspect(owner, now):
            raise MlstackError(_held(owner, environment))
        if on_wait is not None and not told:
            on_wait(owner)
            told = True
        sleep(_POLL)


def holder(backend: Backend, *, environment: str) -> LockRecord | None:
    """Return who holds the lock, dead or alive; None when nobody does. Raises `MlstackError` for a damaged file."""
    found = backend.get(LOCK_KEY)
    return None if found is None else _owner(backend, *found, environment)


def force_unlock(backend: Backend, lock_id: str, *, environment: str) -> LockRecord | None:
    """Remove the lock with this ID and return its record (None: it was unreadable).

    Raises `MlstackError` when there is no lock or it has another ID (what the person saw is not what is there), and for
    an owner that runs on this machine: ending that gives the lock back. Of one elsewhere nobody here can be sure.
    """
    found = backend.get(LOCK_KEY)
    if found is None:
        raise MlstackError(
            Diagnostic(
                code="not-locked",
                summary="The environment is not locked",
                detail=f'Nobody holds the lock of environment "{environment}".',
                hint="Nothing has to be unlocked.",
            )
        )
    data, tag = found
    content = formats.decode(data, LockFile)
    record = None if isinstance(content, Damage) else content.record
    actual = _unreadable_id(tag) if record is None else record.id
    if lock_id != actual:
        raise MlstackError(_other_id(record, environment, lock_id, actual))
    if record is not None and _runs_here(record):
        raise MlstackError(_owner_works(record, environment))
    backend.delete(LOCK_KEY, tag=tag)
    if (left := backend.get(LOCK_KEY)) is not None:  # it beat in this very moment; the ID is still the one asked for
        again = formats.decode(left[0], LockFile)
        if isinstance(again, LockFile) and again.record.id == lock_id:
            return force_unlock(backend, lock_id, environment=environment)
    return record


def _fresh_record(operation: str, now: float, lease: float) -> LockRecord:
    pid = os.getpid()
    return LockRecord(
        id=new_id(),
        operation=operation,
        who=person(),
        host=host_name(),
        pid=pid,
        pid_started=process_started(pid) or 0.0,
        created=iso_time(now),
        heartbeat=now,
        lease=lease,
        ci_run=ci_run(),
    )


def _owner(backend: Backend, data: bytes, tag: str, environment: str) -> LockRecord:
    content = formats.decode(data, LockFile)
    if not isinstance(content, Damage):
        return content.record
    hint = "If no apply is going on for this environment, remove the lock:"
    command = f"mlstack unlock {_unreadable_id(tag)} -e {environment}"
    where = backend.location(LOCK_KEY)
    raise MlstackError(formats.damage_diagnostic(content, "lock", where, hint=hint, command=command))


def _unreadable_id(tag: str) -> str:
    """Return what stands for the ID of a lock file that cannot be read: it changes with the content."""
    return f"unreadable-{''.join(filter(str.isalnum, tag))[:12]}"


def _why_dead(owner: LockRecord, *, now: float, silent: float) -> str:
    """Return why the owner counts as dead; an empty string if it has to be taken for alive.

    `silent` is how long we have seen its record unchanged, in seconds of our own clock.
    """
    if _runs_here(owner):
        return ""
    if owner.host == host_name():
        return f"process {owner.pid} on this machine is gone"
    age = now - owner.heartbeat
    if age > owner.lease + _CLOCK_SKEW or (age > owner.lease and silent >= owner.lease / 2):
        return f"no heartbeat from {owner.host} for {age:.0f} s"
    if silent > owner.lease:
        return f"no heartbeat from {owner.host} while waiting {silent:.0f} s for it"
    return ""


def _runs_here(owner: LockRecord) -> bool:
    """Whether the owner is a process of this machine that is there: it may be stopped (Ctrl-Z) and go on later."""
    return owner.host == host_name() and is_running(owner.pid, owner.pid_started)


def _is_suspect(owner: LockRecord, now: float) -> bool:
    """Whether the owner's lease is over by our clock: worth watching its heartbeat beyond any timeout."""
    return owner.host != host_name() and now - owner.heartbeat > owner.lease


def _describe(owner: LockRecord) -> str:
    ci = f", CI run {owner.ci_run}" if owner.ci_run else ""
    return f"`{owner.operation}` by {owner.who} on {owner.host} (process {owner.pid}{ci}), since {owner.created},"


def _held(owner: LockRecord, environment: str) -> Diagnostic:
    is_here = _runs_here(owner)
    return Diagnostic(
        code="lock-held",
        summary="The environment is locked",
        detail=f'{_describe(owner)} holds the lock of environment "{environment}". Lock ID: {owner.id}',
        hint="Wait until it is done (`--lock-timeout 10m` waits by itself), or interrupt it: Ctrl-C there, or"
        if is_here
        else "Wait until it is done (`--lock-timeout 10m` waits by itself). Only if you are sure that it is not "
        "running any more, remove the lock:",
        command=f"kill -INT {owner.pid}" if is_here else f"mlstack unlock {owner.id} -e {environment}",
    )


def _owner_works(owner: LockRecord, environment: str) -> Diagnostic:
    return Diagnostic(
        code="lock-owner-works",
        summary="The owner of the lock is at work",
        detail=f'{_describe(owner)} holds the lock of environment "{environment}", and runs on this machine.',
        hint="Wait until it is done, or interrupt it, which gives the lock back: Ctrl-C there, or",
        command=f"kill -INT {owner.pid}",
    )


def _taken_over(owner: LockRecord, environment: str, why: str) -> Diagnostic:
    return Diagnostic(
        code="lock-taken-over",
        severity=Severity.WARNING,
        summary="The lock of a process that is gone was taken over",
        detail=f'{_describe(owner)} held the lock of environment "{environment}" (ID {owner.id}): {why}.',
        hint="What it left unfinished is found by reading its journal and the world.",
    )


def _other_id(record: LockRecord | None, environment: str, asked: str, actual: str) -> Diagnostic:
    holds = "The lock file is unreadable" if record is None else f"{_describe(record)} holds the lock"
    return Diagnostic(
        code="lock-id-mismatch",
        summary="The lock has another ID",
        detail=f'{holds} of environment "{environment}". Its ID is {actual}, not {asked}.',
        hint="If that is the lock you mean to remove:",
        command=f"mlstack unlock {actual} -e {environment}",
    )


def _lost_diagnostic(record: LockRecord, why: str) -> Diagnostic:
    return Diagnostic(
        code="lock-lost",
        summary="The lock of the environment was lost",
        detail=f"This process held the lock (ID {record.id}) since {record.created}, but {why}. "
        "No further step was started. What was done and could not be recorded is found when it is planned again.",
        hint="Run `mlstack plan` to see what is left, then apply again.",
    )
