"""A state in an object store, and what such stores do to it: moto's S3 behind a proxy that goes wrong on demand."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.address import Address
from mlstack.state.environment_lock import acquire, force_unlock, holder
from mlstack.state.formats import LOCK_KEY, LockFile, encode
from mlstack.state.identity import host_name
from mlstack.state.object_store import GRAVE, ObjectBackend
from mlstack.state.read import open_reader
from mlstack.state.state import Entry, HistoryRecord, LockRecord, Record
from mlstack.state.store import WritableState, open_store
from tests.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.s3 import S3Server, keys_in, s3_server

Open = Callable[..., ObjectBackend]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> Any:
    return s3.bucket("states")


@pytest.fixture
def proxy(s3: S3Server, bucket: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint) as proxy:
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def url(proxy: FaultyS3) -> str:
    return f"s3://states/{os.urandom(6).hex()}"


@pytest.fixture
def backend(url: str) -> ObjectBackend:
    return ObjectBackend(url, patience=120.0)


def problem(act: Callable[[], object]) -> Diagnostic:
    with pytest.raises(MlstackError) as error:
        act()
    (found,) = error.value.diagnostics
    assert found.hint
    return found


# ------------------------------------------------------------------------------------------------ answers that go wrong


@pytest.mark.parametrize("write", ["create", "replace", "replace a grave"])
def test_a_write_whose_answer_is_lost_is_known_to_be_ours(backend: ObjectBackend, proxy: FaultyS3, write: str) -> None:
    tag = None
    if write != "create":
        tag = backend.create("lock.json", b"before")
    if write == "replace a grave":
        backend.delete("lock.json", tag=tag)
        assert backend.get("lock.json") is None
    proxy.faults = [Fault("lose", "PUT", "lock.json", times=1)]
    is_replaced = write == "replace"
    new = backend.replace("lock.json", b"mine", tag=tag) if is_replaced else backend.create("lock.json", b"mine")
    assert new is not None
    assert backend.get("lock.json") == (b"mine", new)


def test_a_second_try_does_not_take_the_write_of_another_for_its_own(
    backend: ObjectBackend, proxy: FaultyS3, url: str
) -> None:
    proxy.faults = [Fault("answer", "PUT", "lock.json", times=1, status=503, code="SlowDown")]
    proxy.reached = lambda method, _: _write_once(proxy, url) if method == "PUT" else None
    assert backend.create("lock.json", b"the same bytes") is None


def _write_once(proxy: FaultyS3, url: str) -> None:
    """Another process is faster, with the very same content."""
    proxy.reached = None
    assert ObjectBackend(url).create("lock.json", b"the same bytes") is not None


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (409, "OperationAborted")]
)
def test_a_store_that_is_busy_is_asked_again(backend: ObjectBackend, proxy: FaultyS3, status: int, code: str) -> None:
    proxy.faults = [Fault("answer", method, times=2, status=status, code=code) for method in ("PUT", "GET", "DELETE")]
    tag = backend.create("a/b.json", b"1")
    assert tag is not None
    assert backend.get("a/b.json") == (b"1", tag)
    assert list(backend.keys("a/")) == ["a/b.json"]
    backend.delete("a/b.json")
    assert backend.get("a/b.json") is None


def test_two_writers_of_one_key_at_once_are_told_apart_by_the_store(backend: ObjectBackend, proxy: FaultyS3) -> None:
    conflict = "ConditionalRequestConflict"
    proxy.faults = [Fault("answer", "PUT", times=1, status=409, code=conflict, message="try again")]
    assert backend.create("lock.json", b"mine") is not None, "the other one did not win either"


def test_an_answer_that_breaks_off_is_read_again(backend: ObjectBackend, proxy: FaultyS3) -> None:
    tag = backend.create("state.json", b"x" * 200_000)
    proxy.faults = [Fault("cut", "GET", "state.json", times=1)]
    assert backend.get("state.json") == (b"x" * 200_000, tag)


def test_a_slow_store_is_waited_for(backend: ObjectBackend, proxy: FaultyS3) -> None:
    proxy.faults = [Fault("slow", "PUT", times=1, seconds=1.0)]
    assert backend.create("state.json", b"1") is not None
    assert len([method for method, _ in proxy.seen if method == "PUT"]) == 3, (
        "one write and the trial of two conditions"
    )


def test_a_store_that_stays_away_is_named_and_nothing_is_lost(
    backend: ObjectBackend, proxy: FaultyS3, url: str
) -> None:
    backend.create("state.json", b"1")
    proxy.faults = [Fault("answer", status=503, code="SlowDown", message="Please reduce your request rate.")]
    impatient = ObjectBackend(url, patience=0.5)
    for act in (lambda: impatient.get("state.json"), lambda: impatient.keys(""), lambda: impatient.create("x", b"")):
        found = problem(act)
        assert found.code == "state-store-unreachable"
        assert url in found.detail
        assert "SlowDown" in found.detail
    proxy.faults = []
    assert impatient.get("state.json") is not None
    assert list(impatient.keys("")) == ["state.json"]


def test_no_store_at_all_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert problem(lambda: ObjectBackend(url, patience=0.3).get("state.json")).code == "state-store-unreachable"


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (401, "InvalidToken"), (403, "ExpiredToken")])
def test_a_refusal_is_said_at_once_with_the_rights_that_are_needed(
    backend: ObjectBackend, proxy: FaultyS3, status: int, code: str
) -> None:
    proxy.faults = [Fault("answer", status=status, code=code, message="No.")]
    for act in (lambda: backend.get("state.json"), lambda: backend.keys(""), lambda: backend.create("x", b"")):
        found = problem(act)
        assert (found.code, code in found.detail) == ("state-store-refused", True)
        assert "ListBucket" in found.hint
    assert len(proxy.seen) == 3, "nothing is asked twice"


def test_a_bucket_that_does_not_exist_is_not_an_empty_state(proxy: FaultyS3) -> None:
    reader = open_reader(ObjectBackend("s3://no-such-bucket/x"), project="p", environment="e")
    assert problem(reader.state).code == "state-store-missing"
    lost = ObjectBackend("s3://no-such-bucket/x")
    assert problem(lambda: lost.create("state.json", b"")).code == "state-store-missing"
    assert problem(lambda: lost.keys("")).code == "state-store-missing"


# ------------------------------------------------------------------------------------------------ conditions


@pytest.mark.parametrize("method", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_conditions_is_refused_before_anything_is_recorded(
    backend: ObjectBackend, proxy: FaultyS3, bucket: Any, url: str, method: str
) -> None:
    proxy.faults = [Fault("ignore-conditions", "PUT")]
    if method == "If-Match":  # honours the one and not the other: the third write is the one with If-Match
        proxy.faults = [Fault("slow", "PUT", times=2), *proxy.faults]
    found = problem(lambda: acquire(backend, operation="apply", environment="prod"))
    assert found.code == "state-store-without-conditions"
    assert method in found.detail
    assert not [key for key in keys_in(bucket) if key.startswith(url.removeprefix("s3://states/"))]


def test_a_store_that_does_not_know_conditions_is_refused(backend: ObjectBackend, proxy: FaultyS3) -> None:
    proxy.faults = [Fault("answer", "PUT", status=501, code="NotImplemented", message="A header is not implemented.")]
    assert problem(lambda: backend.create("lock.json", b"")).code == "state-store-without-conditions"


def test_conditions_are_tried_on_demand_and_leave_nothing(backend: ObjectBackend, bucket: Any, url: str) -> None:
    backend.prove_conditions()
    assert not [key for key in keys_in(bucket) if key.startswith(url.removeprefix("s3://states/"))]


def test_what_is_deleted_on_a_condition_leaves_a_mark_that_nobody_reads(
    backend: ObjectBackend, bucket: Any, url: str
) -> None:
    tag = backend.create("lock.json", b"mine")
    backend.delete("lock.json", tag=tag)
    assert bytes(obstore.get(bucket, f"{url.removeprefix('s3://states/')}/lock.json").bytes()) == GRAVE
    backend.create("runs/a/1.json", b"." * len(GRAVE))
    assert list(ObjectBackend(url).keys("")) == ["runs/a/1.json"], "a size alone makes no mark"


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/.", ".tmp/x", ""])
def test_what_is_no_key_is_a_bug_of_ours(backend: ObjectBackend, proxy: FaultyS3, key: str) -> None:
    for act in (lambda: backend.create(key, b""), lambda: backend.get(key), lambda: backend.delete(key)):
        with pytest.raises(ValueError, match="not a key"):
            act()
    assert proxy.seen == []


# ------------------------------------------------------------------------------------------------ the state


def store_at(backend: ObjectBackend, *, project: str = "wine") -> WritableState:
    return open_store(backend, project=project, environment="prod")


def entry(number: int = 0) -> Entry:
    address = Address(f"endpoints.e{number}")
    record = Record(address=address, driver="local", attributes={"port": number})
    return Entry(at="2025-01-01T00:00:00.000Z", apply_id="one", event="step-done", address=address, record=record)


def test_recording_a_step_is_one_request_however_many_there_are(backend: ObjectBackend, proxy: FaultyS3) -> None:
    store = store_at(backend)
    store.append(entry())
    costs = []
    for number in range(1, 20):
        before = len(proxy.seen)
        store.append(entry(number))
        costs.append(len(proxy.seen) - before)
    assert set(costs) == {1}


def test_a_reader_asks_little_when_nothing_is_pending(backend: ObjectBackend, proxy: FaultyS3, url: str) -> None:
    store = store_at(backend)
    for number in range(5):
        store.append(entry(number))
    store.compact()
    proxy.seen.clear()
    state = open_reader(ObjectBackend(url), project="wine", environment="prod").state()
    assert state is not None
    assert len(state.resources) == 5
    assert [method for method, _ in proxy.seen] == ["GET", "GET"], "the snapshot and a listing"


def test_the_state_of_another_project_is_refused(backend: ObjectBackend, url: str) -> None:
    store_at(backend).append(entry())
    other = open_reader(ObjectBackend(url), project="beer", environment="prod")
    found = problem(other.state)
    assert found.code == "state-of-other-project"
    assert f"{url}/state.json" in found.detail


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"format": 99, "project": "wine"}', "state-newer"),
        (b'{"format": 1, "proj', "state-truncated"),
        (b"", "state-empty"),
    ],
)
def test_a_state_that_cannot_be_read_is_not_overwritten(
    backend: ObjectBackend, url: str, content: bytes, code: str
) -> None:
    store_at(backend).append(entry())
    backend.replace("state.json", content, tag=None)
    assert problem(lambda: store_at(ObjectBackend(url)).append(entry(1))).code == code
    found = ObjectBackend(url).get("state.json")
    assert found is not None
    assert found[0] == content


def test_an_append_that_somebody_else_was_faster_with_is_refused(backend: ObjectBackend, url: str) -> None:
    first, second = store_at(backend), store_at(ObjectBackend(url))
    first.append(entry(0))
    second.append(entry(1))
    assert problem(lambda: first.append(entry(2))).code == "state-changed"
    state = open_reader(ObjectBackend(url), project="wine", environment="prod").state()
    assert state is not None
    assert len(state.resources) == 2


def test_the_history_is_numbered_and_read_in_order(backend: ObjectBackend) -> None:
    store = store_at(backend)
    for number in range(12):
        store.add_history(
            HistoryRecord(
                id=str(number), operation="apply", who="me", host="here", started_at="a", ended_at="b", outcome="done"
            )
        )
    assert [record.id for record in store.history()] == [str(number) for number in range(12)]


# ------------------------------------------------------------------------------------------------ the lock

_HOLD = """
import sys
from mlstack.diagnostics import MlstackError
from mlstack.state.environment_lock import acquire
from mlstack.state.object_store import ObjectBackend
print("ready", flush=True)
sys.stdin.readline()
try:
    with acquire(ObjectBackend(sys.argv[1]), operation="apply", environment="prod", lease=float(sys.argv[2])):
        print("won", flush=True)
        sys.stdin.readline()
