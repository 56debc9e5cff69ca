"""The runner on S3 (moto, a real server), and in real containers: read-only root, no rights, only its overlay."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.drivers.remote_run.overlay import ensure_runner_overlay
from mlstack.runner.layout import blob_key, run_prefix
from mlstack.runner.order import Checkpoint, Remote
from mlstack.runner.problems import Problem
from mlstack.runner.store import Store
from mlstack.spec.address import Address, slug
from tests.e2e.flaky_proxy import flaky
from tests.s3 import S3Server, s3_server
from tests.unit.runner.runner_place import Place, held, wait_until

if TYPE_CHECKING:
    from docker.models.containers import Container

    from tests.engines.fixtures import DockerEngine

pytestmark = pytest.mark.e2e

BUCKET = "store"
WRITE = "open('out.txt', 'w').write('made')\n"
MADE = {"out.txt": hashlib.md5(b"made").hexdigest()}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server("0.0.0.0") as found:
        found.bucket(BUCKET)
        yield found


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        for folder in (cache, *cache.parents[:2]):
            folder.chmod(0o755)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return ensure_runner_overlay(say=print)


@pytest.fixture
def place(server: S3Server, overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    variables = {**server.variables, "MLSTACK_RUNNER_PATIENCE": "240"}
    found = Place(tmp_path, overlay, url=f"s3://{BUCKET}/{tmp_path.name}", variables=variables)
    yield found
    found.end_all()


# -------------------------------------------------------------------------------------------------------------- S3


def test_a_run_on_s3(place: Place) -> None:
    large = os.urandom(40 << 20)  # more than one request, in both directions
    place.order(
        "import shutil\nshutil.copy('data/large.bin', 'large.bin')\nshutil.copytree('data/many', 'many')\n",
        outs=("large.bin", "many"),
        inputs=(
            held("data/large.bin", _put_large(place, large)),
            held("data/many", place.tree({f"{number}": b"x" * number for number in range(300)})),
        ),
    )
    code, output = place.run()
    assert code == 0, output
    assert place.made() == {
        "large.bin": hashlib.md5(large).hexdigest(),
        "many": place.tree({f"{number}": b"x" * number for number in range(300)}),
    }
    assert place.run()[1] == "mlstack: attempt 1 has done this run: nothing to do\n"
    assert b"testing-secret-key" not in place.everything()


def _put_large(place: Place, data: bytes) -> str:
    md5 = hashlib.md5(data).hexdigest()
    place.store.put_parts(blob_key(md5), lambda: iter([data]))
    return md5


def test_a_record_is_created_once_on_s3(place: Place) -> None:
    assert place.store.create("x", b"first")
    assert not place.store.create("x", b"second")
    assert place.store.create("x", b"first"), "a request that was tried again finds what it wrote"
    assert place.store.get("x") == b"first"


def test_names_of_matrix_instances_survive_s3(place: Place) -> None:
    prefix = run_prefix(slug(Address("stages.train[depth=6,lr=0.1]")), "f" * 64)
    place.store.put(f"{prefix}result.json", b"x")
    assert [each.key for each in place.store.listing(prefix)] == [f"{prefix}result.json"]
    assert place.store.get(f"{prefix}result.json") == b"x"


def test_no_such_bucket(place: Place) -> None:
    place.order(WRITE, remote=Remote("s3://no-such-bucket/x"))
    code, output = place.run()
    assert code == 121
    assert "the remote has no code bundle" in output
    with pytest.raises(Problem, match="s3://no-such-bucket/x does not exist"):
        Store("s3://no-such-bucket/x").put("key", b"")


def test_a_server_that_fails_now_and_then(place: Place, server: S3Server) -> None:
    place.order(WRITE, inputs=(held("data", place.tree({f"{n}": bytes([n]) * 100 for n in range(60)})),))
    with flaky(server.port, every=5) as proxy:
        code, output = place.run(AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}", MLSTACK_RUNNER_BEAT="0.2")
    assert code == 0, output
    assert proxy.failed > 10
    assert place.made() == MADE


# ------------------------------------------------------------------------------------------------------ containers


class Box:
    """Containers as Kubernetes would have them: read-only root, another user, no new rights, only the overlay."""

    def __init__(self, engine: "DockerEngine", image: str, place: Place, server: S3Server, overlay: Path) -> None:
        self._engine, self._image, self._place, self._overlay = engine, image, place, overlay
        (config,) = engine.client.networks.get("bridge").attrs["IPAM"]["Config"]
        self._variables = S3Server(server.port, config["Gateway"]).variables
        self._made: list[Container] = []

    def start(self, *, user: str = "4321:4321", **more: Any) -> "Container":
        variables = {
            **self._variables,
            "MLSTACK_ORDER": f"{self._place.store.url}/{self._place.keys.order}",
            "MLSTACK_WORK": "/scratch/run",
            "MLSTACK_RUNNER_BEAT": "0.2",
            **more.pop("variables", {}),
        }
        container = self._engine.client.containers.run(
            self._image,
            ["python3", "-I", "-S", "/mlstack/runner/boot.py"],
            detach=True,
            environment=variables,
            user=user,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            volumes={str(self._overlay): {"bind": "/mlstack", "mode": "ro"}},
            tmpfs={"/scratch": "mode=1777,size=200m"},
            **more,
        )
        self._made.append(container)
        return container

    def run(self, **more: Any) -> tuple[int, str]:
        container = self.start(**more)
        code = int(container.wait(timeout=240)["StatusCode"])
        return code, container.logs().decode()

    def remove_all(self) -> None:
        for container in self._made:
            container.remove(force=True)


@pytest.fixture
def box(docker_engine: "DockerEngine", base_image: str, place: Place, server: S3Server, overlay: Path) -> Iterator[Box]:
    found = Box(docker_engine, base_image, place, server, overlay)
    yield found
    found.remove_all()


def test_in_a_container_without_rights(place: Place, box: Box) -> None:
    script = (
        "import os, pathlib, sys\n"
        "pathlib.Path.home().joinpath('cache').write_text('')\n"
        "import tempfile; tempfile.NamedTemporaryFile().close()\n"
        "print(os.getuid(), os.environ.get('HOME'), [p for p in sys.path if 'mlstack' in p])\n"
        "print(open('data/a').read())\n" + WRITE
    )
    place.order(script, commands=("python3 train.py",), inputs=(held("data", place.tree({"a": b"from S3"})),))
    code, output = box.run()
    assert code == 0, output
    assert "4321 /scratch/run/.mlstack/home []\nfrom S3\n" in output
    assert place.made() == MADE
    (end,) = place.ends()
    assert place.log(end) == output


def test_a_container_that_is_stopped_keeps_its_checkpoint(place: Place, box: Box) -> None:
    script = (
        "import pathlib, time\nstep = pathlib.Path('ckpt/step')\n"
        "was_there = step.exists(); step.write_text('1')\n"
        "print('begins', was_there, flush=True)\n"
        "if not was_there: time.sleep(600)\n" + WRITE
    )
    place.order(script, commands=("python3 train.py",), checkpoint=Checkpoint("ckpt", every=3600), grace=3.0)
    container = box.start()
    wait_until(lambda: b"begins False" in container.logs())
    container.stop(timeout=120)
    assert container.wait(timeout=240)["StatusCode"] == 143
    assert place.ends()[-1].cause == "stopped"
    code, output = box.run(variables={"MLSTACK_ATTEMPT": "2"})
    assert code == 0, output
    assert "begins True" in output


def test_lack_of_memory_is_called_so(place: Place, box: Box) -> None:
    place.order("print('grows', flush=True)\nx = bytearray(400 << 20)\n", commands=("python3 train.py",))
    code, output = box.run(mem_limit="160m", memswap_limit="160m")
    assert code == 137, output
    (end,) = place.ends()
    assert (end.cause, end.exit_code) == ("out-of-memory", 137)


def test_orphans_do_not_pile_up_below_the_first_process(place: Place, box: Box) -> None:
    script = (
        "import subprocess, time, os\n"
        "for _ in range(20): subprocess.run(['sh', '-c', 'sleep 0.01 & true'])\n"
        "def of(pid):\n"
        "    try: return open(f'/proc/{pid}/stat').read()\n"
        "    except OSError: return ''\n"
        "def left(): return sum('(sleep)' in of(pid) for pid in os.listdir('/proc') if pid.isdigit())\n"
        "until = time.monotonic() + 120\n"
        "while left() and time.monotonic() < until: time.sleep(0.1)\n"
        "print('left', left())\n" + WRITE
    )
    place.order(script, commands=("python3 train.py",))
    code, output = box.run()
    assert code == 0, output
    assert "left 0\n" in output


def test_as_root_the_command_runs_as_the_declared_user(place: Place, box: Box) -> None:
    script = "import os; print(os.getuid(), os.getgid())\n" + WRITE
    place.order(script, commands=("python3 train.py",), user="4321:1234")
    code, output = box.run(user="0:0", cap_add=["SETUID", "SETGID", "CHOWN"])
    assert code == 0, output
    assert "4321 1234\n" in output


def test_no_order_is_said(box: Box) -> None:
    code, output = box.run(variables={"MLSTACK_ORDER": ""})
    assert (code, "there is no order" in output) == (121, True)


def test_dvc_pulls_a_result_from_s3(place: Place, server: S3Server, tmp_path: Path) -> None:
    script = "import pathlib; pathlib.Path('model').mkdir(); pathlib.Path('model/a').write_text('1')"
    place.order(script, outs=("model",))
    assert place.run()[0] == 0
    result = place.result()
    assert result is not None
    (out,) = result.outs
    root = tmp_path / "project"
    root.mkdir()
    home = {"HOME": str(tmp_path), "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    environment = {**os.environ, **home}

    def dvc(*arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    dvc("init", "-q", "--no-scm")
    dvc("remote", "add", "-d", "store", place.url)
    dvc("remote", "modify", "store", "endpointurl", server.endpoint)
    row = {"path": "model", "hash": "md5", "md5": out.md5, "size": out.size, "nfiles": out.nfiles}
    (root / "model.dvc").write_text(json.dumps({"outs": [row]}))
    dvc("pull", "model.dvc")
    assert (root / "model" / "a").read_text() == "1"
