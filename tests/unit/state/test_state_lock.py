"""The lock of an environment: owners that live, that died, that are elsewhere, and a lock that is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.state.environment_lock import EnvironmentLock, acquire, force_unlock, holder
from mlstack.state.folder import FolderBackend
from mlstack.state.formats import LOCK_KEY, LockFile, encode
from mlstack.state.identity import host_name, process_started
from mlstack.state.state import LockRecord

NOW = 1_700_000_000.0


class Clock:
    """Time that passes only when somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = NOW
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(tmp_path: Path) -> FolderBackend:
    return FolderBackend(tmp_path)


def take(backend: FolderBackend, clock: Clock, **options: Any) -> EnvironmentLock:
    return acquire(backend, operation="apply", environment="prod", clock=clock, sleep=clock.sleep, **options)


def elsewhere(**fields: Any) -> LockRecord:
    """A lock that a process of another machine holds."""
    known: dict[str, Any] = {
        "id": "1234abcd", "operation": "destroy", "who": "ada", "host": "far-away", "pid": 42, "pid_started": 1.0,
        "created": "2023-11-14T22:13:20.000Z", "heartbeat": NOW,
    }  # fmt: skip
    return LockRecord(**{**known, **fields})


def write(backend: FolderBackend, record: LockRecord) -> None:
    assert backend.replace(LOCK_KEY, encode(LockFile(record=record)), tag=None)


def refused(error: pytest.ExceptionInfo[MlstackError]) -> Diagnostic:
    (diagnostic,) = error.value.diagnostics
    return diagnostic


def test_taken_and_given_back(backend: FolderBackend, clock: Clock) -> None:
    assert holder(backend, environment="prod") is None
    with take(backend, clock) as lock:
        assert lock.note is None
        assert holder(backend, environment="prod") == lock.record
        assert (lock.record.pid, lock.record.host, lock.record.operation) == (os.getpid(), host_name(), "apply")
        assert lock.record.created == "2023-11-14T22:13:20.000Z"
        lock.verify()
    assert holder(backend, environment="prod") is None
    lock.release()
    with take(backend, clock) as second:
        assert second.record.id != lock.record.id


def test_a_live_owner_is_named_with_the_way_out(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock) as lock, pytest.raises(MlstackError) as error:
        take(backend, clock)
    diagnostic = refused(error)
    assert diagnostic.code == "lock-held"
    for told in (lock.record.id, "apply", lock.record.who, host_name(), str(os.getpid()), lock.record.created, "prod"):
        assert told in diagnostic.detail
    assert diagnostic.command == f"kill -INT {os.getpid()}"
    assert clock.slept == []


def test_a_ci_run_is_named(backend: FolderBackend, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/wine")
    monkeypatch.setenv("GITHUB_ACTOR", "grace")
    with take(backend, clock), pytest.raises(MlstackError) as error:
        take(backend, clock)
    assert "by grace" in refused(error).detail
    assert "/acme/wine/actions/runs/77" in refused(error).detail


def test_waiting_ends_when_the_lock_is_free(backend: FolderBackend, clock: Clock) -> None:
    told: list[LockRecord] = []
    first = take(backend, clock)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 3:
            first.release()

    second = acquire(
        backend, operation="apply", environment="prod", timeout=30, clock=clock, sleep=sleep, on_wait=told.append
    )
    with second:
        assert told == [first.record]
        assert len(clock.slept) == 3


def test_waiting_ends_at_the_timeout(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock), pytest.raises(MlstackError) as error:
        take(backend, clock, timeout=30)
    assert refused(error).code == "lock-held"
    assert clock.now - NOW == pytest.approx(30, abs=1.5)


def test_a_process_that_lives_keeps_its_lock_however_old_the_heartbeat(backend: FolderBackend, clock: Clock) -> None:
    """It may be stopped (Ctrl-Z) and go on: its lock is not for the taking."""
    with take(backend, clock) as lock:
        write(backend, msgspec.structs.replace(lock.record, heartbeat=NOW - 5000))
        with pytest.raises(MlstackError) as error:
            take(backend, clock)
        assert refused(error).code == "lock-held"


def test_another_process_with_the_same_pid_is_not_the_owner(backend: FolderBackend, clock: Clock) -> None:
    started = process_started(os.getpid())
    assert started is not None
    write(backend, elsewhere(host=host_name(), pid=os.getpid(), pid_started=started - 60))
    with take(backend, clock) as lock:
        assert lock.note is not None
        assert lock.note.code == "lock-taken-over"


def test_an_owner_elsewhere_with_a_heartbeat_is_alive(backend: FolderBackend, clock: Clock) -> None:
    write(backend, elsewhere(heartbeat=NOW - 30))
    with pytest.raises(MlstackError) as error:
        take(backend, clock)
    assert "far-away" in refused(error).detail
    assert clock.slept == []


def test_a_lease_that_is_long_over_is_taken_over_at_once(backend: FolderBackend, clock: Clock) -> None:
    write(backend, elsewhere(heartbeat=NOW - 3600))
    with take(backend, clock) as lock:
        assert clock.slept == []
        note = lock.note
        assert note is not None
        assert note.severity is Severity.WARNING
        for told in ("ada", "far-away", "1234abcd", "destroy", "no heartbeat"):
            assert told in note.detail


def test_a_lease_that_is_just_over_is_watched_for_half_a_lease(backend: FolderBackend, clock: Clock) -> None:
    write(backend, elsewhere(heartbeat=NOW - 70))
    with take(backend, clock) as lock:
        assert lock.note is not None
        assert 30 <= clock.now - NOW < 35


def test_an_owner_whose_clock_is_behind_is_seen_to_live(backend: FolderBackend, clock: Clock) -> None:
    write(backend, elsewhere(heartbeat=NOW - 70))

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) % 15 == 0:  # it beats every quarter of its lease, by a clock that is 55 s behind
            write(backend, elsewhere(heartbeat=clock.now - 55))

    with pytest.raises(MlstackError) as error:
        acquire(backend, operation="apply", environment="prod", clock=clock, sleep=sleep)
    assert refused(error).code == "lock-held"


