"""The model server with packages from the registry, and servers that outlive the command that started them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from mlstack.drivers.local import endpoint_overlay
from mlstack.drivers.local.endpoint_process import birth_of, servers_below, stop_process, wait_until

pytestmark = pytest.mark.e2e

APPLY = """
import sys, threading
from pathlib import Path
from mlstack.drivers.base import StepContext
from mlstack.drivers.local.endpoints import LocalEndpoints
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import Hashed, ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Kind
from mlstack.spec.spec import Endpoint, Model, Pool, Spec, Variant
import hashlib, msgspec

root, version = Path(sys.argv[1]), sys.argv[2]
model = Model(address="models.m", stage="stages.s", out="m.txt", framework="python", code="served:Served")
endpoint = Endpoint(address="endpoints.e", pool="compute.local", variants={"main": Variant(model="models.m")})
pool = Pool(address="compute.local", target="local")
resources = {"compute.local": pool, "models.m": model, "endpoints.e": endpoint}
digest = hashlib.md5((root / "served.py").read_bytes()).hexdigest()
code = Hashed(path="served.py", digest=FileDigest(md5=digest, size=0))
graph = ResourceGraph(
    spec=Spec(file="mlstack.yaml", project="p", environment="local", resources=resources),
    resources=resources, needs={}, order=(), stages={}, model_code={"models.m": (code,)},
)
context = StepContext(
    root=root, graph=graph, resource=endpoint, record=None, versions={"models.m": version},
    say=lambda line: None, stop=threading.Event(),
)
driver = LocalEndpoints(find_python=lambda *_: (Path(sys.executable), {}))
change = Change(address="endpoints.e", kind=Kind.ENDPOINT, action=Action.CREATE, reasons=())
print(msgspec.json.encode(driver.apply(change, context).attributes).decode())
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / "m.txt").write_text("model")
    (folder / "served.py").write_text(
        "import os, time\nclass Served:\n"
        "    def load(self, path): time.sleep(2 if os.environ.get('LC_SLOW') else 0)\n"
        "    def predict(self, inputs): return list(inputs)\n"
    )
    yield folder
    for pid in servers_below(folder):
        stop_process(pid, birth_of(pid) or "", grace=1)


def command(root: Path) -> list[str]:
    version = md5(b"model", usedforsecurity=False).hexdigest()
    return [sys.executable, "-c", APPLY, str(root), version]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **more}


def ask(url: str) -> list[str]:
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}
    body = json.dumps({"inputs": [tensor]}).encode()
    with urlopen(Request(f"{url}/v2/models/m/infer", data=body), timeout=120) as response:
        found: list[str] = json.load(response)["outputs"][0]["data"]
        return found


def test_the_server_outlives_its_command_and_holds_nothing_of_it(root: Path, tmp_path: Path) -> None:
    # With captured output, `run` returns only when nobody holds the pipes any more.
    done = subprocess.run(command(root), env=environment(tmp_path), capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout)
    assert ask(known["url"]) == ["x"]
    for name in ("0", "1", "2"):
        assert Path(f"/proc/{known['pid']}/fd/{name}").readlink().name in {"null", "server.log"}
    assert os.getsid(known["pid"]) == known["pid"], "no terminal's hang-up reaches it"


def test_an_apply_killed_while_the_server_starts_is_made_good_by_the_next(root: Path, tmp_path: Path) -> None:
    slow = environment(tmp_path, LC_SLOW="1")
    first = subprocess.Popen(command(root), env=slow, stdout=subprocess.PIPE)
    assert wait_until(lambda: bool(servers_below(root)), seconds=240)
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = subprocess.run(command(root), env=slow, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout)
    assert list(servers_below(root)) == [known["pid"]], "nothing is left of the one that was killed"
    assert ask(known["url"]) == ["x"]


def test_packages_come_from_the_registry_when_mlstack_does_not_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(endpoint_overlay, "copy_own", lambda *_: False)
    said: list[str] = []
    folder = endpoint_overlay.ensure_overlay(Path(sys.executable), say=said.append)
    assert said == ["installing the model server's packages (once)"]
    code = "import uvicorn, starlette.applications, anyio; print(uvicorn.__file__, starlette.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(str(folder)) == 2
