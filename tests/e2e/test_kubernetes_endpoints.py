"""Issue 5, "Done when": endpoints on a real node, made by `mlstack apply`, replaced under load, taken back."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlstack.drivers.local.endpoint_process import wait_until
from tests.e2e.workspace import Workspace, clean_environment
from tests.engines.fixtures import BuildKit
from tests.engines.kube_client import KubeApi, KubernetesError
from tests.engines.kubernetes import KubeNode
from tests.s3 import S3Server, s3_server
from tests.unit.serving.constant_clients import Client

pytestmark = pytest.mark.e2e

GOOD, OTHER = "endpoints.good", "endpoints.other"
SECRET = "a-token-that-must-be-nowhere-93b1"
CODE = """\
import json
import os


class Constant:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        if os.environ.get("BROKEN"):
            raise RuntimeError("this model wants to be left alone, says " + os.environ["TOKEN"])
        self.value = json.load(open(path))["value"]

    def predict(self, inputs):
        return [self.value for _ in inputs["x"]]
"""


class Cluster:
    """A project whose endpoints are on the cluster of the tests."""

    def __init__(self, project: Workspace, api: KubeApi, base: str, machine: str, store: S3Server) -> None:
        self.project, self.api, self.base = project, api, base
        self.name = f"e{os.urandom(4).hex()}"
        self.inside = f"http://{machine}:{store.port}"
        self.registry = base.partition("/")[0]

    def write(self, *, value: int = 1, good: dict[str, Any] | None = None, other: dict[str, Any] | None = None) -> None:
        """Write the file; what endpoints have beside their model is given, `other` is declared only then."""
        settings = {
            "namespace": self.name,
            "remote_env": {
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": {"secret": "env://AWS_SECRET_ACCESS_KEY"},
                "AWS_REGION": "us-east-1",
            },
            "remote_url_inside": self.inside,
        }
        one = {"compute": "serve", "image": "server", "model": "models.constant"}
        token = {"TOKEN": {"secret": "env://TOKEN"}}
        endpoints = {"good": {**one, "env": token, **(good or {})}}
        if other is not None:
            endpoints["other"] = {**one, **other, "env": {**token, **other.get("env", {})}}
        text = {
            "version": 1,
            "project": self.name,
            "registry": f"{self.registry}/{self.name}",
            "remote": "s3://store/here",
            "targets": {"kubernetes": settings, "docker": {"ca_bundle": True}},
            "compute": {
                "here": {"target": "local"},
                "serve": {"target": "kubernetes", "limits": {"cpu": 2, "memory": "4Gi"}, "each": {"cpu": "100m"}},
            },
            "images": {name: {"base": self.base, "python": "system"} for name in ("runner", "server")},
            "stages": {
                "make": {
                    "compute": "here",
                    "cmd": f"echo '{{\"value\": {value}}}' > model.json",
                    "outs": {"model": "model.json"},
                }
            },
            "models": {
                "constant": {
                    "from": "stages.make.outs.model",
                    "framework": "python",
                    "class": "src.constant:Constant",
                }
            },
            "endpoints": endpoints,
        }
        file = self.project.root / "mlstack.yaml"
        file.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")

    def get(self, path: str) -> dict[str, Any]:
        """Return an object of the namespace."""
        return self.api.call("GET", path.replace("NAMESPACE", self.name))

    def address(self, name: str = "good") -> str:
        """Return where the Service of an endpoint answers, also on this machine."""
        found = self.get(f"/api/v1/namespaces/NAMESPACE/services/{name}")
        return f"{found['spec']['clusterIP']}:80"

    def answer(self, name: str = "good") -> Any:
        """Ask an endpoint as a person does."""
        said = self.project.mlstack("predict", f"endpoints.{name}", "--data", "[[1.0]]", "--json").stdout
        return json.loads(said)["outputs"][0]["data"][0]

    def apply_under_load(self, *, until: Any) -> None:
        """Apply while the endpoint is asked all the time, until everybody gets this answer; no request is lost.

        A connection that is kept stays with the pod that goes for as long as that still answers.
        """
        clients = [Client(self.address(), "constant", keep_alive=keep, patience=120) for keep in (True, False)]
        for client in clients:
            client.start()
        try:
            self.project.mlstack("apply", "--yes")
            wait_until(
                lambda: any(one.faults for one in clients) or all(one.answers[-1:] == [until] for one in clients),
                seconds=180,
            )
        finally:
            for client in clients:
                client.ended.set()
            for client in clients:
                client.join()
        assert [client.faults for client in clients] == [[], []]
        assert [client.answers[-1] for client in clients] == [until, until]


@pytest.fixture
def cluster(
    tmp_path: Path,
    kube_api: KubeApi,
    kube_node: KubeNode,
    pulumi_cli: Path,
    pulumi_home: Path,
    base_image: str,
    buildkit: BuildKit,
    docker_shell: dict[str, str],
) -> Iterator[Cluster]:
    (tmp_path / "home").mkdir()
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "constant.py").write_text(CODE, encoding="utf-8")
    (root / "src" / "__init__.py").touch()
    with s3_server() as store:
        store.bucket("store")
        around = clean_environment(tmp_path / "home", tmp_path / "cache")
        tools = [docker_shell["PATH"].partition(os.pathsep)[0], str(pulumi_cli.parent)]
        environment = {
            **around,
            **{name: value for name, value in docker_shell.items() if name != "PATH"},
            **store.variables,
            "PATH": os.pathsep.join([around["PATH"], *tools]),
            "BUILDKIT_HOST": buildkit.address,
            "PULUMI_HOME": str(pulumi_home),
            "KUBECONFIG": str(kube_api.kubeconfig),
            "TOKEN": SECRET,
        }
        project = Workspace(root, environment)
        made = Cluster(project, kube_api, base_image, kube_node.machine, store)
        made.write()
        project.git("init", "-q", "-b", "main")
        project.init()
        yield made
        project.mlstack("destroy", "--yes", code=None)
        with suppress(KubernetesError):  # it went with the pool
            kube_api.call("DELETE", f"/api/v1/namespaces/{made.name}")


def test_an_endpoint_on_a_cluster(cluster: Cluster) -> None:
    project = cluster.project
    project.mlstack("apply", "--yes", "--commit")
    assert cluster.answer() == 1
    project.assert_settled()
    assert "ready" in project.mlstack("status").stdout
    assert "ready at http" in project.mlstack("logs", GOOD).stdout
    (pod,) = cluster.get("/api/v1/namespaces/NAMESPACE/pods")["items"]
    assert pod["spec"]["containers"][0]["image"].partition("@")[2].startswith("sha256:")

    # Somebody scales it by hand: shown, and taken back.
    place = "/apis/apps/v1/namespaces/NAMESPACE/deployments/good".replace("NAMESPACE", cluster.name)
    cluster.api.kubectl("scale", "deployment/good", "--replicas=2", "-n", cluster.name)
    row = project.row(GOOD)
    assert row["drift"]
    assert "spec.replicas" in row["because"]
    project.mlstack("apply", "--yes")
    assert cluster.api.call("GET", place)["spec"]["replicas"] == 1

    # Another model takes its place while it is asked: no request is lost.
    cluster.write(value=2)
    cluster.apply_under_load(until=2)

    # One of two does not get ready: it is taken back and told with its own words, the other one is done.
    cluster.write(value=2, good={"replicas": {"min": 2, "max": 2}}, other={"env": {"BROKEN": "1"}})
    failed = project.mlstack("apply", "--yes", code=1)
    said = failed.stdout + failed.stderr
    assert "The endpoint keeps ending" in said
    assert "this model wants to be left alone, says ***" in said
    assert SECRET not in said
    assert cluster.api.call("GET", place)["status"]["readyReplicas"] == 2
    taken_back = "/apis/apps/v1/namespaces/NAMESPACE/deployments/other".replace("NAMESPACE", cluster.name)
    assert wait_until(lambda: _is_gone(cluster.api, taken_back), seconds=180), "its pods end after apply has"
    assert project.actions() == {OTHER: "create"}

    # The namespace is deleted by hand: shown as such, and made again with what was in it.
    cluster.write(value=2)
    cluster.api.call("DELETE", f"/api/v1/namespaces/{cluster.name}")
    gone = f"/api/v1/namespaces/{cluster.name}"
    assert wait_until(lambda: _is_gone(cluster.api, gone), seconds=180)
    assert "was removed outside of mlstack" in project.mlstack("plan").stdout
    project.mlstack("apply", "--yes")
    assert cluster.answer() == 2
    for path in project.root.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            assert SECRET.encode() not in path.read_bytes(), f"{path} holds a secret"


def _is_gone(api: KubeApi, path: str) -> bool:
    try:
        api.call("GET", path)
    except KubernetesError as error:
        return error.code == 404
    return False
