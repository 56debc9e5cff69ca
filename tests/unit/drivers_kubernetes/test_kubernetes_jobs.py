"""The objects of an attempt, and what a cluster says of them."""

import json
from typing import Any

import msgspec
import pytest

from mlstack.drivers.base import Cause
from mlstack.drivers.kubernetes.job_objects import JobPlan, build_job, build_secret, build_service, job_name
from mlstack.drivers.kubernetes.job_status import judge
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.runner.order import Order, Remote
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, SecretRef, Spec, Stage, Timeout

FINGERPRINT = "0123456789abcdef" * 4
OWNER = {"metadata": {"uid": "u-1"}}


def plan(stage: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **more: Any) -> JobPlan:
    """Return what the objects of an attempt are made of."""
    made = Stage(address=Address("stages.train"), cmd="python train.py", pool=Address("compute.gpu"), **(stage or {}))
    given: dict[str, Any] = {
        "stage": made,
        "pool": Pool(address=Address("compute.gpu"), target="kubernetes", accelerator=("nvidia-l4",)),
        "spec": Spec(project="wine", environment="prod", file="mlstack.yaml", resources={}),
        "settings": msgspec.convert(settings or {}, KubernetesSettings),
        "namespace": "wine-prod",
        "fingerprint": FINGERPRINT,
        "attempt": 2,
        "image": "registry.invalid/wine@sha256:1",
        "runner": "registry.invalid/runner@sha256:2",
        "order": Order(
            address="stages.train",
            fingerprint=FINGERPRINT,
            run="r/",
            remote=Remote("s3://acme"),
            bundle="b",
            commands=("python train.py",),
            grace=30.0,
        ),
        "order_url": "s3://acme/order.json",
        "store": {"endpoint": "http://store"},
        "resources": {"cpu": 0.5, "memory": float(2 << 30), "gpu": 1.0},
    }
    return JobPlan(**given | more)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a Job's pods."""
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def variables(job: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of the stage's container."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in pod_of(job)["containers"][0]["env"]}


def test_the_same_attempt_has_the_same_name() -> None:
    """Whoever asks for it; and its pods' names fit, however long the stage's is."""
    assert job_name(Address("stages.train"), FINGERPRINT, 2) == "train-0123456789ab-2"
    long = job_name(Address(f"stages.{'x' * 150}"), FINGERPRINT, 12)
    assert len(long) <= 53
    assert long != job_name(Address(f"stages.{'x' * 151}"), FINGERPRINT, 12)


def test_a_pod_may_do_next_to_nothing() -> None:
    """Pod Security `restricted`: no root, no rights, nothing of its own root is written, no token of the API."""
    pod = pod_of(build_job(plan()))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert {volume["name"]: set(volume) - {"name"} for volume in pod["volumes"]} == {
        name: {"emptyDir"} for name in ("runner", "work", "tmp", "shm")
    }
    assert variables(build_job(plan()))["MLSTACK_WORK"] == pod["containers"][0]["workingDir"]
    assert pod_of(build_job(plan(settings={"user": "1000:100"})))["securityContext"]["fsGroup"] == 100


def test_resources_and_place_come_from_stage_and_pool() -> None:
    """Requests are limits; the accelerator is a resource of its device plugin; the pool's class counts it."""
    pod = pod_of(build_job(plan()))
    wanted = {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": "1"}
    assert pod["containers"][0]["resources"] == {"requests": wanted, "limits": wanted}
    assert "nvidia.com/gpu" not in pod["initContainers"][0]["resources"]["requests"]
    assert pod["priorityClassName"] == "mlstack-wine-prod-gpu"
    assert pod["affinity"]["nodeAffinity"]


def test_trying_again_is_not_the_cluster_s_business() -> None:
    """One failure ends the Job with all its pods, whatever the cause; what it says then is what retries go by."""
    job = build_job(plan({"nodes": 3}))
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (3, 3, 0)
    assert pod_of(job)["restartPolicy"] == "Never"
    assert {rule["action"] for rule in job["spec"]["podFailurePolicy"]["rules"]} == {"FailJob"}


def test_nodes_find_each_other() -> None:
    """With the variables of torchrun, and a name for the first of them."""
    job = build_job(plan({"nodes": 2}))
    found = variables(job)
    first = "train-0123456789ab-2-0.train-0123456789ab-2"
    assert (found["MASTER_ADDR"], found["PET_MASTER_ADDR"]) == (first, first)
    assert (found["WORLD_SIZE"], found["PET_NNODES"]) == ("2", "2")
    assert found["RANK"] == found["MLSTACK_NODE_RANK"] == found["PET_NODE_RANK"]
    assert "job-completion-index" in found["RANK"]["fieldRef"]["fieldPath"]
    service = build_service(plan({"nodes": 2}), OWNER)
    assert service is not None
    assert service["metadata"]["name"] == pod_of(job)["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert build_service(plan(), OWNER) is None
    assert "MASTER_ADDR" not in variables(build_job(plan()))


def test_secrets_are_in_a_secret_that_goes_with_the_job() -> None:
    """The Job names it, and holds no value."""
    secret = {"secrets": {"TOKEN": SecretRef("env://TOKEN")}}
    made = plan(secret, remote_secret="mlstack-remote-gpu")
    job = build_job(made)
    found = build_secret(made, OWNER, {"TOKEN": "s3cr3t"})
    assert found is not None
    assert found["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    names = [each["secretRef"]["name"] for each in pod_of(job)["containers"][0]["envFrom"]]
    assert names == ["mlstack-remote-gpu", found["metadata"]["name"]]
    assert "s3cr3t" not in json.dumps(job)
    assert build_secret(plan(), OWNER, {}) is None


def test_grace_deadline_and_queue() -> None:
    """The pod's grace leaves time for checkpoint and log; the deadline is behind the runner's own."""
    assert pod_of(build_job(plan()))["terminationGracePeriodSeconds"] == 330
    assert "activeDeadlineSeconds" not in pod_of(build_job(plan()))
    assert pod_of(build_job(plan({"timeout": Timeout(run=60.0)})))["activeDeadlineSeconds"] > 60 + 30
    job = build_job(plan(settings={"queue": "team", "keep_failed": "2h"}))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert variables(job)["MLSTACK_KEEP_FAILED"] == "7200"


# ---------------------------------------------------------------------------------------------------- status

RUNNING = {"spec": {}, "status": {"active": 1}}
FAILED = {
    "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "m"}]}
}
COMPLETE = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}


def pod(state: dict[str, Any] | None = None, *, conditions: tuple[dict[str, str], ...] = (), **status: Any) -> Any:
    """Return a pod whose stage's container is in this state."""
    statuses = [{"name": "stage", "state": state}] if state is not None else []
    return {"metadata": {}, "spec": {}, "status": {"containerStatuses": statuses, "conditions": conditions, **status}}


def disrupted(reason: str) -> tuple[dict[str, str], ...]:
    """Return what is said of a pod that was taken away."""
    return ({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "taken"},)


def exited(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    """Return the state of a container that has ended."""
    return {
        "terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}
    }


@pytest.mark.parametrize(
    ("pods", "cause"),
    [
        ([pod(exited(1, message="error: exit code 1"))], "error"),
        ([pod(exited(137, "OOMKilled"))], "out-of-memory"),
        ([pod(exited(137))], "error"),
        ([pod(exited(124))], "timeout"),
        ([pod(exited(125))], "hang"),
        ([pod(exited(143))], "preempted"),
        ([pod(exited(137), conditions=disrupted("PreemptionByScheduler"))], "preempted"),
        ([pod(conditions=disrupted("DeletionByTaintManager"))], "node-lost"),
        ([pod(reason="Evicted", message="The node was low on resource: memory.")], "preempted"),
        ([pod(reason="Evicted", message="Usage of ephemeral storage exceeds the limit")], "error"),
        ([pod(reason="NodeLost")], "node-lost"),
        ([], "preempted"),
        ([pod(exited(1)), pod(exited(137, "OOMKilled"))], "out-of-memory"),
        ([pod(exited(0)), pod(exited(1))], "error"),
    ],
)
def test_why_it_failed(pods: list[Any], cause: Cause) -> None:
    """Each way to fail is one of the causes that retries know."""
    seen = judge(FAILED, pods)
    assert (seen.phase, seen.cause) == ("failed", cause)
    assert seen.said


def test_how_far_it_is() -> None:
    """From nothing to its end."""
    assert judge(None, []).phase == "gone"
    assert judge(COMPLETE, []).phase == "succeeded"
    assert judge(RUNNING, []).phase == "waiting"
    assert judge({"spec": {"suspend": True}}, []).said == "waits in the cluster's queue"
    assert judge(RUNNING, [pod()]).phase == "starting"
    assert judge(RUNNING, [pod({"running": {}})]).phase == "running"


def test_why_it_does_not_go_on() -> None:
    """No room, no image, no right to make pods: each is said, and is a cause when it lasts."""
    unschedulable = ({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},)
    seen = judge(RUNNING, [pod(conditions=unschedulable)])
    assert (seen.stuck, seen.for_good) == ("no-capacity", False)
    assert "0/3 nodes" in seen.said
    seen = judge(RUNNING, [pod({"waiting": {"reason": "ImagePullBackOff", "message": "denied"}})])
    assert (seen.stuck, seen.for_good) == ("image-pull", False)
    assert judge(RUNNING, [pod({"waiting": {"reason": "InvalidImageName"}})]).for_good
    quota = [{"reason": "FailedCreate", "message": "pods is forbidden: exceeded quota: mlstack-gpu"}]
    assert judge(RUNNING, [], quota).stuck == "no-capacity"
    account = [{"reason": "FailedCreate", "message": 'serviceaccount "x" not found'}]
    assert judge(RUNNING, [], account).stuck == "error"
    both = [pod({"running": {}}), pod({"waiting": {"reason": "ErrImagePull"}})]
    assert judge(RUNNING, both).stuck == "image-pull"
