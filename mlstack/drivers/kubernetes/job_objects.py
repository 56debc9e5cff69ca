"""The objects of one attempt at a stage: a Job whose pods hold the runner, its Secret, and the Service between nodes.

Pure: what is decided goes in, manifests come out. Nothing secret is in any of them but the Secret's own data.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mlstack.drivers.kubernetes.amounts import cpu_text, memory_text
from mlstack.drivers.kubernetes.names import ADDRESS, FINGERPRINT, PREFIX, annotations_of, label_value, object_name
from mlstack.drivers.kubernetes.placement import gpu_name, pod_placement
from mlstack.drivers.kubernetes.pool_names import RUN, pod_labels, priority_class_name, service_account_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.runner.order import Order
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Spec, Stage

Manifest = dict[str, Any]
ATTEMPT = f"{PREFIX}attempt"
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label of a Job: the LocalQueue of Kueue that lets it begin."""
STAGE_CONTAINER = "stage"
RUNNER_FOLDER = "/opt/mlstack/runner"
"""Where images.runner holds the runner; its pods see it at the same place."""
DEFAULT_USER = (65532, 65532)
"""Who images made by mlstack know as a user with a home."""
UPLOAD_WITHIN = 300
"""Seconds after the stage's own grace in which a pod that is asked to end keeps checkpoint and log."""
SETUP_WITHIN = 3600
"""Seconds that a pod may take beside its command, fetching and pushing: a backstop, the runner watches the command."""
KEPT_FINISHED = 3600
"""Seconds for which a finished Job can be looked at with kubectl."""
MASTER_PORT = 29500
WORK, _TMP = "/workspace", "/tmp"  # noqa: S108 - a volume of the pod's own
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_INSTALL = f"cp -R {RUNNER_FOLDER}/. /runner/"


class JobPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the objects of an attempt depend on.

    `image` and `runner` are references by digest. `order_url` is where the runner reads its order, `store` are the
    settings with which it finds the remote (no secret), `remote_secret` the Secret with credentials for it ("": none).
    `resources` are `cpu` (cores), `memory` (bytes) and `gpu` (devices) of one node.
    """

    stage: Stage
    pool: Pool
    spec: Spec
    settings: KubernetesSettings
    namespace: str
    fingerprint: str
    attempt: int
    image: str
    runner: str
    order: Order
    order_url: str
    store: dict[str, str] = {}
    remote_secret: str = ""
    resources: dict[str, float] = {}
    off_spot: bool = False

    @property
    def name(self) -> str:
        """The Job's name: the same for the same attempt, whoever asks for it."""
        return job_name(self.stage.address, self.fingerprint, self.attempt)


def job_name(address: Address, fingerprint: str, attempt: int) -> str:
    """Return the name of a Job; names of its pods (`…-INDEX-xxxxx`) and nodes have to fit into 63 letters as well."""
    tail = f"{fingerprint[:12]}-{attempt}"
    return f"{object_name(address, longest=52 - len(tail))}-{tail}"


def secret_name(job: str) -> str:
    """Return the name of the Secret with a stage's own secrets."""
    return f"{job}-env"


def build_job(plan: JobPlan) -> Manifest:
    """Return the Job: one pod for each node; when one fails all are ended, and trying again is not its business."""
    nodes = plan.stage.nodes
    kept = int(plan.settings.kept_for)
    labels = _labels(plan)
    if plan.settings.queue:
        labels[QUEUE] = plan.settings.queue
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": plan.name,
            "namespace": plan.namespace,
            "labels": labels,
            "annotations": annotations_of(plan.stage.address) | {FINGERPRINT: plan.fingerprint},
        },
        "spec": {
            "completions": nodes,
            "parallelism": nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": max(KEPT_FINISHED, kept),
            "podReplacementPolicy": "Failed",
            # Any end that is no success ends the Job, and says in its status which one it was.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
                ]
            },
            "template": {
                "metadata": {"labels": _labels(plan), "annotations": annotations_of(plan.stage.address)},
                "spec": _pod(plan),
            },
        },
    }


def build_service(plan: JobPlan, owner: Manifest) -> Manifest | None:
    """Return the headless Service by which nodes find the first of them; None where there is only one."""
    if plan.stage.nodes == 1:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(plan, plan.name, owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": plan.name},
            "ports": [{"name": "master", "port": MASTER_PORT}],
        },
    }


def build_secret(plan: JobPlan, owner: Manifest, values: Mapping[str, str]) -> Manifest | None:
    """Return the Secret with a stage's own secrets, which goes with the Job; None for a stage without any."""
    if not values:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": _owned(plan, secret_name(plan.name), owner),
        "stringData": dict(values),
    }


def _labels(plan: JobPlan) -> dict[str, str]:
    found = pod_labels(plan.spec, plan.stage.address, plan.pool.address, RUN)
    return found | {FINGERPRINT: plan.fingerprint[:12], ATTEMPT: str(plan.attempt)}


def _owned(plan: JobPlan, name: str, owner: Manifest) -> Manifest:
    reference = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": plan.name,
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "name": name,
        "namespace": plan.namespace,
        "labels": _labels(plan) | {ADDRESS: label_value(plan.stage.address)},
        "ownerReferences": [reference],
    }


