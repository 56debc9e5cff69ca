"""The objects behind a pool, from its attributes: what pods of the pool run as, may use and may reach. Pure."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from mlstack.drivers.kubernetes.names import annotations_of, dns_name, labels_of, object_name, owner_labels
from mlstack.drivers.kubernetes.pool_names import ENDPOINT, ROLE, pool_labels
from mlstack.drivers.stacks import Object
from mlstack.graph.dockerfile import SERVING_PORT
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec

POD_SECURITY = "restricted"
DNS_PORT = 53
TAKE_BACK = {"pulumi.com/patchForce": "true"}
"""What people changed by hand is taken back, whichever tool they did it with (`kubectl scale` would be a conflict)."""


def metadata(
    spec: Spec, address: Address, name: str, namespace: str = "", *, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the metadata of an object of a unit."""
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": labels_of(spec.project, spec.environment, address),
        "annotations": annotations_of(address) | TAKE_BACK | dict(annotations or {}),
    }


def pool_objects(address: Address, spec: Spec, known: Mapping[str, Any]) -> tuple[Object, ...]:
    """Return the objects of a pool with these attributes (`KubernetesPools.desired`)."""
    return tuple(_objects(address, spec, known))


def made(key: str, kind: str, inputs: dict[str, Any], *, needs: tuple[str, ...] = ()) -> Object:
    """Return an object of a unit, with the provider's ID: what a killed update made is found by it."""
    about = inputs["metadata"]
    identity = f"{about['namespace']}/{about['name']}" if "namespace" in about else about["name"]
    return Object(key=key, type=f"kubernetes:{kind}", inputs=inputs, needs=needs, options={"id": identity})


def namespace_key(namespace: str) -> str:
    """Return the key of a namespace, which others stand on."""
    return f"namespace-{namespace}"


def _objects(address: Address, spec: Spec, known: Mapping[str, Any]) -> Iterator[Object]:
    namespace, short = str(known["namespace"]), object_name(address)
    stands_on: tuple[str, ...] = ()
    if known.get("owns_namespace"):
        yield _namespace(address, spec, namespace)
    if known.get("namespace_of"):
        stands_on = (f"{known['namespace_of']}#{namespace_key(namespace)}",)

    def one(key: str, kind: str, name: str, **body: Any) -> Object:
        inputs = {**_head(kind), "metadata": metadata(spec, address, name, namespace), **body}
        return made(key, kind, inputs, needs=stands_on)

    if known.get("owns_namespace"):
        yield one("deny", "networking.k8s.io/v1:NetworkPolicy", "mlstack-deny", spec=_deny({}))
        if known.get("limit_range"):
            body = {"limits": [{"type": "Container", **known["limit_range"]}]}
            yield one("limits", "core/v1:LimitRange", "mlstack", spec=body)
    elif not known.get("namespace_of"):  # somebody else's: only our own pods are kept from others
        ours = {"matchLabels": owner_labels(spec.project, spec.environment) | pool_labels(address)}
        yield one("deny", "networking.k8s.io/v1:NetworkPolicy", dns_name(f"mlstack-deny-{short}"), spec=_deny(ours))
    if known["makes_service_account"]:
        yield one(
            f"service-account-{known['service_account']}",
            "core/v1:ServiceAccount",
            known["service_account"],
            automountServiceAccountToken=False,
        )
    if known["makes_priority_class"]:
        yield _priority_class(address, spec, known)
    if known.get("quota"):
        yield one("quota", "core/v1:ResourceQuota", dns_name(f"mlstack-{short}"), spec=_quota(known))
    policy = "networking.k8s.io/v1:NetworkPolicy"
    yield one("traffic", policy, dns_name(f"mlstack-{short}"), spec=_traffic(address, known["egress"]))
    yield one("endpoints", policy, dns_name(f"mlstack-{short}-endpoints"), spec=_asked(address))
    if known.get("makes_queue"):
        yield one(
            "queue",
            "kueue.x-k8s.io/v1beta1:LocalQueue",
            known["queue"],
            spec={"clusterQueue": known["cluster_queue"]},
        )


def _namespace(address: Address, spec: Spec, name: str) -> Object:
    levels = {f"pod-security.kubernetes.io/{mode}": POD_SECURITY for mode in ("enforce", "audit", "warn")}
    versions = {f"pod-security.kubernetes.io/{mode}-version": "latest" for mode in ("enforce", "audit", "warn")}
    about = metadata(spec, address, name)
    about["labels"] = owner_labels(spec.project, spec.environment) | levels | versions
    kind = "core/v1:Namespace"
    return made(namespace_key(name), kind, {**_head(kind), "metadata": about})


def _priority_class(address: Address, spec: Spec, known: Mapping[str, Any]) -> Object:
    kind = "scheduling.k8s.io/v1:PriorityClass"
    body = {
        "value": known["priority"],
        "globalDefault": False,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": f"Pods of {address} in {spec.project}, environment {spec.environment}",
    }
    inputs = {**_head(kind), "metadata": metadata(spec, address, known["priority_class"]), **body}
    return made(f"priority-class-{known['priority_class']}", kind, inputs)


def _quota(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a quota that counts the pods of this pool alone, by their priority class."""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": [known["priority_class"]]}
    return {"hard": dict(known["quota"]), "scopeSelector": {"matchExpressions": [scope]}}


def _deny(selector: Mapping[str, Any]) -> dict[str, Any]:
    return {"podSelector": dict(selector), "policyTypes": ["Ingress", "Egress"]}


def _traffic(address: Address, egress: list[str]) -> dict[str, Any]:
    """Return what all pods of a pool may do: ask for names, reach the remote, and each other."""
    everyone = {"podSelector": {"matchLabels": pool_labels(address)}}
    dns = [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]
    return {
        "podSelector": everyone["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [everyone]}],
        "egress": [{"ports": dns}, {"to": [everyone]}, *(_destination(each) for each in egress)],
    }


def _asked(address: Address) -> dict[str, Any]:
    """Return that everybody may ask the endpoints of a pool, and nothing else of their pods."""
    return {
        "podSelector": {"matchLabels": pool_labels(address) | {ROLE: ENDPOINT}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": SERVING_PORT}]}],
    }


def _destination(text: str) -> dict[str, Any]:
    """Return the rule for `CIDR:PORT`, `:PORT` (anywhere)."""
    network, _, port = text.rpartition(":")
    rule: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": int(port)}]}
    if network:
        rule["to"] = [{"ipBlock": {"cidr": network}}]
    return rule


def destination(host: str, port: int) -> str:
    """Return how a host is written among the `egress` of a pool: policies know addresses, and no names."""
    try:
        address = ip_address(host)
    except ValueError:
        return f":{port}"
    return f"{address}/{address.max_prefixlen}:{port}"


def _head(kind: str) -> dict[str, str]:
    group, _, name = kind.partition(":")
    return {"apiVersion": group.removeprefix("core/"), "kind": name}
