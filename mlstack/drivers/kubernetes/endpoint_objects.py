"""The objects behind an endpoint: Deployment, Service, what scales and protects it, and the way to it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlstack.drivers.kubernetes.endpoint_pod import START_SECONDS, pod_template
from mlstack.drivers.kubernetes.names import ADDRESS, ENVIRONMENT, PROJECT, labels_of, object_name
from mlstack.drivers.kubernetes.pool_objects import made, metadata
from mlstack.drivers.stacks import Object
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.spec import Endpoint

NOT_AWAITED = {"pulumi.com/skipAwait": "true"}
"""`settle` waits for a rollout, for each endpoint by itself; the engine would hold all of them up for the slowest."""
IN_FLIGHT = "mlstack_requests_in_flight"
"""The metric of the model server by which replicas are added (`GET /metrics`)."""
_FETCH_SECONDS = 900


def endpoint_objects(
    endpoint: Endpoint, graph: ResourceGraph, known: Mapping[str, Any], images: Mapping[str, str | None]
) -> tuple[Object, ...]:
    """Return the objects of an endpoint with these attributes (`KubernetesEndpoints.desired`)."""
    return tuple(_objects(endpoint, graph, known, images))


def selector_of(endpoint: Endpoint, graph: ResourceGraph) -> dict[str, str]:
    """Return the labels by which an endpoint's pods are found."""
    labels = labels_of(graph.spec.project, graph.spec.environment, endpoint.address)
    return {name: labels[name] for name in (PROJECT, ENVIRONMENT, ADDRESS)}


def _objects(
    endpoint: Endpoint, graph: ResourceGraph, known: Mapping[str, Any], images: Mapping[str, str | None]
) -> Iterator[Object]:
    name, selector = object_name(endpoint.address), selector_of(endpoint, graph)

    def one(key: str, kind: str, spec: Mapping[str, Any]) -> Object:
        group, _, short = kind.partition(":")
        about = metadata(graph.spec, endpoint.address, name, known["namespace"], annotations=NOT_AWAITED)
        inputs = {"apiVersion": group.removeprefix("core/"), "kind": short, "metadata": about, "spec": dict(spec)}
        return made(key, kind, inputs)

    deployment = _deployment(known, selector) | {"template": pod_template(endpoint, graph, known, images)}
    yield one("deployment", "apps/v1:Deployment", deployment)
    ports = [{"name": "http", "port": known["port"], "targetPort": "http", "protocol": "TCP"}]
    yield one("service", "core/v1:Service", {"type": "ClusterIP", "selector": selector, "ports": ports})
    if known.get("autoscale"):
        yield one("autoscaler", "autoscaling/v2:HorizontalPodAutoscaler", _autoscaler(name, known))
    if known["replicas"]["min"] > 1:
        budget = {"selector": {"matchLabels": selector}, "maxUnavailable": 1}
        yield one(
            "disruptions", "policy/v1:PodDisruptionBudget", {**budget, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
        )
    route = known["route"]
    if route.get("kind") == "ingress":
        yield one("route", "networking.k8s.io/v1:Ingress", _ingress(name, known))
    elif route.get("kind") == "gateway":
        yield one("route", "gateway.networking.k8s.io/v1:HTTPRoute", _http_route(name, known))


def _deployment(known: Mapping[str, Any], selector: Mapping[str, str]) -> dict[str, Any]:
    """Return the Deployment beside its pods; how many they are is the autoscaler's to say if there is one.

    With accelerators, which are seldom to spare, one replica goes before the next one comes.
    """
    scarce = not known["surge"]
    rolling = {"maxSurge": 0, "maxUnavailable": 1} if scarce else {"maxSurge": 1, "maxUnavailable": 0}
    return {
        **({} if known.get("autoscale") else {"replicas": known["replicas"]["min"]}),
        "selector": {"matchLabels": dict(selector)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "progressDeadlineSeconds": START_SECONDS + _FETCH_SECONDS,
        "revisionHistoryLimit": 3,
    }


def _autoscaler(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    scale = known["autoscale"]
    if scale["on"] == "cpu":
        target = {"type": "Utilization", "averageUtilization": scale["target"]}
        metric: dict[str, Any] = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    else:
        target = {"type": "AverageValue", "averageValue": str(scale["target"])}
        metric = {"type": "Pods", "pods": {"metric": {"name": IN_FLIGHT}, "target": target}}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": known["replicas"]["min"],
        "maxReplicas": known["replicas"]["max"],
        "metrics": [metric],
    }


def _ingress(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    route = known["route"]
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    rule = {"host": route["host"], "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    return {
        **({"ingressClassName": route["class"]} if route["class"] else {}),
        **({"tls": [{"hosts": [route["host"]], "secretName": route["tls"]}]} if route["tls"] else {}),
        "rules": [rule],
    }


def _http_route(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    route = known["route"]
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": route["name"]}
    if route["namespace"]:
        parent["namespace"] = route["namespace"]
    if route["section"]:
        parent["sectionName"] = route["section"]
    backend = {"group": "", "kind": "Service", "name": name, "port": known["port"], "weight": 1}
    match = {"path": {"type": "PathPrefix", "value": "/"}}
    return {
        "parentRefs": [parent],
        **({"hostnames": [route["host"]]} if route["host"] else {}),
        "rules": [{"matches": [match], "backendRefs": [backend]}],
    }
