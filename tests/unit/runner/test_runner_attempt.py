"""What containers add to running a command: orphans, and cgroups of both versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.runner.attempt import cgroup_kills
from tests.unit.runner.runner_place import Place


@pytest.mark.parametrize(
    ("own", "file", "text", "kills"),
    [
        ("0::/\n", "memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n", 1),
        ("0::/kubepods/pod1\n", "kubepods/pod1/memory.events", "oom 2\noom_kill 2\n", 2),
        ("0::/not/mounted\n", "memory.events", "oom_kill 4\n", 4),
        ("5:memory:/docker/x\n0::/\n", "memory/docker/x/memory.oom_control", "under_oom 0\noom_kill 7\n", 7),
        ("5:memory:/docker/x\n", "memory/memory.oom_control", "oom_kill_disable 0\noom_kill 0\n", 0),
        ("0::/\n", "memory.events", "nothing of the kind\n", None),
    ],
)
def test_kills_for_lack_of_memory_are_those_of_the_own_cgroup(
    tmp_path: Path, own: str, file: str, text: str, kills: int | None
) -> None:
    (tmp_path / "cgroup").write_text(own)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert cgroup_kills(str(tmp_path / "cgroup"), str(tmp_path)) == kills


def test_orphans_are_collected_by_the_first_process_of_a_container(place: Place) -> None:
    """As a subreaper a process gets orphans just as the first process of a container does."""
    place.order(
        "import subprocess, time, os\n"
        "for _ in range(5): subprocess.run(['sh', '-c', 'sleep 0.05 & true'])\n"
        "def of(pid):\n"
        "    try: return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[:2]\n"
        "    except OSError: return []\n"  # one of this machine that has ended meanwhile
        "runner = of(os.getppid())[1]\n"
        "until = time.monotonic() + 120\n"
        "left = []\n"
        "while left != [str(os.getppid())] and time.monotonic() < until:\n"
        "    time.sleep(0.1)\n"
        "    left = [pid for pid in os.listdir('/proc') if pid.isdigit() and of(pid)[1:] == [runner]]\n"
        "print('left', len(left))\n"
        "open('out.txt', 'w')\n"
    )
    program = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", program, *place.command]
    environment = {
        **os.environ,
        "MLSTACK_ORDER": f"{place.store.url}/{place.keys.order}",
        "MLSTACK_WORK": str(place.work),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left 1\n" in done.stdout
