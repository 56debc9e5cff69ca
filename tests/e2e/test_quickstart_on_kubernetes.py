"""Issue 5, "Done when": the quickstart with `target: kubernetes`, as its README has it, on a real node."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from mlstack.drivers.local.endpoint_process import wait_until
from tests.e2e.conftest import Start
from tests.e2e.test_docker_target import INPUTS, PATIENT, client
from tests.e2e.workspace import Workspace
from tests.engines.kube_client import KubeApi
from tests.engines.kubernetes import KubeNode
from tests.s3 import s3_server

pytestmark = pytest.mark.e2e
__all__ = ["client"]

NAMESPACE = "quickstart-shared"
SECTION = re.compile(r"^## On a cluster$.*?^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def quickstart(
    start: Start,
    client: object,
    docker_shell: dict[str, str],
    registry: str,
    kube_api: KubeApi,
    kube_node: KubeNode,
    pulumi_cli: Path,
    pulumi_home: Path,
) -> Iterator[Workspace]:
    """The quickstart with what its README adds, and the names of this machine in it."""
    project = start("quickstart")
    found = SECTION.search((project.root / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    added = found[1].replace("s3://acme-ml/", "s3://store/").replace("registry.example.com", registry)
    with s3_server() as store:
        store.bucket("store")
        inside = f"http://{kube_node.machine}:{store.port}"
        key = "      AWS_ACCESS_KEY_ID:"
        added = added.replace(key, f"      AWS_ENDPOINT_URL: {inside}\n{key}")
        project.edit("mlstack.yaml", "version: 1\n", f"version: 1\n{added}")
        around = project.environment
        tools = [around["PATH"], docker_shell["PATH"].partition(os.pathsep)[0], str(pulumi_cli.parent)]
        project.environment = {
            **around,
            **docker_shell,
            **store.variables,
            "PATH": os.pathsep.join(tools),
            "AWS_ENDPOINT_URL": inside,
            "PULUMI_HOME": str(pulumi_home),
            "PULUMI_PASSPHRASE": "a passphrase of this test",
            "KUBECONFIG": str(kube_api.kubeconfig),
        }
        yield project
        project.mlstack("destroy", "--yes", code=None)
        kube_api.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def test_the_quickstart_on_a_cluster(quickstart: Workspace, kube_api: KubeApi, tmp_path: Path) -> None:
    project = quickstart
    project.init()
    checks = {each["name"]: each for each in json.loads(project.mlstack("doctor", "--json").stdout)["checks"]}
    wanted = ["pulumi", "pulumi's kubernetes", "pulumi's records", "image builder"]
    wanted += ["remote", "registry", "cluster of compute.cluster"]
    assert {checks[name]["status"] for name in wanted} == {"ok"}
    project.mlstack("apply", "--yes", "--commit")

    # Trained in pods, one Job a stage, well enough for the gate.
    place = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"  # that a Job is done is said a moment before its pods count
    done = kube_api.wait(place, lambda found: all(each["status"].get("succeeded") == 1 for each in found["items"]))
    jobs = done["items"]
    assert sorted(each["metadata"]["name"].partition("-")[0] for each in jobs) == ["evaluate", "prepare", "train"]
    metrics = json.loads((project.root / "metrics/test.json").read_text(encoding="utf-8"))
    assert 0 < metrics["rmse"] <= 60

    # Answered by a Deployment: to a person, and to who asks its Service.
    (said,) = json.loads(project.mlstack("predict", "progression", "--data", json.dumps([PATIENT]), "--json").stdout)[
        "outputs"
    ]
    service = kube_api.service_address("progression", NAMESPACE)
    headers = {"Content-Type": "application/json"}
    asked = Request(f"http://{service}/v2/models/progression/infer", json.dumps(INPUTS).encode(), headers)
    with urlopen(asked, timeout=120) as answer:
        (same,) = json.loads(answer.read())["outputs"]
    assert said["data"] == same["data"]
    assert 25 <= said["data"][0] <= 346, "how far the disease progressed, within what was measured"

    # The next plan is empty, in a fresh clone as well.
    clone = Workspace(tmp_path / "clone", project.environment)
    project.git("clone", "-q", str(project.root), str(clone.root))
    for each in (project, clone):
        assert each.mlstack("plan", "--detailed-exitcode").stdout.splitlines()[-1].startswith("No changes. ")

    project.mlstack("destroy", "--yes")
    namespaces = "/api/v1/namespaces"
    assert wait_until(
        lambda: all(each["metadata"]["name"] != NAMESPACE for each in kube_api.call("GET", namespaces)["items"]),
        seconds=180,
    )
