"""Pulumi's engine and the stand-in for its Kubernetes provider, on a real control plane: the life of a stack.

`--provider PATH` runs the same with another provider, such as the real one.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.engines.kube_client import MERGE, KubeApi
from tests.engines.kubernetes import PlayedNodes
from tests.engines.stacks import Hidden, Stack

pytestmark = pytest.mark.e2e


@pytest.fixture
def stack(pulumi_cli: Path, pulumi_home: Path, kube_api: KubeApi, tmp_path: Path) -> Stack:
    return Stack(pulumi_cli, pulumi_home, tmp_path, kube_api.kubeconfig.read_text(encoding="utf-8"))


def config_map(namespace: str, name: str, **data: object) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def deployment(namespace: str, nodes: PlayedNodes, *, replicas: int) -> dict[str, Any]:
    labels = {"app": "web"}
    resources = {"requests": {"cpu": "0.1", "memory": "1024Ki"}}
    container = {"name": "main", "image": "registry.invalid/none", "resources": resources}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], **nodes.placement}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace, "annotations": {"pulumi.com/patchForce": "true"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def test_life_of_a_stack(stack: Stack, kube_api: KubeApi, kwok_nodes: PlayedNodes, kube_namespace: str) -> None:
    kwok_nodes.add(1)
    name = f"{kube_namespace}-stack"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    stack.objects = [namespace, config_map(name, "settings", colour="red"), deployment(name, kwok_nodes, replicas=2)]
    path = f"/apis/apps/v1/namespaces/{name}/deployments/web"

    assert stack.run("preview")["create"] == 5
    assert stack.run("up")["create"] == 5
    assert kube_api.call("GET", path)["status"]["readyReplicas"] == 2

    assert stack.run("preview", refresh=True) == {"same": 5}
    assert not stack.seen

    kube_api.kubectl("-n", name, "scale", "deployment/web", "--replicas=1")
    assert stack.run("preview") == {"same": 5}, "without a refresh nobody asks what is live"
    assert stack.run("preview", refresh=True) == {"same": 4, "update": 1}
    assert ("refresh", "Deployment-web", ["spec.replicas"]) in stack.seen
    assert ("update", "Deployment-web", ["spec.replicas"]) in stack.seen
    stack.run("up", refresh=True)
    assert kube_api.call("GET", path)["spec"]["replicas"] == 2

    kube_api.kubectl("delete", "namespace", name)
    assert stack.run("preview", refresh=True) == {"create": 3, "same": 2}
    assert stack.run("up", refresh=True) == {"create": 3, "same": 2}

    assert stack.run("destroy") == {"delete": 5}
    assert not [
        each for each in kube_api.call("GET", "/api/v1/namespaces")["items"] if each["metadata"]["name"] == name
    ]
    assert not stack.resources()


def test_a_change_of_what_cannot_change_is_a_replacement(stack: Stack, kube_api: KubeApi, kube_namespace: str) -> None:
    stack.objects = [config_map(kube_namespace, "a", colour="red"), config_map(kube_namespace, "b", colour="red")]
    stack.run("up")
    stack.objects = [config_map(kube_namespace, "a", colour="blue"), config_map(kube_namespace, "b", colour="red")]
    assert stack.run("up") == {"same": 3, "replace": 1}
    assert ("replace", "ConfigMap-a", ["data.colour"]) in stack.seen
    path = f"/api/v1/namespaces/{kube_namespace}/configmaps/a"
    assert kube_api.call("GET", path)["data"] == {"colour": "blue"}


def test_a_secret_value_is_in_no_file(stack: Stack, kube_api: KubeApi, kube_namespace: str) -> None:
    stack.objects = [config_map(kube_namespace, "a", password=Hidden("hush-hush"), plain="loud")]
    stack.run("up")
    assert kube_api.call("GET", f"/api/v1/namespaces/{kube_namespace}/configmaps/a")["data"]["password"] == "hush-hush"
    kube_api.call(
        "PATCH", f"/api/v1/namespaces/{kube_namespace}/configmaps/a", {"metadata": {"labels": {"a": "b"}}}, kind=MERGE
    )
    stack.run("refresh")
    assert "loud" in stack.recorded()
    assert "hush" not in stack.recorded()


def test_a_server_that_does_not_answer_takes_nothing_from_the_state(
    stack: Stack, kube_api: KubeApi, kube_namespace: str, tmp_path: Path
) -> None:
    from pulumi.automation import CommandError

    working, file = stack.kubeconfig, tmp_path / "kubeconfig"
    file.write_text(working, encoding="utf-8")
    stack.kubeconfig = str(file)  # its path: the engine asks a recorded provider with what was recorded of it
    stack.objects = [config_map(kube_namespace, "a", colour="red")]
    stack.run("up")
    with socket.socket() as closed:  # bound and not listening: nobody else gets this port, and it refuses
        closed.bind(("127.0.0.1", 0))
        file.write_text(working.replace(kube_api.url, f"https://127.0.0.1:{closed.getsockname()[1]}"), encoding="utf-8")
        assert file.read_text(encoding="utf-8") != working
        for command in ("refresh", "destroy"):
            with pytest.raises(CommandError, match="unreachable"):
                stack.run(command)
        assert stack.run("preview") == {"same": 3}, "without a refresh nobody is asked"
    assert list(stack.resources()) == ["ConfigMap-a"]
    file.write_text(working, encoding="utf-8")
    assert stack.run("preview", refresh=True) == {"same": 3}
