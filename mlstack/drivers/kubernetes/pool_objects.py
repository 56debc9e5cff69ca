"""The objects behind a pool, from its attributes: what pods of the pool run as, may use and may reach. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlstack.drivers.kubernetes.names import annotations_of, dns_name, labels_of, object_name, owner_labels
from mlstack.drivers.kubernetes.pool_egress import egress_rule
from mlstack.drivers.kubernetes.pool_names import ENDPOINT, ROLE, pool_labels
from mlstack.drivers.stacks import Object
from mlstack.graph.dockerfile import SERVING_PORT
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec

POD_SECURITY = "restricted"
DNS_PORTS = (53, 5353)
"""Where names are asked for. Policies see the port of the pod that answers: OpenShift's listen on the second."""
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


def made(key: str, kind: str, inputs: dict[str, Any], *, needs: tuple[str, ...] = (), shared: str = "") -> Object:
    """Return an object of a unit, with the provider's ID: what a killed update made is found by it."""
    about = inputs["metadata"]
    identity = f"{about['namespace']}/{about['name']}" if "namespace" in about else about["name"]
    options = {"id": identity}
    return Object(key=key, type=f"kubernetes:{kind}", inputs=inputs, needs=needs, shared=shared, options=options)


def namespace_key(namespace: str) -> str:
    """Return the key of a namespace, which others stand on."""
    return f"namespace-{namespace}"


def _objects(address: Address, spec: Spec, known: Mapping[str, Any]) -> Iterator[Object]:
    namespace, short = str(known["namespace"]), object_name(address)
    owns = bool(known.get("owns_namespace"))
    needs = (namespace_key(namespace),) if owns else ()

    def one(key: str, kind: str, name: str, **body: Any) -> Object:
        inputs = {**_head(kind), "metadata": metadata(spec, address, name, namespace), **body}
        return made(key, kind, inputs, needs=needs)

    yield from _for_all(spec, known)
    if not owns:  # somebody else's: only our own pods are kept from others
        ours = {"matchLabels": owner_labels(spec.project, spec.environment) | pool_labels(address)}
        policy = "networking.k8s.io/v1:NetworkPolicy"
        yield one(f"deny-{namespace}.{short}", policy, dns_name(f"mlstack-deny-{short}"), spec=_deny(ours))
    if known["makes_service_account"]:
        yield one(
            f"service-account-{namespace}.{known['service_account']}",
            "core/v1:ServiceAccount",
            known["service_account"],
            automountServiceAccountToken=False,
        )
    if known["makes_priority_class"]:
        yield _priority_class(address, spec, known)
    if known.get("quota"):
        yield one("quota", "core/v1:ResourceQuota", dns_name(f"mlstack-{short}"), spec=_quota(known))
    policy = "networking.k8s.io/v1:NetworkPolicy"
    yield one(
        f"traffic-{namespace}.{short}", policy, dns_name(f"mlstack-{short}"), spec=_traffic(address, known["egress"])
    )
    yield one(f"endpoints-{namespace}.{short}", policy, dns_name(f"mlstack-{short}-endpoints"), spec=_asked(address))


def _for_all(spec: Spec, known: Mapping[str, Any]) -> Iterator[Object]:
    """Yield what all pools of a namespace have together: each of them describes it the same way."""
    namespace = str(known["namespace"])
    owns = bool(known.get("owns_namespace"))
    needs = (namespace_key(namespace),) if owns else ()

    def one(key: str, kind: str, name: str, **body: Any) -> Object:
        about = _metadata_for_all(spec, name, namespace)
        return made(key, kind, {**_head(kind), "metadata": about, **body}, needs=needs, shared=namespace)

    if owns:
        yield _namespace(spec, namespace)
        yield one("deny", "networking.k8s.io/v1:NetworkPolicy", "mlstack-deny", spec=_deny({}))
        if known.get("limit_range"):
            body = {"limits": [{"type": "Container", **known["limit_range"]}]}
            yield one("limits", "core/v1:LimitRange", "mlstack", spec=body)
    if known.get("makes_queue"):
        queue, body = known["queue"], {"clusterQueue": known["cluster_queue"]}
        yield one(f"queue-{queue}", "kueue.x-k8s.io/v1beta1:LocalQueue", queue, spec=body)


def _metadata_for_all(spec: Spec, name: str, namespace: str = "") -> dict[str, Any]:
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": owner_labels(spec.project, spec.environment),
        "annotations": dict(TAKE_BACK),
    }


def _namespace(spec: Spec, name: str) -> Object:
    levels = {f"pod-security.kubernetes.io/{mode}": POD_SECURITY for mode in ("enforce", "audit", "warn")}
    versions = {f"pod-security.kubernetes.io/{mode}-version": "latest" for mode in ("enforce", "audit", "warn")}
    about = _metadata_for_all(spec, name)
    about["labels"] |= levels | versions
    kind = "core/v1:Namespace"
    return made(namespace_key(name), kind, {**_head(kind), "metadata": about}, shared=name)


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
    dns = [{"protocol": protocol, "port": port} for port in DNS_PORTS for protocol in ("UDP", "TCP")]
    return {
        "podSelector": everyone["podSelector"],
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [everyone]}],
        "egress": [{"ports": dns}, {"to": [everyone]}, *(egress_rule(each) for each in egress)],
    }


def _asked(address: Address) -> dict[str, Any]:
    """Return that everybody may ask the endpoints of a pool, and nothing else of their pods."""
    return {
        "podSelector": {"matchLabels": pool_labels(address) | {ROLE: ENDPOINT}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": SERVING_PORT}]}],
    }


def _head(kind: str) -> dict[str, str]:
    group, _, name = kind.partition(":")
    return {"apiVersion": group.removeprefix("core/"), "kind": name}
