"""Stages on Kubernetes, the whole way: images, a pool by Pulumi, pods that run for real, results by hash.

The remote is a stand-in for S3 on this machine, under one address for pods and for mlstack.
"""

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from tests.contract.registry_proxy import proxy_of
from tests.e2e.leaks import leaks
from tests.e2e.workspace import BIN, Workspace, clean_environment
from tests.engines.fixtures import BuildKit
from tests.engines.kube_client import KubeApi
from tests.engines.kubernetes import KubeNode
from tests.s3 import S3Server, s3_server

pytestmark = pytest.mark.e2e

TOKEN = "a-token-that-nobody-may-see"
FILE = """\
version: 1
project: NAME
registry: REGISTRY/NAME
remote: s3://store/dvc
targets:
  kubernetes:
    namespace: NAME
    remote_env:
      AWS_ACCESS_KEY_ID: testing
      AWS_SECRET_ACCESS_KEY: {secret: "env://AWS_SECRET_ACCESS_KEY"}
images:
  plain: {base: "BASE", python: system}
  runner: {base: "BASE", python: system}
compute:
  cluster: {target: kubernetes, each: {cpu: 0.1, memory: 128Mi}}
params: {steps: 2}
stages:
  prepare: {compute: cluster, image: plain, cmd: python3 prepare.py, deps: [prepare.py], outs: [data.csv]}
  train:
    compute: cluster
    image: plain
    cmd: python3 train.py
    deps: [data.csv, train.py]
    params: [steps]
    env: {TOKEN: {secret: "env://TOKEN"}}
    outs: {model: model.txt}
    metrics: [metrics.json]
    checkpoint: {path: ckpt, grace: 60s}
    retry: {preempted: 2}
"""
PREPARE = "open('data.csv', 'w').write('x\\n1\\n')\n"
TRAIN = """\
import json, os, time
assert os.getuid() != 0 and not any(name.startswith("AWS_") for name in os.environ)
print("the token is", os.environ["TOKEN"], flush=True)
steps = json.loads(os.environ["MLSTACK_PARAMS"])["steps"]
os.makedirs("ckpt", exist_ok=True)
first = int(open("ckpt/step").read()) if os.path.exists("ckpt/step") else 0
print("begins at", first, flush=True)
for step in range(first, steps):
    open("ckpt/step", "w").write(str(step + 1))
    print("step", step, flush=True)
    while (first, step) == (0, 3) and not os.path.exists("/tmp/go"):  # what the test does meanwhile takes its time
        time.sleep(0.2)
open("model.txt", "w").write(open("data.csv").read() + f"model of {steps} steps")
json.dump({"steps": steps, "begun_at": first}, open("metrics.json", "w"))
"""


class Cluster:
    """What the tests ask the cluster itself."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api, self.namespace = api, namespace

    def jobs(self) -> dict[str, Any]:
        """The Jobs of the project, by name."""
        found = self._api.call("GET", f"/apis/batch/v1/namespaces/{self.namespace}/jobs")
        return {each["metadata"]["name"]: each for each in found["items"]}

    def training_pod(self) -> str:
        """The pod that trains at this moment, once it has come to where it waits for `let_go`."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            found = self._api.call("GET", f"/api/v1/namespaces/{self.namespace}/pods")
            for each in found["items"]:
                name = str(each["metadata"]["name"])
                if name.startswith("train-") and each["status"].get("phase") == "Running" and self._waits(name):
                    return name
            time.sleep(0.5)
        raise AssertionError(f"nothing trains: {self.jobs()}")

    def _waits(self, pod: str) -> bool:
        try:
            return "step 3\n" in self._api.kubectl("-n", self.namespace, "logs", pod, "-c", "stage")
        except subprocess.CalledProcessError:  # its container is not made yet
            return False

    def let_go(self, pod: str) -> None:
        """Let a pod that trains come to its end."""
        self._api.kubectl("-n", self.namespace, "exec", pod, "-c", "stage", "--", "touch", "/tmp/go")

    def delete_pod(self, name: str) -> None:
        """Take a pod away, as a cluster does that needs the room."""
        self._api.call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{name}")


@pytest.fixture
def name() -> str:
    """What project and namespace are called: no other test's."""
    return f"stages-{secrets.token_hex(3)}"


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def store(s3: S3Server) -> S3Store:
    return s3.bucket("store")


