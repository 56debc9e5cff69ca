"""The kept log: whole when it is short, beginning and end when it is long, never in the way of the stage."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from mlstack.runner import log as log_module
from mlstack.runner.layout import RunKeys
from mlstack.runner.log import RunLog
from mlstack.runner.problems import Problem
from mlstack.runner.store import Store
from tests.unit.runner.runner_place import PREFIX

KEYS = RunKeys(PREFIX)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("remote")))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "PART", 10)
    monkeypatch.setattr(log_module, "FIRST_PARTS", 2)
    monkeypatch.setattr(log_module, "LAST_PARTS", 2)


def parts(store: Store) -> dict[int, bytes]:
    found = store.listing(f"{KEYS.attempts}1-x/log/")
    return {int(each.key[-10:-4]): store.get(each.key) or b"" for each in found}


def test_a_part_grows_until_it_is_full(store: Store) -> None:
    log = RunLog(KEYS, "1-x", (), echo=-1)
    log.write(b"one\n")
    log.upload(store)
    assert parts(store) == {0: b"one\n"}
    log.write(b"two\nthree\n")
    log.upload(store)
    assert parts(store) == {0: b"one\ntwo\nth", 1: b"ree\n"}


def test_what_comes_while_a_part_is_put_is_not_lost(store: Store) -> None:
    log = RunLog(KEYS, "1-x", (), echo=-1)
    more = [b"two\nthree\n"]

    class Slow(Store):
        def put(self, key: str, data: bytes) -> None:
            if more:
                log.write(more.pop())
            super().put(key, data)

    log.write(b"one\n")
    log.upload(Slow(store.url))
    log.upload(store)
    assert parts(store) == {0: b"one\ntwo\nth", 1: b"ree\n"}


def test_an_older_state_of_a_part_does_not_come_after_a_newer_one(store: Store) -> None:
    log = RunLog(KEYS, "1-x", (), echo=-1)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Store):
        def put(self, key: str, data: bytes) -> None:
            begun.set()
            go_on.wait(120)
            super().put(key, data)

    log.write(b"one\n")
    slow = threading.Thread(target=log.upload, args=(Slow(store.url),))
    slow.start()
    assert begun.wait(120)
    log.write(b"two\n")
    with ThreadPoolExecutor(1) as beside:
        newer = beside.submit(log.upload, store)
        wait([newer], timeout=0.2)  # one that does not wait for the slow one is through by then
        go_on.set()
        newer.result(120)
    slow.join(120)
    assert parts(store) == {0: b"one\ntwo\n"}


def test_of_a_long_log_beginning_and_end_are_kept(store: Store) -> None:
    log = RunLog(KEYS, "1-x", (), echo=-1)
    for number in range(8):
        log.write(f"line {number}   \n".encode())
        log.upload(store)
    assert sorted(parts(store)) == [0, 1, 6, 7]
    assert log.lost == 0


def test_a_remote_that_is_away_costs_the_middle_at_most(store: Store) -> None:
    class Away(Store):
        def put(self, key: str, data: bytes) -> None:
            raise Problem("storage", "away")

    away = Away(store.url)
    log = RunLog(KEYS, "1-x", (), echo=-1)
    for number in range(8):
        log.write(f"line {number}   \n".encode())
        with pytest.raises(Problem):
            log.upload(away)
    log.upload(store)
    found = parts(store)
    assert found[0] == b"line 0   \n"
    assert found[7] == b"line 7   \n"
    assert log.lost == 40


def test_a_secret_is_masked_whatever_its_chunks(store: Store) -> None:
    log = RunLog(KEYS, "1-x", (b"hunter2",), echo=-1)
    for byte in b"a hunter2 b":
        log.write(bytes([byte]))
    log.say("with hunter2 too")
    log.write(b"")
    log.upload(store)
    assert b"hunter2" not in b"".join(part for _, part in sorted(parts(store).items()))


@pytest.mark.parametrize(
    ("chunks", "line"),
    [
        ([b"one\ntwo\n"], "two"),
        ([b"one\ntw", b"o"], "two"),
        ([b"one\n", b"\n", b"\n"], "one"),
        ([b" 10%\r 20%\r"], "20%"),
        ([b"x" * 1000], "x" * 300),
    ],
)
def test_the_newest_line(chunks: list[bytes], line: str) -> None:
    log = RunLog(KEYS, "1-x", (), echo=-1)
    for chunk in chunks:
        log.write(chunk)
    assert log.newest_line == line
