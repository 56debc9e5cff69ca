"""Whether anybody could serve the route of an endpoint, and feed its autoscaler: Gateways, classes, metrics."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.drivers.kubernetes.endpoint_scaling import metrics_api
from mlstack.drivers.kubernetes.needs import AskedCluster, Need
from mlstack.drivers.kubernetes.pool_egress import NAMESPACE_LABEL
from mlstack.drivers.kubernetes.settings import Gateway, Ingress

_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"


def check_routes_served(cluster: AskedCluster, needs: Sequence[Need]) -> Iterator[Diagnostic]:
    """Yield what keeps the routes of endpoints from being served: a Gateway or class that is not there, or not for us.

    What may not be looked at is left to apply, which waits for who serves a route to say so.
    """
    routed: dict[Gateway | Ingress, list[tuple[Need, Mapping[str, Any]]]] = {}
    for need in needs:
        for part in need.unit.objects:
            if part.key == "route" and (way := need.settings.ingress or need.settings.gateway) is not None:
                routed.setdefault(way, []).append((need, part.inputs))
    for way, users in routed.items():
        if isinstance(way, Ingress):
            yield from _check_class(cluster, way, users[0][0])
        else:
            yield from _check_gateway(cluster, way, users, needs)


def why_not_let_in(
    gateway: Mapping[str, Any], *, host: str, section: str, namespace: str, labels: Mapping[str, str] | None
) -> str:
    """Say why no listener of a Gateway takes a route; "" where one does.

    `labels` are those of the route's namespace; None where they are not known, which is taken for the right ones.
    """
    listeners = gateway["spec"].get("listeners") or ()
    about = gateway["metadata"]
    if section:
        listeners = [each for each in listeners if each["name"] == section]
        if not listeners:
            return f"it has no listener of the name {section}"
    speaking = [each for each in listeners if each.get("protocol") in ("HTTP", "HTTPS") and _takes_kind(each)]
    if not speaking:
        return "it has no listener for HTTP routes"
    hosted = [each for each in speaking if _takes_host(each.get("hostname") or "", host)]
    if not hosted:
        hosts = ", ".join(dict.fromkeys(each["hostname"] for each in speaking))
        return f"its listeners are for {hosts}, and not for {host or 'every host'}"
    if not any(_takes_namespace(each, about["namespace"], namespace, labels) for each in hosted):
        return f"its listeners for that host let in no routes of the namespace {namespace} (`allowedRoutes`)"
    return ""


def check_metrics(cluster: AskedCluster, needs: Sequence[Need]) -> Iterator[Diagnostic]:
    """Yield which autoscalers would have nothing to go by."""
    asked: dict[str, bool] = {}
    for need in needs:
        for api in (metrics_api(each.inputs) for each in need.unit.objects if each.key == "autoscaler"):
            if api not in asked:
                asked[api] = cluster.client.has_api(api)
            if not asked[api]:
                yield _no_metrics(cluster, need, api)


def _check_class(cluster: AskedCluster, way: Ingress, need: Need) -> Iterator[Diagnostic]:
    if way.class_name:
        if cluster.may("get", "IngressClass", is_inside=False) and not cluster.named(
            "IngressClass", [way.class_name], is_inside=False
        ):
            yield _missing(
                need,
                f"`ingress.class` of {need.pool.address} is `{way.class_name}`; there is no IngressClass of that name.",
                "See which there are, and correct the setting.",
                "kubectl get ingressclasses",
            )
    elif cluster.may("list", "IngressClass", is_inside=False) and not any(
        (each["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
        for each in cluster.client.listing("IngressClass")
    ):
        yield _no_default_class(need)


def _check_gateway(
    cluster: AskedCluster, way: Gateway, users: Sequence[tuple[Need, Mapping[str, Any]]], needs: Sequence[Need]
) -> Iterator[Diagnostic]:
    client, own = cluster.client, cluster.place.namespace
    where, need = way.namespace or own, users[0][0]
    if not client.may("get", "Gateway", where):
        return
    found = client.get("Gateway", way.name, where)
    if found is None:
        is_early = where == own and cluster.lacks_namespace
        yield _missing(
            need,
            f"`gateway` of {need.pool.address} is `{way.name}`; there is no Gateway of that name in the namespace "
            f"{where}.",
            "Make it once the namespace is there: without it, nobody serves the route."
            if is_early
            else "Make it, or correct `gateway: {name, namespace}`.",
            f"kubectl get gateways -n {where}",
            is_early=is_early,
        )
        return
    labels = _labels_of(cluster, needs)
    for user, route in users:
        host = next(iter(route["spec"].get("hostnames") or ()), "")
        why = why_not_let_in(found, host=host, section=way.section, namespace=own, labels=labels)
        if why:
            yield _not_let_in(user, way, where, why)


def _labels_of(cluster: AskedCluster, needs: Sequence[Need]) -> Mapping[str, str] | None:
    """Return the labels that the namespace has, or will have; None where that cannot be known."""
    name = cluster.place.namespace
    if cluster.namespace is not None:
        found: Mapping[str, str] = cluster.namespace["metadata"].get("labels") or {}
        return found
    made = [
        each.inputs["metadata"] for need in needs for each in need.unit.objects if each.inputs["kind"] == "Namespace"
    ]
    return next(({**about["labels"], NAMESPACE_LABEL: name} for about in made if about["name"] == name), None)


def _takes_kind(listener: Mapping[str, Any]) -> bool:
    kinds = (listener.get("allowedRoutes") or {}).get("kinds")
    return not kinds or any(each.get("kind") == "HTTPRoute" for each in kinds)


def _takes_host(listener: str, host: str) -> bool:
    """Whether a listener is for a host: its own, everything below `*.DOMAIN`, or without one, every host."""
    if not listener or not host:
        return True
    return host.endswith(listener[1:]) if listener.startswith("*.") else host == listener


def _takes_namespace(listener: Mapping[str, Any], own: str, theirs: str, labels: Mapping[str, str] | None) -> bool:
    allowed = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    match allowed.get("from", "Same"):
        case "All":
            return True
        case "Selector":
            return labels is None or _selects(allowed.get("selector") or {}, labels)
        case _:
            return own == theirs


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    def holds(each: Mapping[str, Any]) -> bool:
        key, values = each["key"], each.get("values") or ()
        match each["operator"]:
            case "In":
                return labels.get(key) in values
            case "NotIn":
                return labels.get(key) not in values
            case "Exists":
                return key in labels
            case _:
                return key not in labels

    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        holds(each) for each in selector.get("matchExpressions") or ()
    )


# ---------------------------------------------------------------------------------------------------- words


def _missing(need: Need, detail: str, hint: str, command: str, *, is_early: bool = False) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-named-missing",
        summary="The cluster does not have what a setting names",
        detail=detail,
        hint=hint,
        command=command,
        severity=Severity.WARNING if is_early else Severity.ERROR,
        address=need.pool.address,
    )


def _no_default_class(need: Need) -> Diagnostic:
    return Diagnostic(
        code="ingress-class-unnamed",
        summary="Perhaps nobody serves the Ingress of an endpoint",
        detail=f"`ingress` of {need.pool.address} names no `class`, and no IngressClass of the cluster is the default.",
        hint="Name one: `ingress: {class: NAME, …}`. These there are:",
        command="kubectl get ingressclasses",
        severity=Severity.WARNING,
        address=need.pool.address,
    )


def _not_let_in(need: Need, way: Gateway, namespace: str, why: str) -> Diagnostic:
    return Diagnostic(
        code="gateway-lets-nothing-in",
        summary="The Gateway does not take the route of an endpoint",
        detail=f"The Gateway {way.name} in {namespace}, for {need.row.address}: {why}.",
        hint="Correct `gateway: {hostname, section}`, or have a listener made that lets this route in. Its listeners:",
        command=f"kubectl get gateway {way.name} -n {namespace} -o yaml",
        address=need.row.address,
    )


def _no_metrics(cluster: AskedCluster, need: Need, api: str) -> Diagnostic:
    server, replicas = cluster.client.connection.server, need.row.address
    if api == "metrics.k8s.io":
        return Diagnostic(
            code="autoscaler-without-metrics",
            summary="The autoscaler of an endpoint has nothing to go by",
            detail=f"{api} is not served by {server}: {replicas} stays at its fewest replicas, whatever its load.",
            hint="Install metrics-server in the cluster.",
            command="kubectl get apiservice v1beta1.metrics.k8s.io",
            severity=Severity.WARNING,
            address=need.row.address,
        )
    return Diagnostic(
        code="kubernetes-type-missing",
        summary="The cluster does not know a type of objects that is needed",
        detail=f"{api} is not served by {server}; {replicas} is to grow with its requests in flight.",
        hint="Install an adapter of metrics (such as Prometheus'), or write `autoscale: {on: cpu}`.",
        address=need.row.address,
    )
