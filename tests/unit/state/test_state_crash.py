"""Bad luck while the state is written: SIGKILL and a full disk at every system call, and in the middle of writes.

Real processes on a real folder. The product has no code for this: the calls of `os` are wrapped in the process that
does the work. Run as a script, this file is the process from which each victim is forked.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.spec.address import Address
from mlstack.state.fold import fold
from mlstack.state.folder import FolderBackend
from mlstack.state.read import open_reader
from mlstack.state.runs import read_runs
from mlstack.state.state import Acceptance, Entry, HistoryRecord, Record, RunRecord, State
from mlstack.state.store import WritableState, open_store

Operation = Callable[[WritableState], object]

A, B, C = Address("endpoints.a"), Address("endpoints.b"), Address("endpoints.c")
TRAIN = Address("stages.train")


def entry(**fields: Any) -> Entry:
    return Entry(at="2025-01-01T00:00:00.000Z", apply_id="one", **{"event": "step-done", **fields})


def record(address: Address, **attributes: Any) -> Entry:
    return entry(
        address=address, action="create", record=Record(address=address, driver="local", attributes=attributes)
    )


RUN = RunRecord(
    address=TRAIN,
    fingerprint="f" * 64,
    status="claimed",
    host="here",
    owner_pid=1,
    owner_started=1.0,
    apply_id="one",
    claimed_at="2025-01-01T00:00:00.000Z",
)
ENDED = RunRecord(**{name: getattr(RUN, name) for name in RUN.__struct_fields__ if name != "status"}, status="done")
HISTORY = HistoryRecord(
    id="one", operation="apply", who="me", host="here", started_at="a", ended_at="b", outcome="done"
)
ACCEPTANCE = Acceptance(
    address=TRAIN, fingerprint="1", recorded_fingerprint="2", because="a comment", who="me", at="now"
)


def compact(store: WritableState) -> None:
    store.compact()


def claim(store: WritableState) -> None:
    store.claim(RUN)


def end_run(store: WritableState) -> None:
    store.update_run(ENDED)


def add_history(store: WritableState) -> None:
    if not store.history():
        store.add_history(HISTORY)


SERIES: list[Entry | Operation] = [
    entry(event="apply-started"),
    record(A, port=8080),
    record(B, port=8081, note="ü" * 300),
    claim,
    entry(address=A, removed=True),
    compact,
    record(C, port=8082),
    end_run,
    entry(event="apply-ended"),
    add_history,
    compact,
    record(B, port=9090),
    entry(event="accepted", acceptance=ACCEPTANCE),
    compact,
    entry(address=C, removed=True),
    record(A, port=7070),
]

START = State(project="p", environment="e", lineage="")


def state_after(count: int) -> State:
    """What must be recorded when the first `count` operations are done; the lineage is left out."""
    return fold(START, [operation for operation in SERIES[:count] if isinstance(operation, Entry)])


def do(store: WritableState, operation: Entry | Operation) -> None:
    if isinstance(operation, Entry):
        store.append(operation)
    else:
        operation(store)


def open_at(folder: Path) -> WritableState:
    return open_store(FolderBackend(folder), project="p", environment="e")


def read_at(folder: Path) -> State:
    """Return what is recorded, without its lineage (which is random)."""
    state = open_reader(FolderBackend(folder), project="p", environment="e").state()
    return START if state is None else State(**{**_fields(state), "lineage": ""})


def _fields(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in State.__struct_fields__}


# --------------------------------------------------------------------------------------------------- the faults


CALLS = ("write", "fsync", "link", "replace", "unlink", "mkdir", "open")
REAL: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in CALLS}


class Faults:
    """Wraps the calls of `os` that change something, counts them, and lets the `at`th go wrong."""

    def __init__(self, at: int, go_wrong: Callable[[str, tuple[Any, ...]], None], *, only: tuple[str, ...] = CALLS):
        self.at, self.go_wrong, self.only, self.count = at, go_wrong, only, 0

    def __enter__(self) -> Self:
        for name in self.only:
            setattr(os, name, self._wrap(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in REAL.items():
            setattr(os, name, function)

    def _wrap(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                self.count += 1
                if self.count == self.at:
                    self.go_wrong(name, arguments)
            return REAL[name](*arguments, **named)

        return call


def _kill(name: str, arguments: tuple[Any, ...]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_the_middle(name: str, arguments: tuple[Any, ...]) -> None:
    REAL["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


KILLS: dict[str, tuple[Callable[[str, tuple[Any, ...]], None], tuple[str, ...]]] = {
    "before": (_kill, CALLS),
    "middle": (_kill_in_the_middle, ("write",)),
}


def _victim(folder: Path, how: str, at: int, acknowledgements: int) -> None:
    go_wrong, only = KILLS[how]
    with Faults(at, go_wrong, only=only):
        store = open_at(folder)
        for operation in SERIES:
            do(store, operation)
            REAL["write"](acknowledgements, b".")


def _kill_everywhere(root: Path, how: str) -> None:
    """Fork a process for each call, kill it there, and say how many died and how many operations each acknowledged."""
    acknowledged: list[int] = []
    while True:
        at = len(acknowledged) + 1
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _victim(root / str(at), how, at, writer)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            count = len(pipe.read())
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the series fails without a kill"
            assert count == len(SERIES)
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        acknowledged.append(count)
    print(json.dumps(acknowledged))


@pytest.fixture(scope="module", params=sorted(KILLS))
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """A folder for each place of death, and how many operations its process had acknowledged."""
    root = tmp_path_factory.mktemp(f"killed-{request.param}")
    done = subprocess.run(
        [sys.executable, __file__, str(root), request.param], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [(root / str(at), count) for at, count in enumerate(json.loads(done.stdout), start=1)]
    assert len(found) >= (120 if request.param == "before" else 20)
    return found


def _known(folder: Path, acknowledged: int) -> State:
    """Return what is recorded after making sure that it is the acknowledged operations, or one more."""
    state = read_at(folder)
    assert state in (state_after(acknowledged), state_after(acknowledged + 1)), folder
    return state


def test_after_a_kill_at_any_call_everything_acknowledged_is_there(killed: list[tuple[Path, int]]) -> None:
    for folder, acknowledged in killed:
        _known(folder, acknowledged)
        claimed = read_runs(FolderBackend(folder))
        assert len(claimed) == 1 or acknowledged <= SERIES.index(claim)
        assert claimed == (ENDED,) or acknowledged <= SERIES.index(end_run)


def test_after_a_kill_at_any_call_the_backup_and_the_journal_hold_it_too(
    killed: list[tuple[Path, int]], tmp_path: Path
) -> None:
    checked = 0
    for folder, acknowledged in killed:
        if not (folder / "state.backup.json").exists():
            continue
        checked += 1
        copy = tmp_path / folder.name
        shutil.copytree(folder, copy)
        (copy / "state.backup.json").replace(copy / "state.json")
        assert read_at(copy) == _known(folder, acknowledged), folder
    assert checked > 5


def test_after_a_kill_at_any_call_the_rest_can_be_done(killed: list[tuple[Path, int]], tmp_path: Path) -> None:
    for folder, acknowledged in killed:
        copy = tmp_path / folder.name
        if folder.exists():
            shutil.copytree(folder, copy)
        store = open_at(copy)
        for operation in SERIES[acknowledged:]:
            do(store, operation)
        assert read_at(copy) == state_after(len(SERIES)), folder
        assert len(store.history()) == 1
        assert store.runs() == (ENDED,)
        keys = FolderBackend(copy).keys("")
        assert all(key.startswith(("state.", "journal/0", "history/0", "runs/stages.train/f")) for key in keys)


# ------------------------------------------------------------------------------------------------- a full disk


def _disk_full(name: str, arguments: tuple[Any, ...]) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _disk_full_in_the_middle(name: str, arguments: tuple[Any, ...]) -> None:
    REAL["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


GROWING = ("write", "fsync", "link", "replace", "mkdir", "open")  # unlink needs no space


def _fits(store: WritableState, operation: Entry | Operation, folder: Path) -> bool:
    """Do one operation; False when there was no space for it, which has to be said as such."""
    try:
        do(store, operation)
    except MlstackError as error:
        (diagnostic,) = error.diagnostics
        if diagnostic.code != "disk-full" or str(folder) not in diagnostic.detail:
            raise
        return False
    return True


@pytest.mark.parametrize("how", ["before", "middle"])
def test_a_disk_that_is_full_for_a_moment_costs_nothing(how: str, tmp_path: Path) -> None:
    failures = 0
    for at in range(1, 1000):
        folder = tmp_path / str(at)
        store = open_at(folder)
        go_wrong, only = (_disk_full, GROWING) if how == "before" else (_disk_full_in_the_middle, ("write",))
        failed = False
        with Faults(at, go_wrong, only=only):
            for operation in SERIES:
                if not _fits(store, operation, folder):
                    failed = True
                    do(store, operation)  # there is space again
        assert read_at(folder) == state_after(len(SERIES)), at
        assert not list((folder / ".tmp").iterdir())
        if not failed:
            break
        failures += 1
        shutil.rmtree(folder)
    assert failures >= (100 if how == "before" else 20)


class _Full(Faults):
    """From the `at`th call on, every call fails."""

    def _wrap(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                self.count += 1
                if self.count >= self.at:
                    self.go_wrong(name, arguments)
            return REAL[name](*arguments, **named)

        return call


def test_a_disk_that_stays_full_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    for at in range(1, 1000):
        folder = tmp_path / str(at)
        store = open_at(folder)
        done = 0
        with _Full(at, _disk_full, only=GROWING):
            while done < len(SERIES) and _fits(store, SERIES[done], folder):
                done += 1
        assert read_at(folder) in (state_after(done), state_after(done + 1)), at
        if done == len(SERIES):
            return
        shutil.rmtree(folder, ignore_errors=True)
    pytest.fail("the series never ended")


# ------------------------------------------------------------------------------------------------- cost


def test_recording_a_step_costs_the_same_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_at(tmp_path / "state")
    store.append(entry(event="apply-started"))

    def refuse(*_: object) -> None:
        raise AssertionError("the folder is listed")

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    costs = []
    for number in range(300):
        with Faults(0, _kill) as counted:  # none goes wrong: there is no call number 0
            store.append(record(Address(f"endpoints.e{number}"), port=number))
        costs.append(counted.count)
    assert set(costs) == {costs[0]}


# ------------------------------------------------------------------------------------------------- power failure


@contextmanager
def _recorded_calls() -> Iterator[list[tuple[str, str]]]:
    """Record what is done to which path: (call, path), with the target of `link` and `replace` as `named`."""
    calls: list[tuple[str, str]] = []
    paths: dict[int, str] = {}

    def on_open(path: Any, *rest: Any, **named: Any) -> int:
        descriptor: int = REAL["open"](path, *rest, **named)
        paths[descriptor] = os.fspath(path)
        return descriptor

    def on_write(descriptor: int, data: Any) -> int:
        calls.append(("write", paths[descriptor]))
        return int(REAL["write"](descriptor, data))

    def on_fsync(descriptor: int) -> None:
        REAL["fsync"](descriptor)
        calls.append(("fsync", paths[descriptor]))

    def naming(name: str) -> Callable[[str, str], None]:
        def call(source: str, target: str) -> None:
            REAL[name](source, target)
            calls.extend([("source", source), ("named", target)])

        return call

    def on_mkdir(path: str) -> None:
        REAL["mkdir"](path)
        calls.append(("named", path))

    replacements: dict[str, Any] = {
        "open": on_open, "write": on_write, "fsync": on_fsync, "mkdir": on_mkdir,
        "link": naming("link"), "replace": naming("replace"),
    }  # fmt: skip
    try:
        for name, function in replacements.items():
            setattr(os, name, function)
        yield calls
    finally:
        for name, function in REAL.items():
            setattr(os, name, function)


def test_nothing_is_named_before_it_is_on_the_disk_and_names_are_flushed_before_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    store = open_at(tmp_path / "state")
    named = 0
    for operation in SERIES:
        with _recorded_calls() as calls:
            do(store, operation)
        for index, (call, path) in enumerate(calls):
            if call == "source":
                last_write = max(i for i, found in enumerate(calls[:index]) if found == ("write", path))
                assert ("fsync", path) in calls[last_write:index]
            if call == "named":
                named += 1
                assert ("fsync", str(Path(path).parent)) in calls[index:], path
    assert named > len(SERIES) - 5


if __name__ == "__main__":
    _kill_everywhere(Path(sys.argv[1]), sys.argv[2])
