"""Which changes of which kinds cannot be made in place: the object is made anew."""

from __future__ import annotations

from typing import Any

from tests.engines.pulumi_kubernetes.values import Object

Steps = tuple[str | int, ...]
"""A path: names of keys and positions in lists; in rules `"*"` stands for any position."""

IDENTITY = ["metadata.name", "metadata.namespace"]

_CONTAINER = [
    "args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "readinessProbe",
    "resources", "securityContext", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty",
    "volumeDevices", "volumeMounts", "workingDir",
]  # fmt: skip
_POD = [
    "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases",
    "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets", "nodeName", "nodeSelector", "overhead",
    "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "restartPolicy", "runtimeClassName",
    "schedulerName", "securityContext", "serviceAccount", "serviceAccountName", "shareProcessNamespace", "subdomain",
    "terminationGracePeriodSeconds", "volumes",
]  # fmt: skip
_SOURCES_OF_VOLUMES = [
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume",
    "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
]  # fmt: skip

_BY_KIND: dict[tuple[str, str], list[str]] = {
    ("apps/v1", "DaemonSet"): ["spec.selector"],
    ("apps/v1", "Deployment"): ["spec.selector"],
    ("apps/v1", "StatefulSet"): [
        f"spec.{name}"
        for name in ("podManagementPolicy", "revisionHistoryLimit", "selector", "serviceName", "volumeClaimTemplates")
    ],
    ("batch/v1", "Job"): ["spec.completions", "spec.parallelism", "spec.selector", "spec.template"],
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ["roleRef"],
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ["roleRef"],
    ("storage.k8s.io/v1", "StorageClass"): ["parameters", "provisioner"],
    ("v1", "PersistentVolume"): [f"spec.{name}" for name in _SOURCES_OF_VOLUMES],
    ("v1", "PersistentVolumeClaim"): [
        f"spec.{name}" for name in ("accessModes", "selector", "storageClassName", "volumeName")
    ],
    ("v1", "Pod"): [f"spec.{name}" for name in _POD]
    + [f"spec.{containers}.*.{name}" for containers in ("containers", "initContainers") for name in _CONTAINER],
    ("v1", "ResourceQuota"): ["spec.scopes"],
    ("v1", "Service"): ["spec.clusterIP"],
}


def forcing_paths(obj: Object, *, mutable_config_maps: bool, mutable_secrets: bool) -> list[Steps]:
    """The paths whose change needs a new object of this kind."""
    version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    version = "v1" if version == "core/v1" else version
    immutable = obj.get("immutable") is True
    rules = list(IDENTITY)
    if (version, kind) == ("v1", "Secret"):
        rules += ["type"] if mutable_secrets and not immutable else ["type", "stringData", "data"]
    elif (version, kind) == ("v1", "ConfigMap"):
        rules += [] if mutable_config_maps and not immutable else ["binaryData", "data"]
    else:
        rules += _BY_KIND.get((version, kind), [])
    return [tuple(rule.split(".")) for rule in rules]


def forces_replacement(path: Steps, value: Any, rules: list[Steps]) -> bool:
    """Whether a change at `path` to `value` touches what a rule names, above or below it."""
    return any(_touches(path, value, rule) for rule in rules)


def _touches(path: Steps, value: Any, rule: Steps) -> bool:
    for step, wanted in zip(path, rule, strict=False):
        if wanted not in ("*", step) or (wanted == "*") != isinstance(step, int):
            return False
    return _holds(value, rule[len(path) :])


def _holds(value: Any, rule: Steps) -> bool:
    if not rule:
        return True
    if rule[0] == "*":
        return isinstance(value, list) and any(_holds(inner, rule[1:]) for inner in value)
    return isinstance(value, dict) and rule[0] in value and _holds(value[str(rule[0])], rule[1:])
