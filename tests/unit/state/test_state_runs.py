"""Claims on runs: exactly one process runs a thing, a dead one's run is found again."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.spec.address import Address
from mlstack.state.folder import FolderBackend
from mlstack.state.identity import host_name, process_started
from mlstack.state.runs import (
    RunCancelledError,
    claim,
    is_alive,
    prune_runs,
    read_run,
    read_runs,
    run_key,
    take_over,
    update_run,
)
from mlstack.state.state import RunRecord

TRAIN = Address("stages.train")
DEEP = Address("churn/stages.train[depth=6,lr=0.1]")


def run(address: Address = TRAIN, fingerprint: str = "f" * 64, **fields: Any) -> RunRecord:
    known: dict[str, Any] = {
        "status": "claimed", "host": host_name(), "owner_pid": os.getpid(),
        "owner_started": process_started(os.getpid()), "apply_id": "one", "claimed_at": "2025-01-01T00:00:00.000Z",
    }  # fmt: skip
    return RunRecord(address=address, fingerprint=fingerprint, **{**known, **fields})


@pytest.fixture
def backend(tmp_path: Path) -> FolderBackend:
    return FolderBackend(tmp_path)


def test_the_first_claim_wins_and_the_second_sees_whose_it_is(backend: FolderBackend) -> None:
    first, second = run(apply_id="one"), run(apply_id="two", owner_pid=1)
    assert claim(backend, first) is None
    assert claim(backend, second) == first
    assert claim(backend, run(fingerprint="e" * 64, apply_id="two")) is None
    assert claim(backend, run(DEEP, apply_id="two")) is None


def test_the_owner_updates_and_nobody_else(backend: FolderBackend) -> None:
    mine = run()
    claim(backend, mine)
    running = msgspec.structs.replace(mine, status="running", pid=7, started=1.5, folder=".mlstack/runs/x")
    update_run(backend, running)
    assert read_run(backend, TRAIN, mine.fingerprint) == running
    with pytest.raises(MlstackError) as error:
        update_run(backend, run(apply_id="two"))
    assert error.value.diagnostics[0].code == "run-claimed-elsewhere"
    assert error.value.diagnostics[0].address == TRAIN
    assert read_run(backend, TRAIN, mine.fingerprint) == running


class _Crowded(FolderBackend):
    """A folder into which somebody else writes right before the first write of ours."""

    theirs: RunRecord | None = None

    def replace(self, key: str, data: bytes, *, tag: str | None) -> str | None:
        theirs, self.theirs = self.theirs, None
        if theirs is not None:
            update_run(self, theirs)
        return super().replace(key, data, tag=tag)


def test_who_writes_at_the_same_time_comes_first(tmp_path: Path) -> None:
    """An apply that notes that its run goes on, and a person who cancels it."""
    backend, mine = _Crowded(tmp_path), run()
    running, cancelled = (msgspec.structs.replace(mine, status=status) for status in ("running", "cancelled"))
    claim(backend, mine)
    backend.theirs = running
    update_run(backend, cancelled)
    assert read_run(backend, TRAIN, mine.fingerprint) == cancelled


def test_what_was_cancelled_does_not_go_on(tmp_path: Path) -> None:
    backend, mine = _Crowded(tmp_path), run()
    running, cancelled, ended = (
        msgspec.structs.replace(mine, status=status) for status in ("running", "cancelled", "failed")
    )
    claim(backend, mine)
    backend.theirs = cancelled
    with pytest.raises(RunCancelledError):
        update_run(backend, running)
    assert read_run(backend, TRAIN, mine.fingerprint) == cancelled
    update_run(backend, ended)
    assert read_run(backend, TRAIN, mine.fingerprint) == ended


def test_a_dead_owners_claim_is_taken_over_once(backend: FolderBackend) -> None:
    dead, mine = run(owner_started=1.0), run(apply_id="two")
    claim(backend, dead)
    assert take_over(backend, dead, mine)
    assert not take_over(backend, dead, run(apply_id="three"))
    assert read_run(backend, TRAIN, dead.fingerprint) == mine
    with pytest.raises(MlstackError):
        update_run(backend, dead)
    update_run(backend, msgspec.structs.replace(mine, status="done"))


def test_a_claim_that_somebody_removed_is_made_again(backend: FolderBackend) -> None:
    mine = run()
    claim(backend, mine)
    backend.delete(run_key(TRAIN, mine.fingerprint))
    done = msgspec.structs.replace(mine, status="done")
    update_run(backend, done)
    assert read_run(backend, TRAIN, mine.fingerprint) == done
    assert not take_over(backend, mine, mine)


def test_runs_are_listed_newest_first_of_one_stage_or_all(backend: FolderBackend) -> None:
    old = run(fingerprint="a" * 64, claimed_at="2025-01-01T00:00:00.000Z")
    middle = run(DEEP, fingerprint="b" * 64, claimed_at="2025-01-02T00:00:00.000Z")
    new = run(fingerprint="c" * 64, claimed_at="2025-01-03T00:00:00.000Z")
    for one in (middle, new, old):
        claim(backend, one)
    assert read_runs(backend) == (new, middle, old)
    assert read_runs(backend, TRAIN) == (new, old)
    assert read_runs(backend, DEEP) == (middle,)
    assert read_runs(backend, Address("stages.other")) == ()
    assert read_run(backend, Address("stages.other"), "f") is None


def test_old_records_of_ended_runs_can_be_removed(backend: FolderBackend) -> None:
    for number in range(5):
        claim(backend, run(fingerprint=f"{number}" * 64, status="done", claimed_at=f"2025-01-0{number + 1}"))
    claim(backend, run(fingerprint="a" * 64, status="running", claimed_at="2024-01-01"))
    claim(backend, run(DEEP, fingerprint="b" * 64, status="failed", claimed_at="2024-01-01"))
    removed = prune_runs(backend, keep=2)
    assert [one.fingerprint[0] for one in removed] == ["2", "1", "0"]
    assert [one.fingerprint[0] for one in read_runs(backend, TRAIN)] == ["4", "3", "a"]
    assert len(read_runs(backend, DEEP)) == 1


def test_a_damaged_record_is_named_with_the_way_out(backend: FolderBackend, tmp_path: Path) -> None:
    claim(backend, run())
    path = tmp_path / "runs" / "stages.train" / f"{'f' * 64}.json"
    path.write_bytes(path.read_bytes()[:-30])
    for ask in (lambda: read_runs(backend), lambda: claim(backend, run()), lambda: update_run(backend, run())):
        with pytest.raises(MlstackError) as error:
            ask()
        assert error.value.diagnostics[0].code == "run-truncated"
        assert str(path) in error.value.diagnostics[0].detail
    path.unlink()
    assert claim(backend, run()) is None


def test_liveness() -> None:
    assert is_alive(run()) is True
    assert is_alive(run(owner_started=1.0)) is False
    assert is_alive(run(host="far-away")) is None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = process_started(process.pid)
        assert started is not None
        of_process = run(owner_started=1.0, pid=process.pid, started=started)
        assert is_alive(of_process) is True, "the run lives although its claimant is gone"
        assert is_alive(run(pid=process.pid, started=started - 60)) is False
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_alive(of_process) is False, "a process that only waits to be collected is over"
    finally:
        process.kill()
        process.communicate()
    assert is_alive(of_process) is False


_CLAIM = """
import os, sys
from pathlib import Path
from mlstack.state.folder import FolderBackend
from mlstack.state.runs import claim, take_over, read_run
from mlstack.state.state import RunRecord
backend = FolderBackend(Path(sys.argv[1]))
mine = RunRecord(address="stages.train", fingerprint="f" * 64, status="claimed", host="here", owner_pid=os.getpid(),
                 owner_started=1.0, apply_id="race", claimed_at="2025")
dead = read_run(backend, "stages.train", "f" * 64)
print("ready", flush=True)
sys.stdin.readline()
won = claim(backend, mine) is None if dead is None else take_over(backend, dead, mine)
print("won" if won else "lost", flush=True)
"""


@pytest.mark.parametrize("left_behind", [False, True], ids=["claim", "take over"])
def test_of_eight_racing_processes_one_claims_the_run(tmp_path: Path, left_behind: bool) -> None:
    if left_behind:
        claim(FolderBackend(tmp_path), run())
    command = [sys.executable, "-c", _CLAIM, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    assert sorted(said) == ["lost"] * 7 + ["won"]
    found = read_run(FolderBackend(tmp_path), TRAIN, "f" * 64)
    assert found is not None
    assert found.owner_pid == racers[said.index("won")].pid
