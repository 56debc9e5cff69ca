"""The types of objects that mlstack knows by name, and where the API server has them."""

from typing import NamedTuple
from urllib.parse import quote


class Type(NamedTuple):
    """A type of objects, as the API server's paths have it."""

    api: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def prefix(self) -> str:
        """Return where the API has it."""
        return f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"


TYPES: dict[str, Type] = {
    each.kind: each
    for each in (
        Type("v1", "namespaces", "Namespace", namespaced=False),
        Type("v1", "nodes", "Node", namespaced=False),
        Type("v1", "pods", "Pod"),
        Type("v1", "services", "Service"),
        Type("v1", "endpoints", "Endpoints"),
        Type("v1", "secrets", "Secret"),
        Type("v1", "configmaps", "ConfigMap"),
        Type("v1", "events", "Event"),
        Type("v1", "serviceaccounts", "ServiceAccount"),
        Type("v1", "resourcequotas", "ResourceQuota"),
        Type("v1", "limitranges", "LimitRange"),
        Type("batch/v1", "jobs", "Job"),
        Type("apps/v1", "deployments", "Deployment"),
        Type("apps/v1", "replicasets", "ReplicaSet"),
        Type("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        Type("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
        Type("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
        Type("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
        Type("networking.k8s.io/v1", "ingresses", "Ingress"),
        Type("networking.k8s.io/v1", "ingressclasses", "IngressClass", namespaced=False),
        Type("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False),
        Type("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
        Type("gateway.networking.k8s.io/v1", "gateways", "Gateway"),
        Type("kueue.x-k8s.io/v1beta1", "localqueues", "LocalQueue"),
        Type("kueue.x-k8s.io/v1beta1", "clusterqueues", "ClusterQueue", namespaced=False),
        Type("kueue.x-k8s.io/v1beta1", "workloads", "Workload"),
        Type("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False),
    )
}
"""The types that mlstack knows by name: kind → type."""


_ADDED = ("gateway.networking.k8s.io", "kueue.x-k8s.io")
_BUILT_IN = tuple({f"{each.prefix}/" for each in TYPES.values() if not each.api.startswith(_ADDED)})


def is_built_in(path: str) -> bool:
    """Whether every API server has what is below this path: its types need no installing."""
    return path.startswith(_BUILT_IN)


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    """Return where the API has an object, or all of a kind (of one namespace)."""
    wanted = TYPES[kind]
    parts = ["namespaces", namespace] if wanted.namespaced and namespace else []
    parts += [wanted.plural, *([name] if name else [])]
    return wanted.prefix + "".join(f"/{quote(part, safe='')}" for part in parts)
