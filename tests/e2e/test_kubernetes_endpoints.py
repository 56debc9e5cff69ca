"""Issue 5, "Done when": endpoints on a real node, made by `mlstack apply`, replaced under load, taken back."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from obstore.store import S3Store

from mlstack.drivers.local.endpoint_process import wait_until
from tests.contract.registry_proxy import proxy_of
from tests.e2e.leaks import leaks
from tests.e2e.workspace import Done, Workspace, clean_environment
from tests.engines.fixtures import BuildKit
from tests.engines.kube_client import KubeApi, KubernetesError
from tests.engines.kubernetes import KubeNode
from tests.s3 import S3Server, s3_server
from tests.unit.serving.constant_clients import Client

pytestmark = pytest.mark.e2e

GOOD, OTHER = "endpoints.good", "endpoints.other"
SECRET = "a-token-that-must-be-nowhere-93b1"
GONE_WITHIN = 300.0
"""Seconds for what the cluster does after apply; pods have up to 50 to answer what they were asked."""
IDLE = 2.0
"""Seconds for which a connection may idle and be used again: servers end one after 5."""
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

    def __init__(
        self, project: Workspace, api: KubeApi, base: str, machine: str, store: S3Server, bucket: S3Store
    ) -> None:
        self.project, self.api, self.base, self.bucket = project, api, base, bucket
        self.name = f"e{os.urandom(4).hex()}"
        self.inside = f"http://{machine}:{store.port}"
        self.registry = base.partition("/")[0]

    def write(
        self,
        *,
        value: int = 1,
        good: dict[str, Any] | None = None,
        other: dict[str, Any] | None = None,
        target: str = "kubernetes",
        called: str = "good",
    ) -> None:
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
        endpoints = {called: {**one, "env": token, **(good or {})}}
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
                "serve": {"target": target, "limits": {"cpu": 2, "memory": "4Gi"}, "each": {"cpu": "100m"}},
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
            "moved": [{"from": GOOD, "to": f"endpoints.{called}"}] if called != "good" else [],
        }
        file = self.project.root / "mlstack.yaml"
        file.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")

    def get(self, path: str) -> dict[str, Any]:
        """Return an object of the namespace."""
        return self.api.call("GET", path.replace("NAMESPACE", self.name))

    def secrets_of(self, name: str) -> list[str]:
        """Return the Secrets that an endpoint has, by their names."""
        found = self.get("/api/v1/namespaces/NAMESPACE/secrets")["items"]
        return [each["metadata"]["name"] for each in found if name in each["metadata"]["name"]]

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods that are there, those on their way out as well."""
        return list(self.get("/api/v1/namespaces/NAMESPACE/pods")["items"])

    def address(self, name: str = "good") -> str:
        """Return where the Service of an endpoint answers, also on this machine."""
        return f"{self.api.service_address(name, self.name)}:80"

    def answer(self, name: str = "good") -> Any:
        """Ask an endpoint as a person does."""
        said = self.project.mlstack("predict", f"endpoints.{name}", "--data", "[[1.0]]", "--json").stdout
        return json.loads(said)["outputs"][0]["data"][0]

    def status(self, token: str | None) -> int:
        """Ask the endpoint itself for a prediction, and return with which status it answers."""
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {token}"} if token is not None else {}
        url = f"http://{self.address()}/v2/models/constant/infer"
        try:
            request = Request(url, data=json.dumps({"inputs": [tensor]}).encode(), headers=headers)
            with urlopen(request, timeout=120) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def places_of(self, text: str) -> list[str]:
        """Return what holds a text: files of the project, objects of the remote and of the cluster but for Secrets."""
        found = [str(each) for place in (self.project.root, self.bucket) for each in leaks(place, text)]
        kinds = ["deployments", "replicasets", "pods", "services", "configmaps", "events", "jobs"]
        said = {kind: self.api.kubectl("get", kind, "-n", self.name, "-o", "json") for kind in kinds}
        return found + [kind for kind in kinds if text in said[kind]]

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
                seconds=GONE_WITHIN,
            )
        finally:
            for client in clients:
                client.ended.set()
            for client in clients:
                client.join()
        assert [client.faults for client in clients] == [[], []]
        assert [client.answers[-1] for client in clients] == [until, until]


