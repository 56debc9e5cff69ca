"""What others do on a cluster with the routes of endpoints: Gateways they make, statuses that controllers write."""

from typing import Any

from tests.engines.kube_client import KubeApi

GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways"
PATCH = "application/merge-patch+json"


def write_gateway(api: KubeApi, namespace: str, *, hostname: str, allowed: dict[str, Any]) -> None:
    """Make the Gateway `edge` with a listener `https`, or change it."""
    listener = {"name": "https", "protocol": "HTTP", "port": 80, "hostname": hostname}
    spec = {"gatewayClassName": "nobody", "listeners": [listener | {"allowedRoutes": {"namespaces": allowed}}]}
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"}}
    path = f"{GATEWAYS.format(namespace)}/edge?fieldManager=others&force=true"
    api.call("PATCH", path, gateway | {"spec": spec}, kind="application/apply-patch+yaml")


def write_conditions(
    api: KubeApi, namespace: str, name: str, *, generation: int, **conditions: tuple[bool, str]
) -> None:
    """Write what Traefik 3.7 writes of an HTTPRoute: conditions with a reason, and mostly no message."""
    place = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{name}"
    parent = api.call("GET", place)["spec"]["parentRefs"][0]
    written = [
        {
            "type": kind,
            "status": str(holds),
            "reason": reason,
            "message": "",
            "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind, (holds, reason) in conditions.items()
    ]
    said = {"parentRef": parent, "controllerName": "traefik.io/gateway-controller", "conditions": written}
    api.call("PATCH", f"{place}/status", {"status": {"parents": [said]}}, kind=PATCH)
