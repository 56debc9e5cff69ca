"""How an endpoint is reached: by its name in the cluster, or through an Ingress or a Gateway. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.kubernetes.names import object_name
from mlstack.drivers.kubernetes.place import TARGET
from mlstack.drivers.kubernetes.settings import KubernetesSettings, read_settings
from mlstack.drivers.registry import pool_of
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.spec import Endpoint


def route_of(endpoint: Endpoint, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the way from outside the cluster to an endpoint; empty if the file names none."""
    if settings.ingress is not None:
        ingress = settings.ingress
        host = _host(endpoint, ingress.host)
        return {"kind": "ingress", "host": host, "class": ingress.class_name, "tls": ingress.tls}
    if settings.gateway is not None:
        gateway = settings.gateway
        return {
            "kind": "gateway",
            "host": _host(endpoint, gateway.hostname),
            "name": gateway.name,
            "namespace": gateway.namespace,
            "section": gateway.section,
            "https": gateway.https,
        }
    return {}


def url_of(name: str, namespace: str, port: int, route: Mapping[str, Any]) -> str:
    """Return where an endpoint is reached: by the host of its route, else by its name in the cluster's DNS."""
    if route.get("host"):
        return f"{'https' if route.get('tls') or route.get('https') else 'http'}://{route['host']}"
    return f"http://{name}.{namespace}.svc.cluster.local{'' if port == 80 else f':{port}'}"


def check_routes(endpoint: Endpoint, graph: ResourceGraph, settings: KubernetesSettings) -> Iterator[Diagnostic]:
    """Yield where another endpoint has the same host: one of them would never be asked."""
    host = route_of(endpoint, settings).get("host")
    for other in sorted(graph.spec.of(Endpoint).values(), key=lambda each: each.address):
        pool = pool_of(other, graph)
        if other.address >= endpoint.address or pool.target != TARGET or not host:
            continue
        if route_of(other, read_settings(pool)).get("host") == host:
            yield Diagnostic(
                code="endpoint-host-taken",
                summary="Two endpoints cannot have one host",
                detail=f"{endpoint.address} and {other.address} would both be reached at {host}.",
                hint='Let the host begin with a star, which becomes the endpoint\'s name: `host: "*.ml.example.com"`.',
                address=endpoint.address,
            )


def _host(endpoint: Endpoint, written: str) -> str:
    return f"{object_name(endpoint.address)}{written[1:]}" if written.startswith("*.") else written
