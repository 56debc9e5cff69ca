"""Stages in containers of a real engine: the same contract as stages in processes."""

import json
import os
from hashlib import sha256
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest

from mlstack.drivers.base import RunOrder
from mlstack.drivers.docker.stages import DockerStages
from mlstack.drivers.local.machine import Machine
from mlstack.spec.spec import Checkpoint, Out, Pool, SecretRef, Timeout
from tests.engines.own import OwnDocker
from tests.engines.session import Session
from tests.unit.local.local_runs import POOL, Runs, eventually, log_of

if TYPE_CHECKING:
    from docker import DockerClient


class ContainerRuns(Runs):
    """Runs of one-line stages in containers."""

    def __init__(self, root: Path, engine: "DockerClient", host: str, image: str) -> None:
        super().__init__(root)
        self.engine = engine
        self.host = host
        self.image = image

    def another_mlstack(self) -> DockerStages:
        return DockerStages(machine=Machine(cores=2, memory=2**33), secrets_from=self.secrets)

    def order(self, cmd: str, **known: Any) -> RunOrder:
        outs = known.pop("outs", ())
        settings = known.pop("settings", {})
        resources = known.pop("resources", {"cpu": 1.0})
        order = super().order(cmd, **known)
        stage = msgspec.structs.replace(order.stage, outs=tuple(Out(path=path) for path in outs))
        pool = Pool(address=POOL.address, target="docker", settings={"host": self.host, **settings})
        inherited = dict(DockerStages().inherited({}))
        return msgspec.structs.replace(
            order,
            stage=stage,
            pool=pool,
            image=self.image,
            resources=resources,
            environment=inherited | (known.get("env") or {}),
        )

    def containers(self, order: RunOrder) -> list[str]:
        label = f"dev.mlstack.folder={order.folder}"
        found = self.engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return [str(container.name) for container in found]


@pytest.fixture
def runs(tmp_path: Path, docker_engine: Any, base_image: str) -> ContainerRuns:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".mlstack").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print('from the project')\n")
    docker_engine.client.images.pull(base_image)
    return ContainerRuns(tmp_path, docker_engine.client, docker_engine.host, base_image)


def test_runs_the_projects_code_and_leaves_its_output_in_the_workspace(runs: ContainerRuns) -> None:
    (runs.root / "models").mkdir()
    order = runs.order("python3 src/train.py\necho 42 > models/out.txt", outs=("models/out.txt",))
    result = runs.run(order)
    assert (result.cause, result.exit_code) == (None, 0), (result, log_of(order))
    assert log_of(order) == b"from the project\n"
    assert (runs.root / "models/out.txt").read_text() == "42\n"
    assert (runs.root / "models/out.txt").stat().st_uid == os.getuid()
    assert runs.containers(order) == []


def test_stops_at_the_first_line_that_fails(runs: ContainerRuns) -> None:
    order = runs.order("echo one\nexit 3\necho two")
    result = runs.run(order)
    assert (result.cause, result.exit_code) == ("error", 3)
    assert log_of(order) == b"one\n"


@pytest.mark.parametrize(
    ("cmd", "says"),
    [
        ("touch src/new.py", b"Read-only file system"),
        ("touch /usr/new", b"Read-only file system"),
        ("ls .mlstack/runs", b"No such file"),
        ("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9), 1)'", b"Connection refused"),
        ("python3 -c 'import socket; print(socket.if_nameindex())'; exit 1", b"[(1, 'lo')]"),
    ],
)
def test_container_is_closed(runs: ContainerRuns, cmd: str, says: bytes) -> None:
    order = runs.order(cmd)
    result = runs.run(order)
    assert result.cause == "error"
    assert says in log_of(order)


def test_memory_limit_is_the_cause_that_is_told(runs: ContainerRuns) -> None:
    order = runs.order("python3 -c 'x = bytearray(400_000_000)'", resources={"cpu": 1.0, "memory": float(64 << 20)})
    result = runs.run(order)
    assert result.cause == "out-of-memory"


def test_secret_reaches_the_stage_and_is_masked_in_its_log(runs: ContainerRuns) -> None:
    runs.secrets["TOKEN"] = "a-very-secret-value"
    order = runs.order('echo "token: $TOKEN"; test ${#TOKEN} = 19')
    stage = msgspec.structs.replace(order.stage, secrets={"TOKEN": SecretRef("env://TOKEN")})
    result = runs.run(msgspec.structs.replace(order, stage=stage))
    assert result.cause is None
    assert log_of(order) == b"token: ***\n"
    assert b"a-very-secret-value" not in (order.folder / "order.json").read_bytes()


