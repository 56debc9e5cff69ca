"""Issue 5, tests and "Done when": a thousand nodes with accelerators, stages and endpoints on them, one of which fails.

Nodes and what runs on them are played; API server, controllers, scheduler and Pulumi's engine are real. The same with
two hundred stages and a hundred endpoints is a benchmark: `python -m tests.benchmarks --only scale`.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import cluster as clusters
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.cluster_project import MATRIX, image_references, write_project
from tests.benchmarks.played_runs import played_runs
from tests.e2e.workspace import Workspace, clean_environment
from tests.engines.fixtures import session_with
from tests.engines.groups import DOCKER, KUBERNETES_API
from tests.engines.kube_client import KubeApi, KubernetesError

pytestmark = pytest.mark.e2e

NODES, STAGES, ENDPOINTS = 1000, 20, 10
PROJECT, NAMESPACE, REFUSED = "scale", "scale-local", "e003"
WHY = "no more pods for this one, says the company"
_POLICIES = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def cluster(tmp_path: Path, pytestconfig: pytest.Config, pulumi_cli: Path) -> Iterator[Cluster]:
    """A cluster of the test's own, since a thousand nodes would be in the way of others: 8 GPUs each, all played."""
    del pulumi_cli  # or why it cannot be had
    session_with("Kubernetes", KUBERNETES_API)
    session_with("Image registry", DOCKER)
    folder = tmp_path / "cluster"
    folder.mkdir()
    with clusters.cluster(folder, provider=pytestconfig.getoption("--provider")) as made:
        made.nodes.add(NODES, capacity={"nvidia.com/gpu": "8"}, labels={"nvidia.com/gpu.product": "NVIDIA-L4"})
        made.nodes.wait_until_ready()
        yield made


@pytest.fixture
def project(tmp_path: Path, cluster: Cluster) -> Workspace:
    """A project in a Git repository of its own; the images that its pods name are in the registry."""
    root = tmp_path / "project"
    (tmp_path / "home").mkdir()
    root.mkdir()
    around = clean_environment(tmp_path / "home", tmp_path / "cache")
    path = f"{around['PATH']}{os.pathsep}{cluster.pulumi.parent}"
    made = Workspace(root, {**around, **cluster.variables, "PATH": path})
    write_project(root, cluster, name=PROJECT, endpoints=ENDPOINTS, stages=STAGES)
    made.git("init", "-q", "-b", "main")
    made.init()
    for reference in image_references(made.mlstack("plan", "--json").stdout):
        cluster.have_image(reference)
    return made


@contextmanager
def pods_refused(api: KubeApi, labels: dict[str, str]) -> Iterator[None]:
    """Have the API server refuse new pods with these labels while the block lasts."""
    name = f"refused-{os.urandom(4).hex()}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule], "objectSelector": {"matchLabels": labels}},
            "validations": [{"expression": "false", "message": WHY}],
        },
    }
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    api.call("POST", f"{_POLICIES}/validatingadmissionpolicies", policy)
    api.call("POST", f"{_POLICIES}/validatingadmissionpolicybindings", binding)
    try:
        _wait_until_refused(api, labels)
        yield
    finally:
        api.call("DELETE", f"{_POLICIES}/validatingadmissionpolicybindings/{name}")
        api.call("DELETE", f"{_POLICIES}/validatingadmissionpolicies/{name}")


def _wait_until_refused(api: KubeApi, labels: dict[str, str]) -> None:
    pod = {
        "metadata": {"name": "would-be", "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }

    def is_refused(_found: dict[str, Any]) -> bool:
        try:
            api.call("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod)
        except KubernetesError as error:
            return WHY in str(error)
        return False

    api.wait("/version", is_refused)


def events(text: str) -> list[dict[str, Any]]:
    """The lines of an apply with `--json`."""
    return [json.loads(line) for line in text.splitlines()]


def test_one_endpoint_of_ten_fails_on_a_thousand_nodes(cluster: Cluster, project: Workspace) -> None:
    planned = Counter(address.partition(".")[0] for address in project.actions())
    assert planned == {"compute": 2, "images": 2, "stages": 1 + STAGES, "endpoints": ENDPOINTS, "models": 1}

    # One endpoint's pods are refused: the other nine and all stages are done.
    labels = {"mlstack.dev/project": PROJECT, "mlstack.dev/address": f"endpoints.{REFUSED}"}
    with played_runs(cluster), pods_refused(cluster.api, labels):
        said = events(project.mlstack("apply", "--yes", "--json", code=1).stdout)
    failed = [line["diagnostic"] for line in said if line["type"] == "diagnostic" and line["@level"] == "error"]
    assert [(each["address"], each["code"]) for each in failed] == [(f"endpoints.{REFUSED}", "endpoint-pods-refused")]
    assert WHY in failed[0]["detail"]

    place = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"  # that a Job is done is said a moment before its pods count
    cluster.api.wait(place, lambda found: [each["status"].get("succeeded") for each in found["items"]] == [1] * STAGES)
    pods = cluster.api.call("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=batch.kubernetes.io/job-name")
    asked = [each["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for each in pods["items"]]
    assert asked == ["1"] * STAGES
    place = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"  # apply does not await the end of what it takes back
    deployments = cluster.api.wait(place, lambda found: len(found["items"]) < ENDPOINTS)["items"]
    ready = {each["metadata"]["name"]: each["status"].get("availableReplicas") for each in deployments}
    assert ready == {f"e{number:03d}": 1 for number in range(ENDPOINTS) if f"e{number:03d}" != REFUSED}
    results = [stage for stage in project.plan()["resource_changes"] if stage["address"].startswith("stages.train")]
    assert sorted(each["address"] for each in results) == sorted(f"stages.train[{MATRIX}={n}]" for n in range(STAGES))

    # The next apply makes what is missing and nothing else.
    assert project.actions() == {f"endpoints.{REFUSED}": "create"}
    project.mlstack("apply", "--yes")
    project.mlstack("plan", "--detailed-exitcode")
    project.mlstack("plan", "--detailed-exitcode", "--no-refresh")
