"""Pools and endpoints on a real API server: their objects are taken as they are, and what is wrong is known before."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlstack.diagnostics import Diagnostic, MlstackError, errors_in
from mlstack.drivers.base import StepContext
from mlstack.drivers.kubernetes import endpoint_rollout
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import find_connection
from mlstack.drivers.kubernetes.endpoint_trouble import explain_rollout
from mlstack.drivers.kubernetes.endpoints import RUNNER_IMAGE, KubernetesEndpoints
from mlstack.drivers.kubernetes.pools import KubernetesPools
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.stacks import Unit
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, kind_of
from tests.engines.kube_client import KubeApi, KubernetesError
from tests.engines.kubernetes import PlayedNodes
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

pytestmark = pytest.mark.e2e

SERVE, QUALITY = Address("compute.serve"), Address("endpoints.quality")
VERSIONS: dict[str, str | None] = {"models.wine": "0123456789abcdef0123456789abcdef"}
IMAGE = f"registry.invalid/team/one@sha256:{'d' * 64}"

TEXT = (
    """\
targets: {kubernetes: {namespace: NAMESPACE, SETTINGS}}
compute:
  local: {target: local}
  serve: {target: kubernetes, LIMITS, each: {cpu: 500m, memory: 512Mi}}
"""
    + STAGES.replace("POOL", "local")
    + "endpoints:\n  quality: {compute: serve, model: models.wine, MORE}\n"
)

ROOM = "limits: {cpu: 4}, nodes: {min: 0, max: 4}"


class Project:
    """A project on the cluster of the tests, in a namespace that goes with it."""

    def __init__(self, root: Path, api: KubeApi, namespace: str) -> None:
        self.root, self.api, self.namespace = root, api, namespace
        self.write()

    def write(
        self, settings: str = "", limits: str = "limits: {cpu: 4}, nodes: {min: 0, max: 4}", more: str = "port: 80"
    ) -> None:
        """Write the file."""
        text = TEXT.replace("NAMESPACE", self.namespace).replace("LIMITS", limits).replace("MORE", more)
        write(self.root, text.replace("SETTINGS", settings or "priority: 0"))

    def unit(self, address: Address) -> Unit:
        """Describe one."""
        graph = graph_of(self.root)
        driver = KubernetesPools(root=self.root) if address == SERVE else KubernetesEndpoints(root=self.root)
        images = {**dict.fromkeys(graph.images, IMAGE), RUNNER_IMAGE: IMAGE}
        resource = graph.resources[address]
        return driver.unit(resource, graph, driver.desired(resource, graph, VERSIONS), images=images)

    def apply(self, *addresses: Address, dry_run: bool = False) -> None:
        """Apply the objects as they are, as `mlstack` does with its own."""
        for address in addresses:
            for each in self.unit(address).objects:
                self.client().apply(each.inputs, dry_run=dry_run)

    def client(self) -> Kube:
        """Return a client as drivers have it."""
        return Kube(find_connection(KubernetesSettings(), root=self.root))

    def preflight(self, *addresses: Address, before: dict[str, Any] | None = None) -> list[Diagnostic]:
        """Ask what is asked before anything is changed."""
        graph = graph_of(self.root)
        rows = [
            Change(address=each, kind=kind_of(each), action=Action.CREATE, reasons=(), before=before)
            for each in addresses
        ]
        pools = [row for row in rows if row.address == SERVE]
        found = [*KubernetesPools(root=self.root).preflight(pools, graph)] if pools else []
        if others := [row for row in rows if row.address != SERVE]:
            found += KubernetesEndpoints(root=self.root).preflight(others, graph)
        return found

    def context(self, said: list[str]) -> StepContext:
        """Return what a driver is handed."""
        from threading import Event

        graph = graph_of(self.root)
        resource = graph.resources[QUALITY]
        return StepContext(
            root=self.root, graph=graph, resource=resource, record=None, versions={}, say=said.append, stop=Event()
        )


@pytest.fixture
def project(tmp_path: Path, kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    namespace = f"units-{os.urandom(4).hex()}"
    yield Project(tmp_path, kube_api, namespace)
    with suppress(KubernetesError):  # there may be none
        kube_api.call("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.fixture
def someone(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Become a service account without any rights."""

    def become() -> None:
        account = {"metadata": {"name": "someone"}}
        project.api.call("POST", f"/api/v1/namespaces/{project.namespace}/serviceaccounts", account)
        path = f"/api/v1/namespaces/{project.namespace}/serviceaccounts/someone/token"
        token = project.api.call("POST", path, {"spec": {}})["status"]["token"]
        config = yaml.safe_load(Path(project.api.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": token}
        file = tmp_path.parent / f"{tmp_path.name}-someone"
        file.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(file))

    return become


def codes(found: Sequence[Diagnostic]) -> list[str]:
    """Return what is an error: that nodes would have to come first is a warning of this cluster without any."""
    return [problem.code for problem in errors_in(found)]


def test_the_server_takes_every_object_and_the_pods_are_restricted_ones(
    project: Project, kwok_nodes: PlayedNodes
) -> None:
    kwok_nodes.add(1)
    tolerations = f"[{{key: {kwok_nodes.label}, operator: Exists}}]"
    settings = (
        f"node_selector: {{{kwok_nodes.label}: played}}, tolerations: {tolerations}, ingress: {{host: a.example}}"
    )
    project.write(settings, more="replicas: {min: 2, max: 4}")
    assert codes(project.preflight(SERVE, QUALITY)) == []
    project.apply(SERVE, QUALITY)
    project.apply(SERVE, QUALITY)  # and again, as they are
    # The namespace enforces Pod Security `restricted`, the quota counts the pods: they run all the same.
    place = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/quality"
    found = project.api.wait(place, lambda found: found["status"].get("readyReplicas") == 2)
    assert endpoint_rollout.why_not_ready(found) == ""
    quota = project.api.call("GET", f"/api/v1/namespaces/{project.namespace}/resourcequotas/mlstack-serve")
    assert quota["status"]["used"]["requests.cpu"] == "1"


def test_a_namespace_of_somebody_else_is_left_alone(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    assert codes(project.preflight(SERVE)) == ["namespace-not-ours"]
    project.write("create_namespace: false")
    assert codes(project.preflight(SERVE)) == []


def test_a_namespace_that_is_not_to_be_made_has_to_be_there(project: Project) -> None:
    project.write("create_namespace: false")
    assert codes(project.preflight(SERVE)) == ["namespace-missing"]


def test_what_somebody_else_has_of_that_name_is_left_alone(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    account = {"metadata": {"name": "mlstack-run-serve"}}
    project.api.call("POST", f"/api/v1/namespaces/{project.namespace}/serviceaccounts", account)
    project.write("create_namespace: false")
    assert codes(project.preflight(SERVE)) == ["kubernetes-name-taken"]


def test_what_is_not_installed_is_named(project: Project) -> None:
    project.write(
        "gateway: {name: edge, hostname: a.example}, queue: q, cluster_queue: c, autoscale: {on: requests}",
        more="replicas: {min: 1, max: 2}",
    )
    found = errors_in(project.preflight(SERVE, QUALITY))
    assert codes(found) == ["kubernetes-type-missing"] * 3
    assert [problem.detail.split()[0] for problem in found] == ["LocalQueue", "HTTPRoute", "custom.metrics.k8s.io"]


def test_what_settings_name_has_to_be_there(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    project.write("image_pull_secret: login")
    assert [problem.code for problem in project.preflight(SERVE)][:1] == ["namespace-not-ours"]
    project.write("create_namespace: false, image_pull_secret: login, service_account: runner, priority_class: batch")
    found = errors_in(project.preflight(SERVE))
    assert codes(found) == ["kubernetes-named-missing"] * 3
    assert ["login" in found[0].detail, "runner" in found[1].detail, "batch" in found[2].detail] == [True] * 3


def test_what_belongs_into_a_namespace_to_come_is_a_warning(project: Project) -> None:
    project.write("image_pull_secret: login")
    found = project.preflight(SERVE)
    assert codes(found) == []
    (problem,) = [problem for problem in found if problem.code == "kubernetes-named-missing"]
    assert problem.command == "mlstack apply --target compute.serve"


def test_all_rights_that_are_missing_are_listed_together(project: Project, someone: Callable[[], None]) -> None:
    project.api.make_namespace(project.namespace)
    someone()
    project.write("create_namespace: false")
    (problem,) = project.preflight(SERVE, QUALITY)[:1]
    assert problem.code == "kubernetes-rights-missing"
    assert "  NetworkPolicy: get, create, patch, delete" in problem.detail.splitlines()
    assert "  PriorityClass (of the whole cluster): get, create, patch, delete" in problem.detail.splitlines()


def test_a_wrong_token_is_told_from_everything_else(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path(project.api.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": "wrong"}
    file = tmp_path.parent / f"{tmp_path.name}-wrong"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert codes(project.preflight(SERVE)) == ["kubernetes-unauthorized"]


def test_an_accelerator_that_no_node_has_is_known_before(project: Project, kwok_nodes: PlayedNodes) -> None:
    kwok_nodes.add(1, capacity={"nvidia.com/gpu": "8"}, labels={"nvidia.com/gpu.product": "NVIDIA-L4"})
    gpu = "accelerator: [nvidia-h100], limits: {gpu: 1}"
    project.write(limits=gpu)
    assert codes(project.preflight(SERVE)) == ["no-node-fits"]
    project.write(limits=f"{gpu}, nodes: {{min: 0, max: 2}}")
    (problem,) = project.preflight(SERVE)
    assert problem.severity == "warning"


def test_another_cluster_than_that_of_the_record_is_not_touched(project: Project) -> None:
    assert codes(project.preflight(SERVE, before={"cluster": "another"})) == ["kubernetes-other-cluster"]


def test_pods_that_a_quota_refuses_are_told_with_their_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_rollout, "PATIENCE", 0.0)
    project.write(limits="limits: {cpu: 700m}, nodes: {min: 0, max: 1}", more="replicas: {min: 2, max: 2}")
    project.apply(SERVE, QUALITY)
    said: list[str] = []
    unit, context = project.unit(QUALITY), project.context(said)
    with pytest.raises(MlstackError) as raised:
        endpoint_rollout.wait_for_rollout(project.client(), unit, context)
    problem = raised.value.diagnostics[0]
    assert problem.code == "endpoint-pods-refused"
    assert "exceeded quota: mlstack-serve" in problem.detail
    events = f"/api/v1/namespaces/{project.namespace}/events"
    project.api.wait(events, lambda found: any(each["reason"] == "FailedScheduling" for each in found["items"]))
    told = explain_rollout(project.client(), unit, problem, context).diagnostic
    assert told.detail.startswith(problem.detail)
    assert "  FailedScheduling: no nodes available to schedule pods" in told.detail.splitlines()
