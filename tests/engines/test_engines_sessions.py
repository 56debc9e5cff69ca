"""Runs side by side do not meet, and a run that was killed leaves nothing for good."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import leftovers, lifetime, network
from tests.engines.fixtures import DockerEngine
from tests.engines.places import ROOM
from tests.engines.session import read

pytestmark = pytest.mark.e2e

OWNER = """
import sys
from tests.engines import lifetime
from tests.engines.own import OwnBuildKit
from tests.engines.processes import recorded
import docker
session = lifetime.begin()
image = lifetime.need(session, "registry") + "/mlstack/base:bookworm"
client = docker.DockerClient(base_url=lifetime.need(session, "docker"), timeout=300)
container = client.containers.run(image, ["sleep", "1000"], detach=True, ports={"1/tcp": ("127.0.0.1", None)})
container.reload()
own = recorded(session, OwnBuildKit(session).name)
print(session.folder, recorded(session, "docker").pid, own.pid, container.attrs["State"]["Pid"], flush=True)
sys.stdin.read()
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def rules() -> str:
    ask = "iptables -w 30 -S && iptables -w 30 -t nat -S"
    return subprocess.run(["sh", "-c", ask], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("also_engine", [False, True], ids=["run-killed", "run-and-engine-killed"])
def test_what_a_killed_run_leaves_is_cleared_away(docker_engine: DockerEngine, also_engine: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=ROOM.parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        folder, dockerd, own, container = owner.stdout.readline().split()
        session = read(Path(folder))
        bridge = Path("/sys/class/net", network.bridge(session))
        block = json.loads((session.folder / "network.json").read_text(encoding="utf-8"))
        assert bridge.exists()
        assert rules().count(block) == 4, "two words of one rule, and one of each of two"
        assert lives(int(container))
        assert lives(int(own)), "one that only a test knows of"
        sockets = leftovers.shim_sockets(session)
        assert sockets
        lifetime.sweep()
        assert lives(int(container)), "a living owner's engines stay"
        if also_engine:
            os.kill(int(dockerd), signal.SIGKILL)
        owner.kill()
    lifetime.sweep()
    assert not lives(int(container))
    assert not lives(int(dockerd))
    assert not lives(int(own))
    assert not bridge.exists()
    assert not session.folder.exists()
    assert not session.data.exists()
    assert not any(socket.exists() for socket in sockets)
    assert leftovers.mounts(session) == []
    assert block not in rules()
    assert docker_engine.client.ping()