# ---------------------------------------------------------------------------------------------------- the pod


def _pod(plan: JobPlan) -> Manifest:
    settings, stage = plan.settings, plan.stage
    uid, gid = _user(settings)
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": service_account_name(plan.pool, settings),
        "priorityClassName": priority_class_name(plan.pool, settings, plan.spec),
        "terminationGracePeriodSeconds": int(plan.order.grace) + UPLOAD_WITHIN,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": gid,
            "fsGroup": gid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_init(plan)],
        "containers": [_stage(plan)],
        "volumes": _volumes(plan),
        **pod_placement(plan.pool, settings, gpu=plan.resources.get("gpu", 0) > 0, off_spot=plan.off_spot),
    }
    if stage.timeout.run is not None:
        pod["activeDeadlineSeconds"] = int(stage.timeout.run + plan.order.grace + settings.kept_for) + SETUP_WITHIN
    if settings.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.image_pull_secret}]
    if stage.nodes > 1:
        pod["subdomain"] = plan.name
    return pod


def _init(plan: JobPlan) -> Manifest:
    """Return the container that lays the runner beside the stage's own image, which knows nothing of it."""
    return {
        "name": "runner",
        "image": plan.runner,
        "command": ["/bin/sh", "-ec", _INSTALL],
        "securityContext": _locked(),
        "resources": _amounts(plan, with_gpu=False),
        "volumeMounts": [{"name": "runner", "mountPath": "/runner"}],
    }


def _stage(plan: JobPlan) -> Manifest:
    container: Manifest = {
        "name": STAGE_CONTAINER,
        "image": plan.image,
        "command": ["python3", "-I", "-S", f"{RUNNER_FOLDER}/runner/boot.py"],
        "workingDir": WORK,
        "env": _variables(plan),
        "securityContext": _locked(),
        "resources": _amounts(plan, with_gpu=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "runner", "mountPath": RUNNER_FOLDER, "readOnly": True},
            {"name": "work", "mountPath": WORK},
            {"name": "tmp", "mountPath": _TMP},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - shared memory, a volume of the pod's own
        ],
    }
    sources = [plan.remote_secret] if plan.remote_secret else []
    sources += [secret_name(plan.name)] if plan.stage.secrets else []
    if sources:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in sources]
    return container


def _variables(plan: JobPlan) -> list[Manifest]:
    given = {
        "MLSTACK_ORDER": plan.order_url,
        "MLSTACK_ATTEMPT": str(plan.attempt),
        "MLSTACK_WORK": WORK,
        "MLSTACK_IMAGE": plan.image,
        **{f"MLSTACK_STORE_{name.upper()}": value for name, value in plan.store.items()},
    }
    if plan.settings.kept_for:
        given["MLSTACK_KEEP_FAILED"] = str(int(plan.settings.kept_for))
    found: list[Manifest] = [{"name": name, "value": value} for name, value in given.items()]
    found.append({"name": "MLSTACK_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    if plan.stage.nodes > 1:
        found += _cluster(plan)
    return found


def _cluster(plan: JobPlan) -> list[Manifest]:
    """Return the variables that torchrun (PET_*), torch.distributed's `env://` and others expect."""
    first, nodes, port = f"{plan.name}-0.{plan.name}", str(plan.stage.nodes), str(MASTER_PORT)
    given = {
        "MASTER_ADDR": first,
        "MASTER_PORT": port,
        "WORLD_SIZE": nodes,
        "NNODES": nodes,
        "PET_NNODES": nodes,
        "PET_MASTER_ADDR": first,
        "PET_MASTER_PORT": port,
        "MLSTACK_NODES": nodes,
    }
    ranks = ("RANK", "NODE_RANK", "PET_NODE_RANK", "MLSTACK_NODE_RANK")
    return [
        *({"name": name, "value": value} for name, value in given.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}} for name in ranks),
    ]


def _volumes(plan: JobPlan) -> list[Manifest]:
    limit = {"sizeLimit": plan.settings.storage} if plan.settings.storage else {}
    return [
        {"name": "runner", "emptyDir": {}},
        {"name": "work", "emptyDir": limit},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]


def _locked() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _amounts(plan: JobPlan, *, with_gpu: bool) -> Manifest:
    found: dict[str, str] = {}
    if "cpu" in plan.resources:
        found["cpu"] = cpu_text(plan.resources["cpu"])
    if "memory" in plan.resources:
        found["memory"] = memory_text(plan.resources["memory"])
    if with_gpu and plan.resources.get("gpu"):
        found[gpu_name(plan.pool, plan.settings)] = str(int(plan.resources["gpu"]))
    storage = {"ephemeral-storage": plan.settings.storage} if plan.settings.storage and with_gpu else {}
    return {"requests": found | storage, "limits": found | storage} if found or storage else {}


def _user(settings: KubernetesSettings) -> tuple[int, int]:
    """Return uid and gid: `user: UID` or `UID:GID` in the settings."""
    if settings.user is None:
        return DEFAULT_USER
    uid, _, gid = str(settings.user).partition(":")
    return int(uid), int(gid or uid)
