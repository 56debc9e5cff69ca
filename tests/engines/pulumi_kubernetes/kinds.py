"""What is known of kinds without asking an API server."""

from __future__ import annotations

from tests.engines.pulumi_kubernetes.cluster import ApiError, Cluster, NoMatchError, UnreachableError

_CLUSTER_WIDE = {
    "APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterRole", "ClusterRoleBinding",
    "CustomResourceDefinition", "FlowSchema", "IngressClass", "MutatingWebhookConfiguration", "Namespace", "Node",
    "PersistentVolume", "PriorityClass", "PriorityLevelConfiguration", "RuntimeClass", "StorageClass",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
    "VolumeAttachment",
}  # fmt: skip
_BUILTIN_GROUPS = {
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "apps", "autoscaling", "batch",
    "certificates.k8s.io", "coordination.k8s.io", "core", "discovery.k8s.io", "events.k8s.io",
    "flowcontrol.apiserver.k8s.io", "networking.k8s.io", "node.k8s.io", "policy", "rbac.authorization.k8s.io",
    "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io",
}  # fmt: skip


def is_builtin(version: str) -> bool:
    """Whether an apiVersion is Kubernetes' own, not one that a definition adds."""
    return version == "v1" or version.split("/", 1)[0] in _BUILTIN_GROUPS


def namespaced(cluster: Cluster | None, version: str, kind: str) -> bool:
    """Whether objects of a kind live in namespaces; taken to be so for kinds that nobody knows."""
    if is_builtin(version):
        return kind.removesuffix("Patch") not in _CLUSTER_WIDE
    try:
        return cluster.kind(version, kind)[1] if cluster else True
    except (NoMatchError, ApiError, UnreachableError):
        return True
