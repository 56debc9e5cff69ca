"""The stand-in for Pulumi's Kubernetes provider answers as the real one does: `--provider PATH` asks that one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract.provider_conversation import Case, Player, Plugin, cases, meanwhile, running, unlike
from tests.engines.custom_types import CustomTypes
from tests.engines.kube_client import MERGE, KubeApi

pytestmark = pytest.mark.e2e

CASES = cases(Path(__file__).with_name("pulumi_provider"))


@pytest.fixture
def start(pulumi_home: Path) -> Iterator[Callable[[], Plugin]]:
    """Start another plugin: the engine, too, configures each of them once."""
    (program,) = pulumi_home.glob("plugins/*/pulumi-resource-kubernetes")
    with ExitStack() as started:
        yield lambda: started.enter_context(running(program))


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody answers, and at which nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{bound.getsockname()[1]}"


def holds(obj: dict[str, Any], kind: str, status: str) -> bool:
    """Whether a condition of an object is said to be so."""
    conditions = obj.get("status", {}).get("conditions") or []
    return any((each["type"], each["status"]) == (kind, status) for each in conditions)


def seen_unavailable(deployments: dict[str, Any]) -> bool:
    """Whether the controller has said of each, as it is now, that it is on its way and not available."""
    return all(
        each["status"].get("observedGeneration") == each["metadata"]["generation"]
        and holds(each, "Available", "False")
        and holds(each, "Progressing", "True")
        for each in deployments["items"]
    )


class Others:
    """What other people and programs do to the cluster."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    def kubectl(self, words: list[str]) -> None:
        self.api.kubectl("--namespace", self.namespace, *words)

    def apply(self, obj: dict[str, Any]) -> None:
        if obj["kind"] == "CustomResourceDefinition":  # `kubectl wait` fails while it has no conditions yet
            CustomTypes(self.api, {obj["spec"]["names"]["kind"]: obj}).install()
        else:
            self.api.kubectl("--namespace", self.namespace, "create", "-f", "-", given=json.dumps(obj))

    def pods_fail_to_pull(self) -> None:
        """Say of each pod what a node says that cannot pull its image."""
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry.invalid/none"'}
        container = {"name": "main", "image": "registry.invalid/none", "imageID": "", "ready": False, "restartCount": 0}
        unready = {
            "status": "False",
            "reason": "ContainersNotReady",
            "message": "containers with unready status: [main]",
        }
        status = {
            "phase": "Pending",
            "containerStatuses": [{**container, "state": {"waiting": waiting}}],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", **unready},
            ],
        }
        for pod in self.api.wait(pods, lambda found: bool(found["items"]))["items"]:
            self.api.call("PATCH", f"{pods}/{pod['metadata']['name']}/status", {"status": status}, kind=MERGE)
        # What controllers make of it comes later than the pods: whoever reads then is to find it.
        self.api.wait(f"/apis/apps/v1/namespaces/{self.namespace}/deployments", seen_unavailable)

    def fail_and_cancel(self, plugin: Plugin) -> None:
        self.pods_fail_to_pull()
        plugin.cancel()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conversation(
    case: Case, start: Callable[[], Plugin], kube_api: KubeApi, kube_namespace: str, nobody: str
) -> None:
    player = Player(start(), {"NAMESPACE": kube_namespace})
    others = Others(kube_api, kube_namespace)
    kubeconfig = kube_api.kubeconfig.read_text(encoding="utf-8")
    player.plugin.configure({"kubeconfig": kubeconfig, "namespace": kube_namespace})
    for number, written in enumerate(case.steps, start=1):
        step = player.put_in(written)
        for name, act in (("kubectl", others.kubectl), ("somebody creates", others.apply), ("note", player.note)):
            if name in step:
                act(step[name])
        if "configure" in step:
            unreachable = step["configure"].pop("unreachable", False)
            used = kubeconfig.replace(kube_api.url, nobody) if unreachable else kubeconfig
            player.plugin = start()
            player.plugin.configure({"kubeconfig": used, "namespace": kube_namespace, **step["configure"]})
        if "call" in step:
            with meanwhile(partial(others.fail_and_cancel, player.plugin) if "meanwhile" in step else lambda: None):
                answer = player.ask(step["call"], step.get("with") or {})
            wrong = unlike(step.get("answer", {"error": None}), answer)
            assert not wrong, f"{case.about} Step {number}, {step['call']}:\n" + "\n".join([*wrong, str(answer)[:3000]])
