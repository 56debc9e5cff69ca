"""Kills of everything at any time: mlstack, the process around a stage, the stage itself."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from mlstack.drivers.base import RunOrder, RunResult
from mlstack.drivers.local.run_folder import read_result, running_pid, take
from mlstack.runner.processes import marked
from mlstack.state.state import RunRecord
from tests.unit.local.local_runs import FINGERPRINT, Runs, eventually, is_there, log_of, record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MLSTACK = """
import json, os, sys
from pathlib import Path
from tests.unit.local.local_runs import Runs, record
runs = Runs(Path(sys.argv[1]))
order = runs.order(sys.argv[2])
pid, started = runs.stages.start(order)
print(json.dumps([pid, started]), flush=True)
runs.wait(order, record(order, pid, started))
"""


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def fake_mlstack(root: Path, cmd: str) -> tuple["subprocess.Popen[str]", int, float]:
    repository = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", MLSTACK, str(root), cmd], stdout=subprocess.PIPE, text=True, cwd=repository
    )
    assert process.stdout is not None
    with process.stdout:
        pid, started = json.loads(process.stdout.readline())
    return process, pid, started


def test_a_run_outlives_mlstack_and_another_one_follows_it(runs: Runs) -> None:
    cmd = "echo begin; while [ ! -e go ]; do sleep 0.02; done; echo end; exit 4"
    process, pid, started = fake_mlstack(runs.root, cmd)
    order = runs.order(cmd)
    eventually(lambda: log_of(order) == b"begin\n")
    process.kill()
    process.wait()
    assert running_pid(order.folder) == pid
    (runs.root / "go").touch()
    result = runs.wait(order, record(order, pid, started))
    assert (result.exit_code, result.cause, result.log_tail) == (4, "error", ("begin", "end"))


def test_a_follower_sees_what_ended_before_it_came(runs: Runs) -> None:
    order = runs.order("echo done; exit 5")
    run = runs.start(order)
    runs.wait(order, run)
    assert runs.wait(order, run, by=runs.another_mlstack()).exit_code == 5


def test_a_follower_can_stop_what_it_did_not_start(runs: Runs) -> None:
    process, pid, started = fake_mlstack(runs.root, "echo begin; sleep 600")
    process.kill()
    process.wait()
    order = runs.order("sleep 600")
    eventually(lambda: log_of(order) == b"begin\n")
    runs.stop.set()
    assert runs.wait(order, record(order, pid, started)).cause == "cancelled"


def test_ctrl_c_in_the_terminal_of_mlstack_does_not_reach_the_stage(runs: Runs) -> None:
    order = runs.order("echo begin; ps -o sid= -p $$ | tr -d ' '; sleep 0.2; echo end")
    result = runs.run(order)
    assert result.cause is None
    assert int(result.log_tail[1]) != os.getsid(0)


@pytest.mark.parametrize("own", [True, False])
def test_the_process_around_a_stage_is_killed_alone(runs: Runs, own: bool) -> None:
    order = runs.order("echo $$; sleep 600")
    run = runs.start(order)
    eventually(lambda: log_of(order).endswith(b"\n"))
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    result = finish(runs, order, run, own=own)
    assert result.cause == "error"
    assert "it was killed" in result.detail
    assert read_result(order.folder) is None
    eventually(lambda: not is_there(int(log_of(order))))  # what it left behind does not write on


def test_both_are_killed(runs: Runs) -> None:
    order = runs.order("echo $$; exec sleep 600")
    run = runs.start(order)
    eventually(lambda: log_of(order).endswith(b"\n"))
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    os.kill(int(log_of(order)), signal.SIGKILL)
    assert finish(runs, order, run, own=False).cause == "error"


def finish(runs: Runs, order: RunOrder, run: RunRecord, *, own: bool) -> RunResult:
    began = time.monotonic()
    result = runs.wait(order, run, by=None if own else runs.another_mlstack())
    if not own:  # collect the zombie, as the parent that a real follower does not have
        runs.wait(order, run)
    assert time.monotonic() - began < 300, "waited for the command instead of seeing that it is gone"
    return result


def test_a_pid_of_somebody_else_is_not_followed_nor_killed(runs: Runs) -> None:
    order = runs.order("true")
    runs.run(order)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stale = record(order, bystander.pid, 1.0)
        (order.folder / "result.json").unlink()
        assert runs.wait(order, stale).cause == "error"
        runs.stages.cancel(stale, grace=0.0)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_killed_between_lock_and_launch_leaves_nothing_locked(runs: Runs) -> None:
    order = runs.order("true")
    order.folder.mkdir(parents=True)
    held = take(order.folder)
    assert held is not None
    assert running_pid(order.folder) == 0
    assert take(order.folder) is None
    os.close(held)
    assert running_pid(order.folder) is None
    assert runs.run(order).cause is None


def test_who_only_looks_keeps_nobody_from_starting(runs: Runs) -> None:
    """`mlstack status` of a person, stopped right there (Ctrl-Z)."""
    order = runs.order("true")
    order.folder.mkdir(parents=True)
    with (order.folder / "running").open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        done = Timer(1.0, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        done.start()
        assert runs.run(order).cause is None
        done.join()


def test_an_order_that_was_cut_off_starts_nothing(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlstack.drivers.local import stages, start_run

    whole = start_run.build_message
    monkeypatch.setattr(stages, "build_message", lambda *args, **options: whole(*args, **options)[:-20])
    order = runs.order("touch started")
    result = runs.run(order)
    assert result.cause == "error"
    assert not (runs.root / "started").exists()


def test_processes_are_found_by_their_mark(runs: Runs) -> None:
    order = runs.order("setsid sh -c 'echo $$; : > apart; exec sleep 600' & while [ ! -e apart ]; do sleep 0.01; done")
    runs.run(order)
    mark = json.loads((order.folder / "order.json").read_text())["mark"].encode()
    daemon = int(log_of(order))
    assert marked(mark) == [daemon]
    assert marked(b"") == []
    os.kill(daemon, signal.SIGKILL)


def test_attempts_keep_their_logs_and_results(runs: Runs) -> None:
    for number in (1, 2, 3):
        runs.run(runs.order(f"echo attempt {number}; exit {number}"))
    folder = runs.order("").folder
    assert [(folder / name).read_text() for name in ("log.1.txt", "log.2.txt", "log.txt")] == [
        "attempt 1\n",
        "attempt 2\n",
        "attempt 3\n",
    ]
    results = [read_result(folder, 1), read_result(folder, 2), read_result(folder)]
    assert [result.exit_code if result else None for result in results] == [1, 2, 3]
    assert json.loads((folder / "order.1.json").read_text())["fingerprint"] == FINGERPRINT


def test_the_order_of_a_run_holds_no_environment(runs: Runs) -> None:
    order = runs.order("true", env={"PLAIN": "visible-value"})
    runs.run(order)
    assert "visible-value" not in (order.folder / "order.json").read_text()
