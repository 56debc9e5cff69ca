"""Fixtures: a real control plane, a real node, played ones, and Pulumi's program."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines import control_plane, node
from tests.engines.addresses import addresses
from tests.engines.custom_types import CustomTypes, read_definitions
from tests.engines.fixtures import LEFT_OUT, engine, session_with
from tests.engines.go_tools import PULUMI
from tests.engines.groups import KUBERNETES_API, KUBERNETES_NODE, PULUMI_CLI
from tests.engines.kube_client import KubeApi, kube_api_of
from tests.engines.processes import EngineError
from tests.engines.pulumi_kubernetes.install import make_home
from tests.engines.session import Session

TITLE = "Kubernetes"
NOT_READY = "node.kubernetes.io/not-ready"
"""The taint with which every node begins."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--provider",
        type=Path,
        metavar="PATH",
        help="a pulumi-resource-kubernetes to test with, not the stand-in",
    )


@dataclass(frozen=True)
class PlayedNodes:
    """Nodes that kwok plays: they are always ready, and pods on them run, and complete where a Job wants that."""

    api: KubeApi
    label: str
    """The key of a label and of a taint that these nodes have and no others; the value of both is `played`."""

    @property
    def placement(self) -> dict[str, Any]:
        """What the spec of a pod needs to be put on these nodes, and on no other."""
        toleration = {"key": self.label, "operator": "Equal", "value": "played", "effect": "NoSchedule"}
        return {"nodeSelector": {self.label: "played"}, "tolerations": [toleration]}

    def add(self, count: int, *, capacity: dict[str, str] | None = None, labels: dict[str, str] | None = None) -> None:
        """Add nodes with this capacity each, for example `{"nvidia.com/gpu": "8"}` beside CPU and memory."""
        room = {"cpu": "32", "memory": "256Gi", "pods": "110", **(capacity or {})}
        for _ in range(count):
            name = f"{self.label.removeprefix('tests/')}-{secrets.token_hex(4)}"
            made = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "annotations": {control_plane.PLAYED: "fake"},
                    "labels": {"kubernetes.io/hostname": name, self.label: "played", **(labels or {})},
                },
                # Pods of other tests, which want to run for real, are not to come here.
                "spec": {"taints": [{"key": self.label, "value": "played", "effect": "NoSchedule"}]},
                "status": {"capacity": room, "allocatable": room},
            }
            self.api.call("POST", "/api/v1/nodes", made)

    def wait_until_ready(self) -> list[dict[str, Any]]:
        """Wait until the control plane takes them for ready, and lets pods onto them; returns them."""

        def ready(found: dict[str, Any]) -> bool:
            conditions = [each["status"].get("conditions", []) for each in found["items"]]
            taints = [one["key"] for each in found["items"] for one in each["spec"].get("taints", [])]
            return NOT_READY not in taints and all(  # a controller takes that away after the node has said so
                any(one["type"] == "Ready" and one["status"] == "True" for one in each) for each in conditions
            )

        return list(self.api.wait(f"/api/v1/nodes?labelSelector={self.label}", ready, pause=0.5)["items"])


@pytest.fixture(scope="session")
def kube_api() -> Iterator[KubeApi]:
    """Kubernetes, at first without nodes. All tests of a run share it: use a namespace of the test's own."""
    used = session_with(TITLE, KUBERNETES_API)
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        engine(name, TITLE, KUBERNETES_API)
    api = kube_api_of(used)
    yield api
    api.close()


@pytest.fixture
def kube_namespace(kube_api: KubeApi) -> Iterator[str]:
    """An empty namespace of the test's own, which goes with the test."""
    name = f"tests-{secrets.token_hex(4)}"
    kube_api.make_namespace(name)
    yield name
    kube_api.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def custom_types(kube_api: KubeApi) -> Iterator[CustomTypes]:
    """The Gateway API's and Kueue's types, to be installed by the one test that has them; they go with it."""
    try:
        found = CustomTypes(kube_api, read_definitions())
    except EngineError as error:
        pytest.skip(f"{LEFT_OUT}{TITLE}: {error}")
    found.remove()  # of a test that was killed
    yield found
    found.remove()


@pytest.fixture
def kwok_nodes(kube_api: KubeApi) -> Iterator[PlayedNodes]:
    """Played nodes of the test's own, none at first; they go with the test."""
    engine("kwok", TITLE, KUBERNETES_API)
    nodes = PlayedNodes(kube_api, f"tests/n{secrets.token_hex(4)}")
    yield nodes
    kube_api.call("DELETE", f"/api/v1/nodes?labelSelector={nodes.label}")


@pytest.fixture(scope="session")
def pulumi_cli() -> Path:
    """Pulumi's program, of the SDK's version, without any plugin. Set PULUMI_HOME and a backend of the test's own."""
    session_with("Pulumi", PULUMI_CLI)
    return PULUMI.program("pulumi")


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A PULUMI_HOME with the plugin for Kubernetes: the tests' stand-in, or the program that `--provider` names."""
    return make_home(tmp_path_factory.mktemp("pulumi-home"), pytestconfig.getoption("--provider"))


@dataclass(frozen=True)
class KubeNode:
    """A node on which pods run for real: nothing is played, and what they need they take from this machine."""

    name: str
    """For `nodeName`, or for a `nodeSelector` by `kubernetes.io/hostname`."""
    machine: str
    """The address of this machine as pods see it. What listens on the loopback answers there, also to this machine."""
    session: Session

    def let_pull(self, registry: str) -> None:
        """Let pods take images from a further registry (`localhost:port`, plain http); `registry` is known."""
        node.let_pull(self.session, registry)


@pytest.fixture(scope="session")
def kube_node(kube_api: KubeApi, registry: str) -> KubeNode:
    """A real node of the cluster `kube_api`, shared by all tests of a run. The addresses of pods and of Services answer
    on this machine; in pods the names of Services do, too."""
    used = session_with("Kubernetes node", KUBERNETES_NODE)
    for name in KUBERNETES_NODE.daemons:
        engine(name, "Kubernetes node", KUBERNETES_NODE)
    made = KubeNode(control_plane.node_name(used), str(addresses(used).machine), used)
    made.let_pull(registry)
    return made
