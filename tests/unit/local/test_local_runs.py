"""Stages as real processes: how they end, what is kept of them, what stops them."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import RunResult
from mlstack.drivers.local.run_folder import read_result, running_pid
from mlstack.runner.command import KILLED_BY_OTHERS
from mlstack.runner.processes import out_of_memory_kills
from mlstack.spec.spec import Checkpoint, Timeout
from tests.unit.local.local_runs import Runs, eventually, is_there, log_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


# ---------------------------------------------------------------------------------------------------- ends


def test_success(runs: Runs) -> None:
    order = runs.order("echo out; echo err >&2; pwd")
    result = runs.run(order)
    assert (result.exit_code, result.cause, result.detail) == (0, None, "")
    assert log_of(order) == f"out\nerr\n{runs.root}\n".encode()
    assert result.log_tail == ("out", "err", str(runs.root))


@pytest.mark.parametrize(
    ("cmd", "code", "detail"),
    [
        ("exit 3", 3, "exit code 3"),
        ("no-such-command", 127, "exit code 127: the command was not found"),
        (": > plain; ./plain", 126, "exit code 126: the command cannot be executed"),
        ("kill -SEGV $$", 139, "exit code 139: ended by SIGSEGV"),
        ("kill -9 $$", 137, "exit code 137: ended by SIGKILL; " + KILLED_BY_OTHERS),
    ],
)
def test_failure(runs: Runs, cmd: str, code: int, detail: str) -> None:
    killed = -1
    while killed != out_of_memory_kills():  # another test may have the kernel end a process of its own meanwhile
        killed = out_of_memory_kills()
        result = runs.run(runs.order(cmd))
    assert (result.exit_code, result.cause, result.detail) == (code, "error", detail)


def test_every_line_is_a_command_of_its_own_as_in_dvc(runs: Runs) -> None:
    order = runs.order("X=1; echo one\n\necho two-$X\nfalse\necho never")
    assert runs.run(order).exit_code == 1
    assert log_of(order) == b"one\ntwo-\n"


def test_the_environment_is_exactly_what_was_ordered(runs: Runs) -> None:
    hostile = {"NEWLINE": "a\nb", "QUOTES": "\"'$(touch pwned)`", "EQUALS": "a=b=c", "LATIN": "\udcff", "EMPTY": ""}
    script = "import os; print(ascii(sorted((k, v) for k, v in os.environ.items())))"
    order = runs.order(f'"$PYTHON" -c "{script}"', env=hostile)
    assert runs.run(order).cause is None
    found = dict(eval(log_of(order)))
    assert {name: found[name] for name in hostile} == hostile
    assert len(found.pop("MLSTACK_RUN")) == 16
    assert set(found) - {"PWD", "LC_CTYPE", "OLDPWD", "SHLVL", "_"} == {"PATH", "PYTHON", *hostile}
    assert not (runs.root / "pwned").exists()


def test_an_environment_that_the_system_refuses(runs: Runs) -> None:
    result = runs.run(runs.order("true", env={"HUGE": "x" * 3_000_000}))
    assert result.cause == "error"
    assert "Argument list too long" in result.detail


def test_the_stage_reads_nothing_and_inherits_nothing(runs: Runs) -> None:
    order = runs.order("cat; ls /proc/self/fd | wc -l; kill -0 -$$ && echo own group")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        assert runs.run(order).cause is None
    finally:
        os.close(reading)
        os.close(writing)
    assert log_of(order) == b"4\nown group\n"  # 0, 1, 2 and the folder that ls reads


def test_the_folder_of_the_stage_is_gone(runs: Runs) -> None:
    with pytest.raises(MlstackError) as raised:
        runs.start(runs.order("true", directory="nowhere"))
    assert raised.value.diagnostics[0].code == "stage-not-started"
    assert "nowhere" in raised.value.diagnostics[0].detail


def test_a_read_only_place(runs: Runs) -> None:
    (runs.root / ".mlstack").write_text("a file where the folder should be")
    with pytest.raises(MlstackError) as raised:
        runs.start(runs.order("true"))
    assert raised.value.diagnostics[0].code == "stage-not-started"


def test_the_result_file_tells_times_and_memory(runs: Runs) -> None:
    before = time.time()
    order = runs.order('"$PYTHON" -c "x = b\'x\' * 60_000_000"')
    runs.run(order)
    found = read_result(order.folder)
    assert found is not None
    assert before <= found.started <= found.ended <= time.time()
    assert 60_000_000 < found.max_rss < 200_000_000
    assert json.loads((order.folder / "result.json").read_text())["exit_code"] == 0


def test_fifty_at_once(runs: Runs) -> None:
    orders = [runs.order(f"echo {number}; exit {number % 3}", name=f"s{number}") for number in range(50)]
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(runs.run, orders))
    assert [result.exit_code for result in results] == [number % 3 for number in range(50)]
    assert [log_of(order) for order in orders] == [f"{number}\n".encode() for number in range(50)]


# ---------------------------------------------------------------------------------------------------- limits


def test_run_timeout(runs: Runs) -> None:
    result = runs.run(runs.order("while :; do echo tick; sleep 0.05; done", timeout=Timeout(run=0.4)))
    assert result.cause == "timeout"
    assert result.detail == "it ran longer than timeout.run (0.4 s)"
    assert result.seconds >= 0.4


def test_the_timeout_covers_all_lines_of_a_command(runs: Runs) -> None:
    result = runs.run(runs.order("sleep 0.3\nsleep 0.3\nsleep 0.3", timeout=Timeout(run=0.5)))
    assert result.cause == "timeout"


def test_silence_is_a_hang(runs: Runs) -> None:
    result = runs.run(runs.order("echo begin; sleep 30", timeout=Timeout(hang=0.4)))
    assert result.cause == "hang"
    assert result.detail == "no output for longer than timeout.hang (0.4 s)"


@pytest.mark.parametrize("sign", ["printf .", "mkdir -p ckpt/deep; echo $i > ckpt/deep/step"], ids=["output", "files"])
def test_output_and_a_checkpoint_are_no_hang(runs: Runs, sign: str) -> None:
    """Of a stage that takes twice as long as it may be silent; on a busy machine a sign of life may come late."""
    for pause in (0.2, 1.0, 5.0):
        order = runs.order(
            f"for i in 1 2 3 4 5 6; do {sign}; sleep {pause}; done",
            timeout=Timeout(hang=3 * pause),
            checkpoint=Checkpoint(path="ckpt", grace=1.0),
        )
        if (result := runs.run(order)).cause is None:
            break
    assert result.cause is None


def test_a_hang_beside_an_old_checkpoint(runs: Runs) -> None:
    order = runs.order(
        "echo x > ckpt/step; sleep 30", timeout=Timeout(hang=0.4), checkpoint=Checkpoint(path="ckpt", grace=1.0)
    )
    result = runs.run(order)
    assert result.cause == "hang"
    assert "no change in its checkpoint folder" in result.detail


def test_what_ignores_sigterm_is_killed_after_the_grace(runs: Runs) -> None:
    cmd = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    result = run_begun(runs, cmd, run=0.2, checkpoint=Checkpoint(path="ckpt", grace=0.3))
    assert (result.cause, result.exit_code) == ("timeout", 137)
    assert "did not end within its grace and was killed" in result.detail
    assert result.seconds >= 0.5


def run_begun(runs: Runs, cmd: str, *, run: float, checkpoint: Checkpoint | None = None) -> RunResult:
    """Run a command that goes on for ever until its time is over; it has said something by then, if need be later."""
    for seconds in (run, 10 * run, 100 * run):
        order = runs.order(cmd, timeout=Timeout(run=seconds), checkpoint=checkpoint)
        result = runs.run(order)
        if log_of(order):
            break
    return result


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(0.3)
    open("ckpt/saved", "w").write("step 7")
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(600)
"""