except MlstackError as error:
    print(error.diagnostics[0].code, flush=True)
"""


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []

    def start_one(lease: float = 60.0) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", _HOLD, url, str(lease)]
        root = Path(__file__).resolve().parents[3]
        processes.append(subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert _hear(processes[-1]) == "ready"
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def _hear(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _say(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_of_two_applies_one_gets_the_lock_and_a_killed_one_is_followed(
    start: Callable[..., "subprocess.Popen[str]"], backend: ObjectBackend
) -> None:
    racers = [start(), start()]
    for racer in racers:
        _say(racer)
    said = [_hear(racer) for racer in racers]
    assert sorted(said) == ["lock-held", "won"]
    winner = racers[said.index("won")]
    winner.kill()
    winner.wait()
    with acquire(backend, operation="apply", environment="prod") as lock:
        assert lock.note is not None
        assert "is gone" in lock.note.detail
    assert holder(backend, environment="prod") is None


def test_the_lock_beats_in_the_store_and_is_lost_when_it_is_taken_away(backend: ObjectBackend, url: str) -> None:
    """By a clock that stands still: an answer that takes long must not use the short lease up."""
    now = [1_700_000_000.0]
    with acquire(backend, operation="apply", environment="prod", lease=0.8, clock=lambda: now[0]) as lock:
        now[0] += 0.4
        until = time.monotonic() + 120
        while (found := holder(ObjectBackend(url), environment="prod")) is None or found.heartbeat != now[0]:
            assert time.monotonic() < until
            time.sleep(0.05)
        lock.verify()
        ObjectBackend(url).delete(LOCK_KEY)
        assert problem(lock.verify).code == "lock-lost"


def test_a_dead_owner_elsewhere_is_followed_once_its_lease_is_long_over(backend: ObjectBackend) -> None:
    record = LockRecord(
        id="1" * 16,
        operation="apply",
        who="somebody",
        host=f"not-{host_name()}",
        pid=1,
        pid_started=1.0,
        created="2025-01-01T00:00:00.000Z",
        heartbeat=time.time() - 3600,
        lease=60.0,
        ci_run="",
    )
    backend.create(LOCK_KEY, encode(LockFile(record=record)))
    with acquire(backend, operation="apply", environment="prod") as lock:
        assert lock.note is not None
        assert record.host in lock.note.detail


def test_a_lock_that_cannot_be_read_is_removed_by_the_id_that_the_message_names(backend: ObjectBackend) -> None:
    backend.create(LOCK_KEY, b"{")
    found = problem(lambda: acquire(backend, operation="apply", environment="prod"))
    assert found.command.startswith("mlstack unlock unreadable-")
    lock_id = found.command.split()[2]
    assert lock_id.replace("-", "").isalnum()
    force_unlock(backend, lock_id, environment="prod")
    assert holder(backend, environment="prod") is None


# ------------------------------------------------------------------------------------------------ credentials


def test_a_profile_of_the_aws_configuration_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: FaultyS3, url: str
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[team]\naws_access_key_id = TEAMKEY\naws_secret_access_key = x\n")
    (tmp_path / ".aws/config").write_text("[profile team]\nregion = eu-central-1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "team")
    backend = ObjectBackend(url)
    assert backend.create("state.json", b"1") is not None
    assert any("TEAMKEY" in header and "eu-central-1" in header for header in proxy.signatures)


def test_a_profile_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    found = problem(lambda: ObjectBackend(url).get("state.json"))
    assert found.code == "state-store-refused"
    assert "nobody" in found.detail


def test_without_credentials_it_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: FaultyS3, url: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    found = problem(lambda: ObjectBackend(url).get("state.json"))
    assert (found.code, "no AWS credentials" in found.detail) == ("state-store-refused", True)
    assert proxy.seen == []


def test_importing_the_state_loads_nothing_of_object_stores() -> None:
    """A plan whose state lies in a folder pays nothing for this backend."""
    code = (
        "import sys; from pathlib import Path; from mlstack.state.environment_folder import backend_for;"
        "backend_for(None, Path('/nowhere'), 'prod').get('state.json');"
        "print([name for name in sys.modules if name.startswith(('obstore', 'botocore', 'mlstack.state.object'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
