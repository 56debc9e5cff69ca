"""Who takes the route of an endpoint, by a Gateway's listeners and by what controllers have written."""

import json
import threading
from collections.abc import Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from mlstack.drivers.base import Present
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import find_connection
from mlstack.drivers.kubernetes.endpoint_health import read_health
from mlstack.drivers.kubernetes.endpoint_routing import said_of_http_route, said_of_ingress
from mlstack.drivers.kubernetes.endpoint_scaling import why_not_scaled
from mlstack.drivers.kubernetes.endpoints import KubernetesEndpoints
from mlstack.drivers.kubernetes.preflight_routes import why_not_let_in
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.stacks import UNCONFIRMED
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint
from mlstack.state.state import Record
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write
from tests.unit.drivers_kubernetes.test_kubernetes_connection import config
from tests.unit.drivers_kubernetes.test_kubernetes_connection import write as write_kubeconfig

ALL = {"allowedRoutes": {"namespaces": {"from": "All"}}}


def gateway(*listeners: dict[str, Any]) -> dict[str, Any]:
    """Return a Gateway of the namespace `infra` with these listeners, which speak HTTP if they say nothing else."""
    named = [{"name": f"l{number}", "protocol": "HTTP", **each} for number, each in enumerate(listeners)]
    return {"metadata": {"name": "edge", "namespace": "infra"}, "spec": {"listeners": named}}


def selecting(**selector: Any) -> dict[str, Any]:
    return {"allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}}}


TEAM_IN = {"key": "team", "operator": "In", "values": ["ml", "data"]}
NOT_OURS = {"key": "team", "operator": "NotIn", "values": ["ml"]}


@pytest.mark.parametrize(
    ("listeners", "asked", "why"),
    [
        ([ALL], {}, ""),
        ([ALL], {"section": "l0"}, ""),
        ([ALL], {"section": "web"}, "it has no listener of the name web"),
        ([{**ALL, "hostname": "*.example.com"}], {}, ""),
        ([{**ALL, "hostname": "a.example.com"}], {}, ""),
        ([{**ALL, "hostname": "*.example.com"}], {"host": "example.com"}, "are for *.example.com, and not for"),
        ([{**ALL, "hostname": "b.example.com"}, {**ALL, "hostname": "*.org"}], {}, "are for b.example.com, *.org"),
        ([{**ALL, "hostname": "b.example.com"}], {"host": ""}, ""),
        ([{**ALL, "protocol": "TCP"}], {}, "no listener for HTTP routes"),
        ([{"allowedRoutes": {**ALL["allowedRoutes"], "kinds": [{"kind": "TLSRoute"}]}}], {}, "no listener for HTTP"),
        ([{}], {}, "let in no routes of the namespace ml"),
        ([{}], {"namespace": "infra"}, ""),
        ([selecting(matchLabels={"team": "ml"})], {}, ""),
        ([selecting(matchLabels={"team": "web"})], {}, "let in no routes"),
        ([selecting(matchLabels={"team": "web"})], {"labels": None}, ""),
        ([selecting(matchExpressions=[TEAM_IN])], {}, ""),
        ([selecting(matchExpressions=[NOT_OURS])], {}, "let in no routes"),
        ([selecting(matchExpressions=[{"key": "team", "operator": "Exists"}])], {}, ""),
        ([selecting(matchExpressions=[{"key": "team", "operator": "DoesNotExist"}])], {}, "let in no routes"),
    ],
)
def test_a_listener_takes_a_route_or_it_is_said_why_none_does(
    listeners: list[dict[str, Any]], asked: dict[str, Any], why: str
) -> None:
    usual: dict[str, Any] = {"host": "a.example.com", "section": "", "namespace": "ml", "labels": {"team": "ml"}}
    found = why_not_let_in(gateway(*listeners), **(usual | asked))
    assert why in found
    assert bool(found) == bool(why)


def route(*said: tuple[dict[str, Any], str, str]) -> dict[str, Any]:
    """Return a route to the Gateway `edge`, with what is said for each parent: whether it is accepted, and why."""
    parents = [
        {"parentRef": parent, "conditions": [{"type": "Accepted", "status": status, "reason": reason, "message": ""}]}
        for parent, status, reason in said
    ]
    return {
        "metadata": {"namespace": "ml", "generation": 1},
        "spec": {"parentRefs": [{"name": "edge", "namespace": "infra"}]},
        "status": {"parents": parents},
    }


def test_only_what_is_said_of_the_own_gateway_counts() -> None:
    edge, other = {"name": "edge", "namespace": "infra"}, {"name": "other", "namespace": "infra"}
    assert said_of_http_route(route((other, "True", "Accepted"))).is_taken is None
    assert said_of_http_route(route((edge, "Unknown", "Pending"))).is_taken is None
    refused = said_of_http_route(route((edge, "False", "NotAllowedByListeners"), (other, "True", "Accepted")))
    assert (refused.is_taken, refused.text) == (False, "its HTTPRoute is refused (NotAllowedByListeners)")
    both = route((edge, "False", "NotAllowedByListeners"), (edge, "True", "Accepted"))
    assert said_of_http_route(both).is_taken, "of two controllers, one has it"


READY = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 1}
LEFT_BEHIND: dict[str, Any] = {
    "metadata": {
        "managedFields": [{"time": "2026-01-01T00:00:05Z"}, {"time": "2026-01-01T00:00:01Z", "subresource": "status"}]
    },
    "spec": {"ingressClassName": "nginx"},
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
}