def test_the_grace_lets_a_checkpoint_be_saved_and_an_orderly_exit_is_no_success(runs: Runs) -> None:
    (runs.root / "saves.py").write_text(SAVES)
    # The shell dies of SIGTERM at once; its child still needs the grace.
    order = runs.order('"$PYTHON" saves.py; echo never', checkpoint=Checkpoint(path="ckpt", grace=60.0))
    run = runs.start(order)
    eventually(lambda: b"ready" in log_of(order))
    runs.stop.set()
    result = runs.wait(order, run)
    assert result.cause == "cancelled"
    assert result.exit_code != 0
    assert (runs.root / "ckpt" / "saved").read_text() == "step 7"
    assert log_of(order) == b"ready\nsaved\n"


# ---------------------------------------------------------------------------------------------------- left behind

DAEMON = "setsid sh -c 'echo > apart; exec sleep 600'"
ONCE_IT_IS_APART = "while [ ! -e apart ]; do sleep 0.01; done"


def test_a_grandchild_that_keeps_the_pipe_is_ended(runs: Runs) -> None:
    order = runs.order("sleep 600 & echo $!")
    result = runs.run(order)
    assert result.cause is None
    assert result.detail == "processes that the command left running were ended"
    assert result.seconds < 300
    eventually(lambda: not is_there(int(log_of(order))))