@pytest.fixture
def project(
    name: str,
    tmp_path: Path,
    shared_cache: Path,
    kube_api: KubeApi,
    kube_node: KubeNode,
    pulumi_home: Path,
    pulumi_cli: Path,
    docker_shell: dict[str, str],
    buildkit: BuildKit,
    base_image: str,
    registry: str,
    s3: S3Server,
    store: S3Store,
) -> Iterator[Workspace]:
    """A project of two stages on the cluster."""
    (tmp_path / "home").mkdir()
    around = clean_environment(tmp_path / "home", shared_cache)
    environment = {
        **around,
        **docker_shell,
        **s3.variables,
        "AWS_ENDPOINT_URL": f"http://{kube_node.machine}:{s3.port}",
        "PATH": os.pathsep.join([around["PATH"], str(pulumi_cli.parent), docker_shell["PATH"]]),
        "BUILDKIT_HOST": buildkit.address,
        "KUBECONFIG": str(kube_api.kubeconfig),
        "PULUMI_HOME": str(pulumi_home),
        "TOKEN": TOKEN,
    }
    root = tmp_path / "project"
    root.mkdir()
    made = Workspace(root, environment)
    text = FILE.replace("NAME", name).replace("REGISTRY", registry).replace("BASE", base_image)
    for file, content in (("mlstack.yaml", text), ("prepare.py", PREPARE), ("train.py", TRAIN)):
        (root / file).write_text(content, encoding="utf-8")
    made.git("init", "-q")
    made.commit("A project")
    made.init()
    made.call(BIN / "dvc", ["remote", "add", "-q", "-d", "store", "s3://store/dvc"])
    made.call(BIN / "dvc", ["remote", "modify", "-q", "store", "endpointurl", environment["AWS_ENDPOINT_URL"]])
    made.call(BIN / "dvc", ["remote", "modify", "-q", "store", "region", "us-east-1"])
    made.commit("A remote")
    yield made
    made.mlstack("destroy", "--yes", code=None)
    kube_api.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def started(project: Workspace, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start `mlstack` in a session of its own."""
    command = [str(BIN / "mlstack"), *arguments]
    with (project.root.parent / "apply.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=project.root, env=project.environment, stdout=log, stderr=log, start_new_session=True
        )


def metrics(project: Workspace) -> dict[str, int]:
    """The metrics in the workspace."""
    found: dict[str, int] = json.loads((project.root / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_a_stage_trains_in_a_pod_whatever_is_killed(
    project: Workspace, name: str, kube_api: KubeApi, tmp_path: Path, store: S3Store
) -> None:
    """Trained once, for real; followed when mlstack is killed, tried again when the pod is, from its checkpoint."""
    cluster = Cluster(kube_api, name)
    # The whole way: results are recorded, metrics are here, the model stays in the remote; the next plan is empty.
    project.mlstack("apply", "--yes")
    assert metrics(project) == {"steps": 2, "begun_at": 0}
    assert not (project.root / "model.txt").exists()
    assert project.actions() == {}
    assert "the token is ***" in project.mlstack("logs", "stages.train").stdout
    project.commit("Results")
    # So is it in a fresh clone, which then has the model when it asks for it.
    clone = Workspace(tmp_path / "clone", project.environment)
    project.git("clone", "-q", str(project.root), str(clone.root))
    # (The pool is in a state of this folder's own, which the clone has not.)
    assert clone.actions("--target", "stages.train").keys() <= {"compute.cluster"}
    clone.mlstack("pull", "stages.train")
    assert (clone.root / "model.txt").read_text(encoding="utf-8").endswith("model of 2 steps")

    # mlstack is killed while a pod trains: the next apply follows that one.
    project.edit("mlstack.yaml", "steps: 2", "steps: 60")
    applying = started(project, "apply", "--yes")
    training = cluster.training_pod()
    os.killpg(applying.pid, signal.SIGKILL)
    applying.wait(60)
    before = set(cluster.jobs())
    assert project.row("stages.train")["change"]["actions"] == ["follow"]
    cluster.let_go(training)
    project.mlstack("apply", "--yes")
    assert metrics(project) == {"steps": 60, "begun_at": 0}
    assert set(cluster.jobs()) == before

    # The pod is taken away: another attempt goes on where it was.
    project.edit("mlstack.yaml", "steps: 60", "steps: 20")
    applying = started(project, "apply", "--yes")
    cluster.delete_pod(cluster.training_pod())
    assert applying.wait(600) == 0, (project.root.parent / "apply.log").read_text(encoding="utf-8")
    assert metrics(project)["steps"] == 20
    assert metrics(project)["begun_at"] > 0
    assert len(set(cluster.jobs()) - before) == 2

    # Left alone: apply returns with a code of its own, and the next one takes the result over.
    project.edit("mlstack.yaml", "steps: 20", "steps: 30")
    left = project.mlstack("apply", "--yes", "--detach", code=5)
    assert "stages.train: goes on" in left.stderr
    rows = json.loads(project.mlstack("status", "--json").stdout)["resources"]
    row = next(each for each in rows if each["address"] == "stages.train")
    assert row["status"] in {"waiting", "starting", "running"}
    assert row["because"]
    cluster.let_go(cluster.training_pod())
    assert "begins at 0" in project.mlstack("logs", "-f", "stages.train").stdout
    project.mlstack("apply", "--yes")
    assert metrics(project)["steps"] == 30

    # Cancelled: the run is over, and nothing of it is recorded.
    project.edit("mlstack.yaml", "steps: 30", "steps: 3000")
    project.mlstack("apply", "--yes", "--detach", code=5)
    cluster.training_pod()
    project.mlstack("cancel", "stages.train")
    assert project.actions() == {"stages.train": "run"}
    project.edit("mlstack.yaml", "steps: 3000", "steps: 30")
    assert project.actions() == {"stages.train": "update"}  # its result is there, dvc.yaml says 3000
    assert leaks(project.root, TOKEN) == []
    assert leaks(store, TOKEN) == []


def test_a_stage_whose_image_nodes_cannot_pull(project: Workspace, registry: str) -> None:
    """Nothing runs, what waits for it is not begun, and it is said which image and why."""
    with proxy_of(registry) as only_here:  # a registry that this machine reaches, and the node does not
        project.edit("mlstack.yaml", f"registry: {registry}/", f"registry: {only_here.address}/")
        failed = project.mlstack("apply", "--yes", code=1)
        assert project.actions() == {"stages.prepare": "run", "stages.train": "run"}
    said = " ".join((failed.stdout + failed.stderr).split())
    assert "error: A node cannot pull an image" in said
    assert "stages.prepare did not begin: its image cannot be pulled" in said
    assert only_here.address in said
    assert "See that nodes reach the registry" in said
    assert "stages.train: not started (stages.prepare failed)" in said
