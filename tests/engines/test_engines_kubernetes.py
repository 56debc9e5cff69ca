"""The control plane and the played nodes do what the tests of mlstack stand on."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engines.go_tools import KUBERNETES, PULUMI
from tests.engines.kube_client import MERGE, KubeApi, KubernetesError
from tests.engines.kubernetes import PlayedNodes

pytestmark = pytest.mark.e2e


def pod(nodes: PlayedNodes, **limits: str) -> dict[str, Any]:
    container = {"name": "main", "image": "registry.invalid/none", "resources": {"limits": limits}}
    return {"containers": [container], **nodes.placement}


def test_server_and_kubectl_are_of_the_version_that_was_built(kube_api: KubeApi) -> None:
    assert kube_api.call("GET", "/version")["gitVersion"] == KUBERNETES.version
    said = kube_api.kubectl("version")
    assert f"Client Version: {KUBERNETES.version}" in said
    assert f"Server Version: {KUBERNETES.version}" in said


def test_deployment_becomes_ready_on_played_nodes(
    kube_api: KubeApi, kwok_nodes: PlayedNodes, kube_namespace: str
) -> None:
    kwok_nodes.add(2, capacity={"nvidia.com/gpu": "1"})
    assert [node["status"]["allocatable"]["nvidia.com/gpu"] for node in kwok_nodes.wait_until_ready()] == ["1", "1"]
    labels = {"app": "serve"}
    deployments = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    template = {"metadata": {"labels": labels}, "spec": pod(kwok_nodes, **{"nvidia.com/gpu": "1"})}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    kube_api.call("POST", deployments, {"metadata": {"name": "serve"}, "spec": spec})
    kube_api.wait(f"{deployments}/serve", lambda found: found["status"].get("readyReplicas") == 2)

    # A third has no GPU left: the scheduler is a real one.
    kube_api.call("PATCH", f"{deployments}/serve", {"spec": {"replicas": 3}}, kind=MERGE)
    said = kube_api.wait(
        f"/api/v1/namespaces/{kube_namespace}/pods",
        lambda found: any("Insufficient nvidia.com/gpu" in str(each["status"]) for each in found["items"]),
    )
    assert sorted(each["status"]["phase"] for each in said["items"]) == ["Pending", "Running", "Running"]


def test_fifty_pods_of_a_job_complete_on_played_nodes(
    kube_api: KubeApi, kwok_nodes: PlayedNodes, kube_namespace: str
) -> None:
    kwok_nodes.add(10, capacity={"nvidia.com/gpu": "8"})
    jobs = f"/apis/batch/v1/namespaces/{kube_namespace}/jobs"
    spec = {"completionMode": "Indexed", "completions": 50, "parallelism": 50}
    template = {"spec": pod(kwok_nodes, **{"nvidia.com/gpu": "1"}) | {"restartPolicy": "Never"}}
    kube_api.call("POST", jobs, {"metadata": {"name": "train"}, "spec": spec | {"template": template}})
    done = kube_api.wait(f"{jobs}/train", lambda found: "completionTime" in found["status"])
    assert done["status"]["succeeded"] == 50


def test_a_pod_of_its_own_accord_does_not_come_to_played_nodes(
    kube_api: KubeApi, kwok_nodes: PlayedNodes, kube_namespace: str
) -> None:
    kwok_nodes.add(1)
    kwok_nodes.wait_until_ready()
    spec = {"containers": [{"name": "main", "image": "x"}], "nodeSelector": {kwok_nodes.label: "played"}}
    kube_api.call("POST", f"/api/v1/namespaces/{kube_namespace}/pods", {"metadata": {"name": "one"}, "spec": spec})
    said = kube_api.wait(
        f"/api/v1/namespaces/{kube_namespace}/pods/one",
        lambda found: "untolerated taint" in str(found["status"]),
    )
    assert said["status"]["phase"] == "Pending"


def test_the_server_refuses_what_is_wrong(kube_api: KubeApi, kube_namespace: str) -> None:
    jobs = f"/apis/batch/v1/namespaces/{kube_namespace}/jobs"
    with pytest.raises(KubernetesError, match=r"spec\.template\.spec\.containers: Required value") as refused:
        kube_api.call("POST", jobs, {"metadata": {"name": "bad"}, "spec": {}})
    assert refused.value.code == 422


def test_pulumi_says_the_version_that_its_sdk_checks(pulumi_cli: Path, tmp_path: Path) -> None:
    environment = {"PULUMI_HOME": str(tmp_path), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    said = subprocess.run([pulumi_cli, "version"], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == PULUMI.version