def test_secret_is_seen_by_the_command_alone(runs: ContainerRuns) -> None:
    """Not by who asks the engine, lists processes, or reads the project's files, during the run and after it."""
    value = 'it\'s "$HOME" \\n `id`\n-----END KEY-----\n\\'
    runs.secrets["TOKEN"] = value
    (runs.root / "out").mkdir()
    (runs.root / "src" / "look.py").write_text(
        "import hashlib, os, pathlib, sys, time\n"
        "assert sys.stdin.read() == ''\n"
        "token = os.environb[b'TOKEN']\n"
        "pathlib.Path('out/seen').write_text(hashlib.sha256(token).hexdigest())\n"
        "while not pathlib.Path('out/go').exists(): time.sleep(0.1)\n"
    )
    order = runs.order("python3 src/look.py", outs=("out/seen",))
    run = runs.start(order)
    eventually(lambda: bool((runs.root / "out" / "seen").is_file() and runs.containers(order)), within=120)
    (name,) = runs.containers(order)
    container = runs.engine.containers.get(name)
    first = psutil.Process(container.attrs["State"]["Pid"])
    lines = [process.cmdline() for process in (first, *first.children(recursive=True))]
    assert any("src/look.py" in line for line in lines)
    shown = json.dumps([container.attrs, lines, container.image.attrs])
    (runs.root / "out" / "go").touch()
    assert runs.wait(order, run).cause is None, log_of(order)
    assert (runs.root / "out" / "seen").read_text() == sha256(value.encode()).hexdigest()
    assert "END KEY" not in shown
    assert "TOKEN" not in shown, "not even its name"
    files = [path for path in runs.root.rglob("*") if path.is_file()]
    assert order.folder / "order.json" in files
    assert [path for path in files if b"END KEY" in path.read_bytes()] == []


@pytest.mark.parametrize("after", ["", " && echo never", "\necho never"], ids=["alone", "in-a-list", "first-line"])
def test_run_timeout_ends_it_gracefully(runs: ContainerRuns, after: str) -> None:
    (runs.root / "src" / "polite.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print('bye', flush=True), sys.exit(0)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    for seconds in (3.0, 30.0, 120.0):  # a busy machine may not have begun after the first of them
        known = {"timeout": Timeout(run=seconds), "checkpoint": Checkpoint(path="ckpt", grace=20)}
        order = runs.order(f"python3 src/polite.py{after}", name=f"train{seconds:.0f}", **known)
        result = runs.run(order)
        assert result.cause == "timeout", (result, log_of(order))
        if b"ready" in log_of(order):
            break
    assert log_of(order) == b"ready\nbye\n"
    assert runs.containers(order) == []


def test_one_that_ignores_the_request_is_killed(runs: ContainerRuns) -> None:
    order = runs.order("trap '' TERM; sleep 60 & wait; sleep 60", checkpoint=Checkpoint(path="ckpt", grace=1))
    run = runs.start(order)
    Timer(2.0, runs.stop.set).start()
    result = runs.wait(order, run)
    assert result.cause == "cancelled"
    assert runs.containers(order) == []


def test_another_mlstack_follows_it(runs: ContainerRuns) -> None:
    order = runs.order("sleep 5; echo done")
    run = runs.start(order)
    result = runs.wait(order, run, by=runs.another_mlstack())
    assert result.cause is None
    assert runs.wait(order, run).cause is None
    assert log_of(order) == b"done\n"


def test_container_of_a_run_whose_process_was_killed_is_ended(runs: ContainerRuns) -> None:
    order = runs.order("sleep 600")
    run = runs.start(order)
    eventually(lambda: bool(runs.containers(order)), within=120)
    os.kill(run.pid or 0, 9)
    result = runs.wait(order, run)
    assert result.cause == "error"
    assert runs.containers(order) == []


def test_missing_image_is_said(runs: ContainerRuns) -> None:
    order = msgspec.structs.replace(runs.order("true"), image="mlstack-no-such-image:1")
    result = runs.run(order)
    assert result.cause == "error"
    assert "mlstack-no-such-image:1: it was built here, is in no registry, and is gone" in result.detail


def test_engine_that_stops_in_mid_run_is_said_and_the_next_attempt_runs(
    runs: ContainerRuns, engines_session: Session
) -> None:
    (runs.root / "out").mkdir()
    engine = OwnDocker(engines_session)
    try:
        engine.start()
        client = engine.client()
        engine.take_image(runs.engine, runs.image)
        image = str(runs.engine.images.get(runs.image).id)
        there = ContainerRuns(runs.root, client, engine.host, image)
        order = there.order("echo begun; until test -f src/go; do sleep 0.1; done", outs=("out/x",))
        run = there.start(order)
        eventually(lambda: log_of(order) == b"begun\n", within=120)
        engine.stop()
        result = there.wait(order, run)
        assert result.cause == "error"
        engine.start()
        (there.root / "src" / "go").touch()
        again = there.run(order)
        assert again.cause is None, (again, log_of(order))
        assert there.containers(order) == []
        client.close()
    finally:
        engine.remove()