class Renaming:
    """Asks an endpoint until it is gone, and notes how many replicas of the one of the next name are ready then."""

    def __init__(self, cluster: Cluster, before: str, after: str) -> None:
        self.cluster, self.before, self.after = cluster, before, after
        self.connection = HTTPConnection(cluster.address(before), timeout=120)
        self.given_up = threading.Event()
        self.asked = 0
        self.ready_then: int | None = None
        self.faults: list[str] = []
        self.threads = [threading.Thread(target=each) for each in (self._look, self._ask)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.threads[0].join(timeout=60)  # the end of apply is the end of the one before
        self.given_up.set()
        for thread in self.threads:
            thread.join()
        self.connection.close()

    def _gone(self) -> bool:
        kinds = ("apis/apps/v1/namespaces/{}/deployments/{}", "api/v1/namespaces/{}/services/{}")
        places = [f"/{kind.format(self.cluster.name, self.before)}" for kind in kinds]
        return any(_is_gone(self.cluster.api, place) for place in places)

    def _look(self) -> None:
        while not self.given_up.wait(0.05):
            if self._gone():
                found = self.cluster.get(f"/apis/apps/v1/namespaces/NAMESPACE/deployments/{self.after}")
                self.ready_then = found.get("status", {}).get("readyReplicas", 0)
                return

    def _ask(self) -> None:
        """Ask over one connection: it stays with its pod, which answers until it ends. After that none is made."""
        answered = time.monotonic()
        while not self.given_up.wait(0.02):
            if time.monotonic() - answered > IDLE:  # it was we who stood still
                self.connection.close()
            try:
                self.connection.request("GET", "/v2/health/ready")
                answer = self.connection.getresponse()
                answer.read()
            except (OSError, HTTPException) as error:
                if self._gone():
                    return
                self.faults.append(repr(error))
                self.connection.close()
            else:
                self.asked, answered = self.asked + 1, time.monotonic()
                if answer.status != 200 and not self._gone():
                    self.faults.append(str(answer.status))


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
        bucket = store.bucket("store")
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
        made = Cluster(project, kube_api, base_image, kube_node.machine, store, bucket)
        made.write()
        project.git("init", "-q", "-b", "main")
        project.init()
        yield made
        project.mlstack("destroy", "--yes", code=None)
        with suppress(KubernetesError):  # it went with the pool
            kube_api.call("DELETE", f"/api/v1/namespaces/{made.name}")


def test_an_endpoint_on_a_cluster(cluster: Cluster) -> None:
    project = cluster.project
    # What is not known before the first apply is in no plan as anything but that.
    for form in (["--json"], ["--out", "of-tests.plan"], []):
        (project.root / f"of-tests{len(form)}.txt").write_text(project.mlstack("plan", *form).stdout, encoding="utf-8")
    project.mlstack("apply", "--yes", "--commit")
    assert cluster.answer() == 1
    project.assert_settled()
    assert "ready" in project.mlstack("status").stdout
    assert "ready at http" in project.mlstack("logs", GOOD).stdout
    (pod,) = cluster.pods()
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
    assert wait_until(lambda: _is_gone(cluster.api, taken_back), seconds=GONE_WITHIN), "its pods end after apply has"
    assert project.actions() == {OTHER: "create"}
    assert cluster.secrets_of("other") == []

    # The namespace is deleted by hand: shown as such, and made again with what was in it.
    cluster.write(value=2)
    cluster.api.call("DELETE", f"/api/v1/namespaces/{cluster.name}")
    gone = f"/api/v1/namespaces/{cluster.name}"
    assert wait_until(lambda: _is_gone(cluster.api, gone), seconds=GONE_WITHIN)
    assert "was removed outside of mlstack" in project.mlstack("plan").stdout
    project.mlstack("apply", "--yes")
    assert cluster.answer() == 2

    # It moves to this machine, and the next plan is empty; of what was on the cluster nothing is left.
    cluster.write(value=2, target="local")
    project.mlstack("apply", "--yes")
    assert cluster.answer() == 2
    assert project.actions() == {}
    assert wait_until(lambda: _is_gone(cluster.api, gone), seconds=GONE_WITHIN)

    # And back: nothing is computed anew, and nothing is left on this machine.
    cluster.write(value=2)
    assert project.actions() == {"compute.serve": "create", GOOD: "update"}
    project.mlstack("apply", "--yes")
    assert cluster.answer() == 2
    assert project.actions() == {}
    assert list((project.root / ".mlstack" / "endpoints").rglob("*.json")) == []

    # It gets another name: the one before answers until the new one is ready, and then nothing is left of it.
    cluster.write(value=2, called="better")
    assert project.actions() == {"endpoints.better": "delete/create"}
    with Renaming(cluster, "good", "better") as asking:
        project.mlstack("apply", "--yes")
    assert (asking.faults, asking.ready_then) == ([], 1)
    assert asking.asked > 0
    assert cluster.answer("better") == 2
    assert project.actions() == {}
    assert cluster.secrets_of("good") == []
    assert leaks(project.root, SECRET) == []
    assert leaks(cluster.bucket, SECRET) == []


def test_an_endpoint_answers_who_shows_its_token(cluster: Cluster) -> None:
    """Another value is a change that the plan shows, and replaces the pods. It is written nowhere."""
    project, first, second = cluster.project, "a-token-of-callers-5c0e", "the-next-token-of-callers-77aa"
    environment = {**project.environment}
    project.environment = {**environment, "GOOD_TOKEN": first}
    cluster.write(good={"auth": {"token": {"secret": "env://GOOD_TOKEN"}}})
    said = [project.mlstack("plan", "--json"), project.mlstack("apply", "--yes", "--commit")]
    assert [cluster.status(each) for each in (None, second, first)] == [401, 401, 200]
    assert cluster.answer() == 1
    project.assert_settled()

    project.environment = {**environment, "GOOD_TOKEN": second}
    refused = project.mlstack("predict", GOOD, "--data", "[[1.0]]", code=1).stderr
    assert "The token is not the one of this endpoint" in " ".join(refused.split())
    assert "secrets_version" in project.row(GOOD)["because"]
    said += [project.mlstack("plan"), project.mlstack("apply", "--yes"), project.mlstack("logs", GOOD)]
    assert cluster.answer() == 1, "the API server knows of the new pod alone, while the old one still answers"
    assert wait_until(lambda: len(cluster.pods()) == 1, seconds=GONE_WITHIN), "a node may send to the old pod till then"
    assert [cluster.status(each) for each in (None, first, second)] == [401, 401, 200]

    project.environment = environment
    planned = project.mlstack("plan").stdout
    assert "the values of its secrets are the same (MLSTACK_ENDPOINT_TOKEN, TOKEN): not all can be had" in planned
    assert "No changes. 1 resource was not checked." in planned
    said.append(project.mlstack("show", GOOD, "--json"))

    for value in (first, second, SECRET):
        assert cluster.places_of(value) == []
        assert not any(value in text for done in said for text in _texts(done))


def test_an_image_that_nodes_cannot_pull(cluster: Cluster) -> None:
    """An endpoint goes on with what it had, a new one is taken back, and both say so."""
    project = cluster.project
    project.mlstack("apply", "--yes", "--commit")
    with proxy_of(cluster.registry) as only_here:  # a registry that this machine reaches, and the node does not
        cluster.registry = only_here.address
        cluster.write(other={})
        failed = project.mlstack("apply", "--yes", code=1)
        assert project.actions() == {GOOD: "update", OTHER: "create"}
    said = " ".join((failed.stdout + failed.stderr).split())
    assert said.count("error: A node cannot pull an image") == 2
    assert f"{only_here.address}/{cluster.name}" in said
    assert "See that nodes reach the registry" in said
    assert cluster.answer() == 1
    deployments = "/apis/apps/v1/namespaces/NAMESPACE/deployments".replace("NAMESPACE", cluster.name)
    assert wait_until(lambda: _is_gone(cluster.api, f"{deployments}/other"), seconds=GONE_WITHIN)
    assert cluster.api.call("GET", f"{deployments}/good")["status"]["readyReplicas"] == 1


def _texts(done: Done) -> tuple[str, str]:
    return done.stdout, done.stderr


def _is_gone(api: KubeApi, path: str) -> bool:
    try:
        api.call("GET", path)
    except KubernetesError as error:
        return error.code == 404
    return False