class Namespace:
    """Has one object of each of these kinds."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self._objects = objects

    def get(self, kind: str, _name: str, _namespace: str) -> Any:
        return self._objects[kind]


def test_an_address_that_another_class_has_left_does_not_count() -> None:
    ingress = deepcopy(LEFT_BEHIND)
    assert said_of_ingress(ingress).is_taken
    left = said_of_ingress(ingress, is_new=True)
    assert (left.is_taken, "the address of its class before" in left.text) == (None, True)
    ingress["metadata"]["managedFields"][1]["time"] = "2026-01-01T00:00:06Z"
    assert said_of_ingress(ingress, is_new=True).is_taken
    assert "of the class nginx" in said_of_ingress(ingress | {"status": {}}).text


@pytest.mark.parametrize("was_confirmed", [True, False])
def test_status_does_not_take_an_address_of_another_class_for_its_own(was_confirmed: bool) -> None:
    """What apply could not confirm is not confirmed by what was there before."""
    spec = {"replicas": 1}
    deployment = {"metadata": {"generation": 1}, "spec": spec, "status": {"observedGeneration": 1, **READY}}
    client = cast("Kube", Namespace({"Deployment": deployment, "Ingress": LEFT_BEHIND}))
    attributes = {"namespace": "ml", "route": {"kind": "ingress"}}
    attributes |= {} if was_confirmed else {UNCONFIRMED: "its Ingress has the address of its class before"}
    found = read_health(client, Record(address=Address("endpoints.quality"), driver="k", attributes=attributes))
    assert isinstance(found, Present)
    assert ("class before" in found.attributes.get("reason", "")) is not was_confirmed


def test_an_autoscaler_that_has_said_nothing_yet_works() -> None:
    able = {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "recommended"}
    limited = {"type": "ScalingLimited", "status": "False", "reason": "DesiredWithinRange", "message": "within"}
    assert why_not_scaled({}) == why_not_scaled({"status": {"conditions": [able, limited]}}) == ""


def test_an_autoscaler_needs_to_know_what_replicas_ask_for(tmp_path: Path) -> None:
    text = "targets: {kubernetes: {namespace: ml}}\ncompute:\n  serve: {target: kubernetes, EACH}\n"
    text += STAGES.replace("POOL", "serve")
    text += "endpoints:\n  quality: {compute: serve, model: models.wine, replicas: {min: 1, max: 2}}\n"

    def codes(each: str) -> set[str]:
        graph = graph_of(write(tmp_path, text.replace("EACH", each)))
        endpoint = graph.resources[Address("endpoints.quality")]
        assert isinstance(endpoint, Endpoint)
        return {problem.code for problem in KubernetesEndpoints(root=tmp_path).check(endpoint, graph)}

    assert "endpoint-never-grows" in codes("each: {memory: 1Gi}")
    assert "endpoint-never-grows" not in codes("each: {cpu: 500m}")
    assert "endpoint-never-grows" not in codes("settings: {autoscale: {on: requests}}")


class Aggregator(BaseHTTPRequestHandler):
    """An API server that knows a group of somebody else, who answers or does not."""

    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        is_group = self.path == "/apis/metrics.k8s.io"
        self.send_response(200 if is_group else self.status)
        self.end_headers()
        self.wfile.write(json.dumps({"preferredVersion": {"groupVersion": "metrics.k8s.io/v1beta1"}}).encode())

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    monkeypatch.setenv("NO_PROXY", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Aggregator)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    here = {"clusters": [{"name": "dev", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}]}
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", config() | here)))
    yield Kube(find_connection(KubernetesSettings(), root=tmp_path / "project"))
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("status", "serves"), [(200, True), (503, False), (404, False)])
def test_metrics_are_served_when_who_has_them_answers(
    client: Kube, status: int, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group is listed as long as it is registered, although every question about it gets 503."""
    monkeypatch.setattr(Aggregator, "status", status)
    assert client.has_api("metrics.k8s.io") is serves
