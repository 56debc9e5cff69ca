"""One call of a program that stands for Pulumi's: apart from the terminal, interrupted in order, killed in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from mlstack.drivers.pulumi import process
from mlstack.drivers.pulumi.process import Ended, call
from mlstack.drivers.stacks import Stop

_BEGIN = """
import os, signal, subprocess, sys, time
heard = []
def interrupted(number, frame):
    heard.append(number)
    print("interrupted", len(heard), flush=True)
    open(f"{{sys.argv[1]}}-heard", "a").close()
    {then}
signal.signal(signal.SIGINT, interrupted)
plugin = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(str(plugin.pid))
while True:
    time.sleep(0.05)
"""
_OBEYS = "plugin.kill(); plugin.wait(); sys.exit(3)"
_SECOND = "len(heard) == 2 and (plugin.kill(), plugin.wait(), sys.exit(4))"
_NEVER = "pass"


def _call(tmp_path: Path, then: str, *, grace: float | None = None) -> tuple[Ended, int]:
    """Call it, ask it to stop when it is at work, and return how it ended, and the process of its plugin."""
    note = tmp_path / "plugin"
    stop = Stop()
    stop.grace = grace

    def ask() -> None:
        until = time.monotonic() + 120
        while not (note.exists() and note.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        stop.set()

    asking = Thread(target=ask)
    asking.start()
    command = [sys.executable, "-c", _BEGIN.format(then=then), str(note)]
    ended = call(command, environment=dict(os.environ), folder=tmp_path, stop=stop)
    asking.join()
    return ended, int(note.read_text())


def test_what_is_said_and_the_exit_code_come_back(tmp_path: Path) -> None:
    script = 'import sys; print("out ü"); print("err", file=sys.stderr); sys.exit(5)'

    ended = call([sys.executable, "-c", script], environment={"PYTHONUTF8": "1"}, folder=tmp_path)

    assert ended == Ended(code=5, output="out ü\n", errors="err\n")
    assert ended.said == "err\nout ü"


def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    script = "import os; print(os.getsid(0) == os.getpid(), os.environ.get('OTHER'))"

    ended = call([sys.executable, "-c", script], environment={}, folder=tmp_path)

    assert ended.output == "True None\n"


def test_an_interrupted_one_ends_in_order(tmp_path: Path) -> None:
    ended, _ = _call(tmp_path, _OBEYS)

    assert (ended.code, ended.stopped) == (3, True)
    assert ended.output == "interrupted 1\n"


def test_one_that_does_not_hear_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is over as soon as it was asked: a process that stands still would hear two signals as one."""
    monkeypatch.setattr(process, "_FIRST_GRACE", 600.0)
    monkeypatch.setattr(process, "_LAST_GRACE", 120.0)

    class Asked(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if timeout != 600.0:
                return super().wait(timeout)
            until = time.monotonic() + 120
            while not (tmp_path / "plugin-heard").exists() and time.monotonic() < until:
                time.sleep(0.02)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", Asked)

    ended, _ = _call(tmp_path, _SECOND)

    assert (ended.code, ended.stopped) == (4, True)


def test_one_that_never_hears_is_killed_with_its_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_FIRST_GRACE", 0.3)
    monkeypatch.setattr(process, "_LAST_GRACE", 0.3)

    ended, plugin = _call(tmp_path, _NEVER)

    assert (ended.code, ended.stopped) == (-signal.SIGKILL, True)
    assert _is_gone_soon(plugin)


def test_one_that_may_not_take_its_time_is_killed_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the lock of the environment is lost: another update may begin."""
    monkeypatch.setattr(process, "_FIRST_GRACE", 600.0)
    began = time.monotonic()

    ended, plugin = _call(tmp_path, _NEVER, grace=0.3)

    assert (ended.code, ended.stopped) == (-signal.SIGKILL, True)
    assert _is_gone_soon(plugin)
    assert time.monotonic() - began < 600


def _is_gone_soon(pid: int) -> bool:
    """Whether a killed process is gone, or waits for its parent: on a busy machine that takes a moment."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_one_whose_caller_fails_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_FIRST_GRACE", 0.3)
    monkeypatch.setattr(process, "_LAST_GRACE", 0.3)
    pids: list[int] = []

    def fail(pid: int) -> None:
        pids.append(pid)
        raise OSError("the record of calls cannot be written")

    with pytest.raises(OSError, match="record of calls"):
        call([sys.executable, "-c", "import time; time.sleep(600)"], environment={}, folder=tmp_path, on_start=fail)

    assert not psutil.pid_exists(pids[0])
