"""Routes and autoscalers of endpoints on a real API server, where the test writes what controllers would."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlstack.diagnostics import MlstackError, errors_in
from mlstack.drivers.base import Present
from mlstack.drivers.kubernetes import endpoint_routing, endpoint_scaling
from mlstack.drivers.kubernetes.endpoints import KubernetesEndpoints
from mlstack.state.state import Record
from tests.contract.cluster_units import QUALITY, SERVE, VERSIONS, Project, codes, project_on
from tests.contract.kubernetes_routes import PATCH, write_conditions, write_gateway
from tests.engines.custom_types import CustomTypes
from tests.engines.kube_client import KubeApi
from tests.unit.drivers_kubernetes.kubernetes_projects import graph_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(tmp_path: Path, kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    with project_on(kube_api, tmp_path) as found:
        yield found


def test_what_is_not_installed_is_named_and_is_taken_when_it_is(
    project: Project, custom_types: CustomTypes, kube_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = f"{{name: edge, hostname: a.example, namespace: {kube_namespace}, section: https}}"
    settings = f"gateway: {gateway}, queue: q, cluster_queue: c"
    project.write(f"{settings}, autoscale: {{on: requests}}", more="replicas: {min: 1, max: 2}")
    found = errors_in(project.preflight(SERVE, QUALITY))
    assert codes(found) == ["kubernetes-type-missing"] * 3
    assert [problem.detail.split()[0] for problem in found] == ["HTTPRoute", "LocalQueue", "custom.metrics.k8s.io"]
    project.write("queue: theirs")
    (unknown,) = errors_in(project.preflight(SERVE))
    assert unknown.code == "kubernetes-type-missing"
    assert unknown.detail.startswith("LocalQueue ")
    project.write(f"{settings}, autoscale: {{on: requests}}", more="replicas: {min: 1, max: 2}")

    custom_types.install()

    assert_queues_are_looked_at(project)
    project.write(f"{settings}, autoscale: {{on: requests}}", more="replicas: {min: 1, max: 2}")
    left, _ = errors_in(project.preflight(SERVE, QUALITY))
    assert left.detail.startswith("custom.metrics.k8s.io ")
    project.write(settings, more="replicas: {min: 1, max: 2}")
    assert_gateways_are_looked_at(project, kube_namespace)
    (warning,) = [each for each in project.preflight(QUALITY) if each.code == "autoscaler-without-metrics"]
    assert warning.severity == "warning"
    project.apply(SERVE, QUALITY)
    project.apply(SERVE, QUALITY)
    kube = project.client()
    wanted = {
        each.inputs["kind"]: each.inputs for address in (SERVE, QUALITY) for each in project.unit(address).objects
    }
    for kind in ("LocalQueue", "HTTPRoute"):
        there = kube.get(kind, wanted[kind]["metadata"]["name"], project.namespace)
        assert there is not None
        assert_holds(there["spec"], wanted[kind]["spec"])
    assert_routes_are_waited_for(project, monkeypatch)


def assert_queues_are_looked_at(project: Project) -> None:
    """See that a ClusterQueue has to be there, and that one which is stopped is named (in the words of Kueue 0.14)."""
    project.write("queue: q, cluster_queue: c")
    (absent,) = errors_in(project.preflight(SERVE))
    assert absent.code == "kubernetes-named-missing"
    assert "`c`; there is no ClusterQueue" in absent.detail
    place = "/apis/kueue.x-k8s.io/v1beta1/clusterqueues"
    head = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ClusterQueue", "metadata": {"name": "c"}}
    made = project.api.call("POST", place, {**head, "spec": {"namespaceSelector": {}}})
    for status, message in (("False", "Can't admit new workloads: is stopped."), ("True", "Can admit new workloads")):
        active = {"type": "Active", "status": status, "reason": "Said", "message": message}
        made["status"] = {"conditions": [{**active, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        made = project.api.call("PUT", f"{place}/c/status", made)
        assert codes(project.preflight(SERVE)) == []
        found = [each for each in project.preflight(SERVE) if each.code == "kubernetes-queue-inactive"]
        assert [message in each.detail for each in found] == [True] * (status == "False")


def assert_gateways_are_looked_at(project: Project, infra: str) -> None:
    """See that a Gateway has to be there and to let the route in, before anything is made."""
    (missing,) = errors_in(project.preflight(SERVE, QUALITY))
    assert missing.code == "kubernetes-named-missing"
    assert f"there is no Gateway of that name in the namespace {infra}" in missing.detail
    ours = {"from": "Selector", "selector": {"matchLabels": {"app.kubernetes.io/managed-by": "mlstack"}}}
    for hostname, allowed, why in (
        ("b.example", ours, "its listeners are for b.example, and not for a.example"),
        ("*.example", {"from": "Same"}, "let in no routes of the namespace"),
    ):
        write_gateway(project.api, infra, hostname=hostname, allowed=allowed)
        (problem,) = errors_in(project.preflight(SERVE, QUALITY))
        assert problem.code == "gateway-lets-nothing-in"
        assert why in problem.detail
    write_gateway(project.api, infra, hostname="*.example", allowed=ours)
    assert codes(project.preflight(SERVE, QUALITY)) == [], "by the labels that the namespace is going to have"


def assert_routes_are_waited_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """See that a route counts as there when a controller has taken it as it is now."""
    monkeypatch.setattr(endpoint_routing, "SAID_WITHIN", 0.0)
    monkeypatch.setattr(endpoint_routing, "REFUSED_FOR", 0.0)
    unit, context = project.unit(QUALITY), project.context([])

    def wait() -> str:
        return endpoint_routing.wait_for_route(project.client(), unit, context, began=time.monotonic())

    unsaid = "no controller has accepted its HTTPRoute for the Gateway edge, so perhaps nobody serves it"
    assert wait() == unsaid
    taken, resolved = (True, "Accepted"), (True, "ResolvedRefs")
    route = project.client().get("HTTPRoute", "quality", project.namespace)
    assert route is not None
    now = route["metadata"]["generation"]
    write_conditions(project.api, project.namespace, "quality", generation=now, Accepted=taken, ResolvedRefs=resolved)
    assert wait() == ""
    write_conditions(project.api, project.namespace, "quality", generation=now - 1, Accepted=taken)
    assert wait() == unsaid, "that was of the route as it was"
    for conditions in (
        {"Accepted": (False, "NotAllowedByListeners"), "ResolvedRefs": resolved},
        {"Accepted": taken, "ResolvedRefs": (False, "BackendNotFound")},
    ):
        write_conditions(project.api, project.namespace, "quality", generation=now, **conditions)
        with pytest.raises(MlstackError) as raised:
            wait()
        assert raised.value.diagnostics[0].code == "endpoint-route-refused"
        assert next(reason for holds, reason in conditions.values() if not holds) in str(raised.value)


def test_a_class_of_ingresses_that_nobody_serves(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    classes, name = "/apis/networking.k8s.io/v1/ingressclasses", project.namespace
    project.write("ingress: {host: a.example}")
    (unnamed,) = [each for each in project.preflight(SERVE, QUALITY) if each.code == "ingress-class-unnamed"]
    assert unnamed.severity == "warning"
    project.write(f"ingress: {{class: {name}, host: a.example}}")
    (missing,) = errors_in(project.preflight(SERVE, QUALITY))
    assert missing.code == "kubernetes-named-missing"
    assert "there is no IngressClass of that name" in missing.detail
    project.api.call("POST", classes, {"metadata": {"name": name}, "spec": {"controller": "example.com/nobody"}})
    try:
        assert codes(project.preflight(SERVE, QUALITY)) == []
    finally:
        project.api.call("DELETE", f"{classes}/{name}")

    project.apply(SERVE, QUALITY)
    monkeypatch.setattr(endpoint_routing, "SAID_WITHIN", 0.0)
    unit, context = project.unit(QUALITY), project.context([])

    def wait() -> str:
        return endpoint_routing.wait_for_route(project.client(), unit, context, began=time.monotonic())

    assert f"no controller of the class {name} has given its Ingress an address" in wait()
    place = f"/apis/networking.k8s.io/v1/namespaces/{name}/ingresses/quality"
    served = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    project.api.call("PATCH", f"{place}/status", served, kind=PATCH)
    assert wait() == ""


def test_replicas_stay_when_an_autoscaler_takes_them_over(project: Project) -> None:
    """A Deployment whose number of replicas nobody sets any more gets one, whatever it had."""
    project.write(more="replicas: {min: 3, max: 3}")
    project.apply(SERVE)
    place = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/quality"

    def deploy() -> int:
        inputs = next(each.inputs for each in project.unit(QUALITY).objects if each.key == "deployment")
        how = f"{place}?fieldManager=engine&force=true"
        project.api.call("PATCH", how, inputs, kind="application/apply-patch+yaml")
        return int(project.api.call("GET", place)["spec"]["replicas"])

    assert deploy() == 3
    project.write(more="replicas: {min: 2, max: 4}")
    endpoint_scaling.hold_replicas(project.client(), project.unit(QUALITY))
    assert deploy() == 3
    project.write(more="replicas: {min: 4, max: 5}")
    endpoint_scaling.raise_to_least(project.client(), project.unit(QUALITY))
    assert deploy() == 4, "it has the fewest at once, and before the autoscaler gets to it"


def test_an_endpoint_says_what_its_route_and_its_autoscaler_lack(project: Project) -> None:
    project.write("ingress: {class: none, host: a.example}", more="replicas: {min: 1, max: 2}")
    project.apply(SERVE, QUALITY)
    unscaled = endpoint_scaling.why_without_metrics(project.client(), project.unit(QUALITY))
    assert unscaled.endswith("leaves it at 1, whatever its load: the cluster does not serve metrics.k8s.io")
    driver, graph = KubernetesEndpoints(root=project.root), graph_of(project.root)
    desired = driver.desired(graph.resources[QUALITY], graph, VERSIONS)
    record = Record(address=QUALITY, driver=driver.name, attributes=desired)
    message = "unable to get metrics: the server could not find the requested resource"
    condition = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": message}
    place = f"/apis/autoscaling/v2/namespaces/{project.namespace}/horizontalpodautoscalers/quality/status"
    status = {"conditions": [condition], "desiredReplicas": 1, "currentMetrics": None}
    project.api.call("PATCH", place, {"status": status}, kind=PATCH)
    found = driver.read(None, record)
    assert isinstance(found, Present)
    assert "no controller of the class none has given its Ingress an address" in found.attributes["reason"]
    assert "its autoscaler does not scale (FailedGet" in found.attributes["reason"], "the cluster's own says the same"

    project.api.call("DELETE", f"/apis/networking.k8s.io/v1/namespaces/{project.namespace}/ingresses/quality")
    gone = driver.read(None, record)
    assert isinstance(gone, Present)
    assert gone.attributes["ready"] is False
    assert "its Ingress quality is gone" in gone.attributes["reason"]


def assert_holds(there: Any, wanted: Any) -> None:
    """See that the server has kept all of what was wanted; it may have put defaults beside it."""
    if isinstance(wanted, dict):
        assert wanted.keys() <= there.keys()
        for key, value in wanted.items():
            assert_holds(there[key], value)
    elif isinstance(wanted, list):
        assert len(there) == len(wanted)
        for one, other in zip(there, wanted, strict=True):
            assert_holds(one, other)
    else:
        assert there == wanted