def test_a_short_straggler_is_waited_for(runs: Runs) -> None:
    """For a second; on a busy machine it may need longer, then it is ended."""
    for _ in range(20):
        order = runs.order("(sleep 0.1; echo late) & echo early")
        result = runs.run(order)
        assert result.cause is None
        if not result.detail:
            break
    assert result.detail == ""
    assert log_of(order) == b"early\nlate\n"


def test_a_daemon_holds_nothing_up_and_is_left_alone(runs: Runs) -> None:
    order = runs.order(f"{DAEMON} & echo $!; {ONCE_IT_IS_APART}")
    result = runs.run(order)
    assert result.cause is None
    assert result.seconds < 300
    daemon = int(log_of(order))
    assert is_there(daemon)
    os.kill(daemon, 9)


def test_a_daemon_of_a_stopped_stage_is_stopped_too(runs: Runs) -> None:
    assert run_begun(runs, f"{DAEMON} & {ONCE_IT_IS_APART}; echo $!; sleep 600", run=0.3).cause == "timeout"
    eventually(lambda: not is_there(int(log_of(runs.order("")))))


def test_a_stopped_process_can_be_cancelled(runs: Runs) -> None:
    order = runs.order("kill -STOP $$", timeout=Timeout(run=0.2))
    assert runs.run(order).cause == "timeout"


# ---------------------------------------------------------------------------------------------------- cancel


@pytest.mark.parametrize("at_once", [True, False])
def test_cancel_from_another_mlstack(runs: Runs, at_once: bool) -> None:
    order = runs.order("echo ready; sleep 600")
    run = runs.start(order)
    results: list[RunResult] = []
    waiter = threading.Thread(target=lambda: results.append(runs.wait(order, run)))
    waiter.start()
    if not at_once:
        eventually(lambda: log_of(order) == b"ready\n")
    other = runs.another_mlstack()
    other.cancel(run, grace=5.0)
    waiter.join(120)
    assert running_pid(order.folder) is None
    assert results[0].cause == "cancelled"
    other.cancel(run, grace=5.0)  # what is over stays over


def test_cancel_without_grace_is_a_kill(runs: Runs) -> None:
    order = runs.order("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    run = runs.start(order)
    eventually(lambda: b"ready" in log_of(order))
    runs.stages.cancel(run, grace=0.0)
    assert running_pid(order.folder) is None


def test_a_run_goes_on_only_once(runs: Runs) -> None:
    order = runs.order("sleep 60")
    run = runs.start(order)
    with pytest.raises(MlstackError) as raised:
        runs.another_mlstack().start(order)
    assert raised.value.diagnostics[0].code == "run-in-progress"
    assert "mlstack cancel stages.train" in raised.value.diagnostics[0].command
    runs.stages.cancel(run, grace=1.0)
    assert runs.run(runs.order("true")).cause is None


def test_a_run_of_another_machine_is_not_touched(runs: Runs) -> None:
    import msgspec

    order = runs.order("sleep 60")
    run = runs.start(order)
    foreign = msgspec.structs.replace(run, host="elsewhere")
    with pytest.raises(MlstackError):
        runs.stages.cancel(foreign, grace=0.0)
    with pytest.raises(MlstackError):
        runs.wait(order, foreign)
    assert running_pid(order.folder) == run.pid
    runs.stages.cancel(run, grace=0.0)