def test_an_owner_whose_clock_is_ahead_is_seen_to_be_dead(backend: FolderBackend, clock: Clock) -> None:
    write(backend, elsewhere(heartbeat=NOW + 5000))
    with pytest.raises(MlstackError):
        take(backend, clock, timeout=30)
    with take(backend, clock, timeout=120) as lock:
        assert lock.note is not None


def test_a_heartbeat_is_written_and_kept_up(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock) as lock:
        clock.now += 15
        lock.beat()
        found = holder(backend, environment="prod")
        assert found == lock.record
        assert found.heartbeat == NOW + 15
        lock.verify()


def test_the_thread_beats_by_itself(backend: FolderBackend, clock: Clock) -> None:
    """By a clock that stands still: a write that takes long must not use the short lease up."""
    with take(backend, clock, lease=0.2) as lock:
        clock.now += 0.1
        give_up = time.monotonic() + 120
        while (found := holder(backend, environment="prod")) is None or found.heartbeat != clock.now:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        lock.verify()
    assert holder(backend, environment="prod") is None


def test_a_lock_that_somebody_took_is_lost_for_good(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock) as lock:
        write(backend, elsewhere())
        lock.beat()
        assert lock.lost
        with pytest.raises(MlstackError) as error:
            lock.verify()
        assert refused(error).code == "lock-lost"
        assert "ada on far-away" in refused(error).detail
    assert holder(backend, environment="prod") == elsewhere(), "releasing a lost lock must not touch the new owner's"


def test_verify_sees_a_loss_before_any_heartbeat(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock) as lock:
        backend.delete(LOCK_KEY)
        with pytest.raises(MlstackError) as error:
            lock.verify()
        assert "gone" in refused(error).detail
        clock.now += 100
        lock.beat()
        assert holder(backend, environment="prod") is None, "a lost lock is not written again"


def test_verify_after_a_long_sleep_beats_first(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock) as lock:
        clock.now += 3000
        lock.verify()
        found = holder(backend, environment="prod")
        assert found is not None
        assert found.heartbeat == clock.now


class _Failing(FolderBackend):
    failing = False

    def replace(self, key: str, data: bytes, *, tag: str | None) -> str | None:
        if self.failing:
            raise MlstackError(Diagnostic(code="disk-full", summary="There is no space left to write"))
        return super().replace(key, data, tag=tag)


def test_a_heartbeat_that_fails_for_a_moment_is_no_loss_but_for_a_lease_it_is(tmp_path: Path, clock: Clock) -> None:
    backend = _Failing(tmp_path)
    with take(backend, clock) as lock:
        backend.failing = True
        clock.now += 15
        seen = []
        for passed in (0, 50):
            clock.now += passed
            lock.beat()
            seen.append(lock.lost)
        assert seen == [False, True]
        with pytest.raises(MlstackError) as error:
            lock.verify()
        assert "no space left" in refused(error).detail.lower()
        backend.failing = False


class _Hanging(FolderBackend):
    """A store that takes a write and does not answer until it is told to go on."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.goes_on, self.asked = threading.Event(), threading.Event()

    def replace(self, key: str, data: bytes, *, tag: str | None) -> str | None:
        self.asked.set()
        assert self.goes_on.wait(300)
        return super().replace(key, data, tag=tag)


def test_who_cannot_renew_the_lock_stops_before_another_may_take_it(tmp_path: Path, clock: Clock) -> None:
    """Also while the store hangs: nobody waits for the heartbeat that is on its way."""
    backend, stopped = _Hanging(tmp_path), threading.Event()
    lock = take(backend, clock, lease=1.0)
    lock.on_loss = stopped.set
    assert backend.asked.wait(60)
    clock.now += 0.8
    assert stopped.wait(60)
    with pytest.raises(MlstackError) as error:
        lock.verify()
    assert refused(error).code == "lock-lost"
    lock.release()
    assert not backend.goes_on.is_set(), "neither of them waits for the store"
    backend.goes_on.set()
    lock._thread.join(60)


class _FallingAsleep(FolderBackend):
    """The machine sleeps for an hour right after the lock is written: before any heartbeat can be on its way."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(root)
        self.clock = clock

    def create(self, key: str, data: bytes) -> str | None:
        tag = super().create(key, data)
        self.clock.now += 3600
        return tag


