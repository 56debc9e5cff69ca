"""Reading what a run left in the remote."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.remote_run.results import (
    as_run_result,
    executable_outs,
    lock_entry,
    read_log,
    read_remote_run,
    tail_of,
)
from mlstack.graph.graph import EntryKey, fingerprint
from mlstack.runner.layout import RunKeys, run_prefix
from mlstack.runner.record import CAUSES, End, Heartbeat, Made, decode_end, encode_record
from mlstack.runner.store import Store

KEY = EntryKey(cmd="true", deps=(), params={}, out_paths=("a", "b"))
PREFIX = run_prefix("stages.train", fingerprint(KEY))
KEYS = RunKeys(PREFIX)
DONE = End(
    address="stages.train",
    fingerprint=fingerprint(KEY),
    attempt=2,
    instance="x",
    cause=None,
    exit_code=0,
    log_parts=1,
    outs=(Made("b", "1" * 32 + ".dir", 7, 2), Made("a", "2" * 32, 3, executable=True)),
    phases={"run": 1.5},
)
BEAT = Heartbeat(attempt=3, instance="y", started=100.0, at=110.0, every=15.0, phase="run", line="step 4")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "remote"))


def test_nothing_is_nothing(store: Store) -> None:
    found = read_remote_run(store, PREFIX)
    assert (found.result, found.ends, found.heartbeat, found.last) == (None, (), None, None)
    assert not found.is_alive(0.0)


def test_attempts_in_the_order_they_were_made(store: Store) -> None:
    for number, cause in ((10, "error"), (9, "stopped")):
        end = replace(DONE, attempt=number, cause=cause, outs=())
        store.put(KEYS.end(end.name), encode_record(end))
    found = read_remote_run(store, PREFIX)
    assert [end.attempt for end in found.ends] == [9, 10]
    assert found.last is not None
    assert found.last.cause == "error"


@pytest.mark.parametrize(("now", "alive"), [(111.0, True), (169.0, True), (171.0, False)])
def test_an_attempt_lives_as_long_as_it_beats(store: Store, now: float, alive: bool) -> None:
    store.put(KEYS.heartbeat, encode_record(BEAT))
    found = read_remote_run(store, PREFIX)
    assert found.heartbeat == BEAT
    assert found.is_alive(now) is alive


def test_an_attempt_that_said_its_end_is_not_alive(store: Store) -> None:
    store.put(KEYS.heartbeat, encode_record(BEAT))
    end = replace(DONE, attempt=3, instance="y", cause="error")
    store.put(KEYS.end(end.name), encode_record(end))
    assert not read_remote_run(store, PREFIX).is_alive(111.0)


def test_a_success_becomes_an_entry_of_dvc_lock() -> None:
    entry = lock_entry(DONE, KEY)
    assert entry.key == KEY
    assert [out.path for out in entry.outs] == ["a", "b"]
    assert (entry.outs[1].digest.md5, entry.outs[1].digest.nfiles) == ("1" * 32 + ".dir", 2)
    assert executable_outs(DONE) == {"a"}


@pytest.mark.parametrize(
    "other",
    [
        replace(DONE, fingerprint="f" * 64),
        replace(DONE, outs=DONE.outs[:1]),
        replace(DONE, cause="error"),
    ],
)
def test_a_result_of_another_computation_is_refused(other: End) -> None:
    with pytest.raises(MlstackError) as caught:
        lock_entry(other, KEY)
    assert caught.value.diagnostics[0].code == "remote-result-of-another"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1}'])
def test_a_record_that_is_none_is_an_error(store: Store, data: bytes) -> None:
    store.put(KEYS.result, data)
    with pytest.raises(MlstackError) as caught:
        read_remote_run(store, PREFIX)
    assert caught.value.diagnostics[0].code == "remote-result-unreadable"


def test_a_newer_writer_may_say_more() -> None:
    data = encode_record(DONE).replace(b'"address"', b'"weather": "fine", "address"')
    assert decode_end(data) == DONE


@pytest.mark.parametrize("cause", [None, *CAUSES])
def test_every_cause_has_a_word_for_the_executor(cause: str | None) -> None:
    found = as_run_result(replace(DONE, cause=cause, detail="why"))
    assert found.cause in {None, "error", "timeout", "hang", "out-of-memory"}
    assert (found.cause is None) == (cause is None)
    assert found.seconds == 1.5
    if cause in {"stopped", "superseded", "storage", "refused"}:
        assert found.detail == f"{cause}: why"


def test_only_who_asked_knows_that_it_was_cancelled() -> None:
    assert as_run_result(replace(DONE, cause="stopped"), asked_to_stop=True).cause == "cancelled"
    assert as_run_result(replace(DONE, cause="error"), asked_to_stop=True).cause == "error"


def test_logs_are_followed_part_by_part(store: Store) -> None:
    store.put(KEYS.log_part(DONE.name, 0), b"one\ntwo\n")
    assert read_log(store, PREFIX, DONE.name) == (b"one\ntwo\n", 0)
    store.put(KEYS.log_part(DONE.name, 1), b"three\n")
    assert read_log(store, PREFIX, DONE.name, start=1) == (b"three\n", 1)
    assert tail_of(store, PREFIX, replace(DONE, log_parts=2)) == ("one", "two", "three")
    assert read_log(store, PREFIX, "0009-none", start=4) == (b"", 4)