def test_after_a_sleep_of_the_machine_the_next_heartbeat_decides(tmp_path: Path, clock: Clock) -> None:
    with take(_FallingAsleep(tmp_path, clock), clock, lease=0.6) as lock:
        time.sleep(0.1)  # some rounds of the thread that watches the lease
        lock.verify()


def test_unlocking_needs_the_id(backend: FolderBackend) -> None:
    with pytest.raises(MlstackError) as error:
        force_unlock(backend, "1234abcd", environment="prod")
    assert refused(error).code == "not-locked"
    write(backend, elsewhere())
    with pytest.raises(MlstackError) as error:
        force_unlock(backend, "feedbeef", environment="prod")
    assert refused(error).code == "lock-id-mismatch"
    assert refused(error).command == "mlstack unlock 1234abcd -e prod"
    assert holder(backend, environment="prod") == elsewhere()
    assert force_unlock(backend, "1234abcd", environment="prod") == elsewhere()
    assert holder(backend, environment="prod") is None


def test_the_lock_of_a_process_that_works_here_stays(backend: FolderBackend, clock: Clock) -> None:
    with take(backend, clock) as lock:
        with pytest.raises(MlstackError) as error:
            force_unlock(backend, lock.record.id, environment="prod")
        assert refused(error).code == "lock-owner-works"
        assert refused(error).command == f"kill -INT {os.getpid()}"
        lock.verify()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "lock-empty"),
        (b'{"format":1,"record":{"id":"1', "lock-truncated"),
        (b"hello", "lock-damaged"),
        (b'{"format":1,"record":{}}', "lock-damaged"),
        (b'{"format":9,"record":{}}', "lock-newer"),
        (b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n", "lock-in-conflict"),
    ],
)
def test_a_lock_file_that_cannot_be_read_can_still_be_removed(
    backend: FolderBackend, clock: Clock, content: bytes, code: str
) -> None:
    backend.replace(LOCK_KEY, content, tag=None)
    with pytest.raises(MlstackError) as error:
        take(backend, clock)
    assert refused(error).code == code
    if code == "lock-newer":
        return
    command = refused(error).command
    lock_id = command.removeprefix("mlstack unlock ").removesuffix(" -e prod")
    backend.replace(LOCK_KEY, content + b" ", tag=None)
    with pytest.raises(MlstackError) as error:
        force_unlock(backend, lock_id, environment="prod")
    assert refused(error).code == "lock-id-mismatch"
    backend.replace(LOCK_KEY, content, tag=None)
    assert force_unlock(backend, lock_id, environment="prod") is None
    take(backend, clock).release()


# ------------------------------------------------------------------------------------------------ real processes

_HOLD = """
import sys, time
from pathlib import Path
from mlstack.diagnostics import MlstackError
from mlstack.state.environment_lock import acquire
from mlstack.state.folder import FolderBackend
print("ready", flush=True)
sys.stdin.readline()
try:
    with acquire(FolderBackend(Path(sys.argv[1])), operation="apply", environment="prod") as lock:
        print("won", lock.record.id, flush=True)
        sys.stdin.readline()
except MlstackError as error:
    print(error.diagnostics[0].code, flush=True)
"""


def _say(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    processes: list[subprocess.Popen[str]] = []

    def start_one() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_owner_is_followed_at_once(start: Any, backend: FolderBackend) -> None:
    process = start()
    assert _hear(process) == "ready"
    _say(process, "go")
    lock_id = _hear(process).removeprefix("won ")
    with pytest.raises(MlstackError) as error:
        acquire(backend, operation="apply", environment="prod")
    assert lock_id in refused(error).detail
    assert f"process {process.pid}" in refused(error).detail
    process.send_signal(signal.SIGKILL)
    process.wait()
    with acquire(backend, operation="apply", environment="prod") as lock:
        assert lock.note is not None
        assert f"process {process.pid} on this machine is gone" in lock.note.detail
        assert lock_id in lock.note.detail


@pytest.mark.parametrize("left_behind", [False, True], ids=["free", "dead owner"])
def test_of_eight_racing_processes_one_gets_it(start: Any, backend: FolderBackend, left_behind: bool) -> None:
    if left_behind:
        write(backend, elsewhere(host=host_name(), pid=2**22 + 1))
    racers = [start() for _ in range(8)]
    assert [_hear(racer) for racer in racers] == ["ready"] * 8
    for racer in racers:
        _say(racer, "go")
    said = [_hear(racer).split()[0] for racer in racers]
    assert sorted(said) == ["lock-held"] * 7 + ["won"]
    _say(racers[said.index("won")], "done")
    assert racers[said.index("won")].wait(timeout=120) == 0
    assert holder(backend, environment="prod") is None
