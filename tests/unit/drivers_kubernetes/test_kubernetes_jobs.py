"""The objects of an attempt, and what a cluster says of them."""

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from mlstack.drivers.base import Cause
from mlstack.drivers.elsewhere import RemoteOrder
from mlstack.drivers.kubernetes import stages
from mlstack.drivers.kubernetes.job_objects import JobPlan, build_job, build_secret, build_service, job_name
from mlstack.drivers.kubernetes.job_status import Seen, judge
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.remote_run.results import RemoteRun
from mlstack.graph.graph import EntryKey
from mlstack.runner.order import Order, Remote
from mlstack.runner.record import End
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, SecretRef, Spec, Stage, Timeout
from mlstack.state.state import RemoteHandle, RunRecord

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


def pod(
    state: dict[str, Any] | None = None,
    *,
    conditions: tuple[dict[str, str], ...] = (),
    node: str = "",
    name: str = "",
    **status: Any,
) -> Any:
    """Return a pod whose stage's container is in this state."""
    statuses = [{"name": "stage", "state": state}] if state is not None else []
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": statuses, "conditions": conditions, **status},
    }


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
        ([pod(conditions=disrupted("DeletionByPodGC"))], "node-lost"),
        ([pod(exited(143), conditions=disrupted("EvictionByEvictionAPI"))], "preempted"),
        ([pod(exited(137), conditions=disrupted("TerminationByKubelet"), reason="Evicted")], "preempted"),
        ([pod(exited(143), conditions=disrupted("TerminationByKubelet"), reason="Terminated")], "node-lost"),
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
    assert judge(RUNNING, [pod()]).phase == "waiting"
    assert judge(RUNNING, [pod(node="n-1")]).phase == "starting"
    assert judge(RUNNING, [pod({"running": {}})]).phase == "running"


QUEUED = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team"}}, "spec": {"suspend": True}}
PENDING = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "10m more cpu needed"}
EVICTED = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "due to prioritization"}


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([], "waits in the queue team: nothing is said of it yet, as where others are before it"),
        ([PENDING], "waits in the queue team: 10m more cpu needed"),
        (
            [{**PENDING, "reason": "Inadmissible", "message": "ClusterQueue c is inactive"}],
            "waits in the queue team: it is not let in: ClusterQueue c is inactive",
        ),
        (
            [{**PENDING, "message": "request > maximum capacity (2 > 1)"}],
            "waits in the queue team: it is not let in: request > maximum capacity (2 > 1)",
        ),
        (
            [PENDING, EVICTED],
            "waits in the queue team: 10m more cpu needed; it had to make room: due to prioritization",
        ),
        ([{**PENDING, "status": "True"}, {**EVICTED, "status": "False"}], "waits in the queue team"),
    ],
)
def test_a_queue_says_what_is_waited_for(conditions: list[dict[str, str]], said: str) -> None:
    """Conditions are Kueue's (0.14): a Job that had to make room is no failure, and waiting uses no window up."""
    seen = judge(QUEUED, [], workload={"status": {"conditions": conditions}})
    assert (seen.phase, seen.said, seen.stuck) == ("waiting", said, None)
    assert judge(QUEUED, []).said == "waits in the queue team"


def test_a_queue_says_who_has_yet_to_agree() -> None:
    """There is room for it, and a check waits for a node; or somebody has taken it out of the queue."""
    checks = [{"name": "nodes", "state": "Pending", "message": "3 nodes are made."}, {"name": "x", "state": "Ready"}]
    reserved = {"conditions": [{**PENDING, "status": "True"}], "admissionChecks": checks}
    said = judge(QUEUED, [], workload={"status": reserved}).said
    assert said == "waits in the queue team: there is room; the check nodes is Pending: 3 nodes are made"
    off = {"spec": {"active": False}, "status": {"conditions": [{**EVICTED, "message": "The workload is deactivated"}]}}
    said = judge(QUEUED, [], workload=off).said
    assert "not let in until somebody activates it again (The workload is deactivated)" in said
    assert "make room" not in said


def test_events_say_what_a_pod_does_on_its_node() -> None:
    """They are asked for where a pod says no more than that it starts, and a Job has none."""
    events = [{"reason": "Pulled"}, {"reason": "Pulling", "message": 'Pulling image "i"'}]
    starting = pod(node="n-1", name="train-0")
    assert judge(RUNNING, [starting]).told_by == "train-0"
    assert judge(RUNNING, [starting], events).said == "starts on n-1: its image is being pulled"
    assert judge(RUNNING, [starting], [*events, {"reason": "Pulled"}]).said == "starts on n-1"
    assert judge({"metadata": {"name": "train"}}, []).told_by == "train"
    assert judge(RUNNING, [pod({"running": {}})]).told_by == ""


def test_why_it_does_not_go_on() -> None:
    """No room, no image, no right to make pods: each is said, and is a cause when it lasts."""
    unschedulable = ({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},)
    seen = judge(RUNNING, [pod(conditions=unschedulable)])
    assert (seen.stuck, seen.for_good) == ("no-capacity", False)
    assert "0/3 nodes" in seen.said
    seen = judge(RUNNING, [pod({"waiting": {"reason": "ImagePullBackOff", "message": "denied"}})])
    assert (seen.stuck, seen.for_good) == ("image-pull", False)
    assert judge(RUNNING, [pod({"waiting": {"reason": "InvalidImageName"}})]).for_good
    quota = [{"reason": "FailedCreate", "message": 'pods "a" is forbidden: exceeded quota: mlstack-gpu, used: 4'}]
    seen = judge(RUNNING, [], quota)
    assert (seen.stuck, seen.said) == ("no-capacity", "waits for room in the pool's quota: mlstack-gpu, used: 4")
    account = [{"reason": "FailedCreate", "message": 'serviceaccount "x" not found'}]
    assert judge(RUNNING, [], account).stuck == "error"
    both = [pod({"running": {}}), pod({"waiting": {"reason": "ErrImagePull"}})]
    assert judge(RUNNING, both).stuck == "image-pull"


UNTIL = "2026-01-01T00:05:10Z"
LATER = 1767225910.0 + 1


def leaving(reason: str, **status: Any) -> Any:
    """Return a pod that is to go, on a node that does not say that it has."""
    found = pod({"running": {}}, conditions=disrupted(reason), **status)
    return found | {"metadata": {"deletionTimestamp": UNTIL}, "spec": {"nodeName": "n-1"}}


def test_a_pod_whose_node_does_not_answer_is_given_up_when_its_grace_is_over() -> None:
    """The Job's controller waits for such a pod for ever: nobody else says that it has ended."""
    gone = leaving("DeletionByTaintManager", phase="Running")
    seen = judge(RUNNING, [gone], now=LATER - 2)
    assert (seen.phase, seen.stuck) == ("starting", None)
    assert seen.said == f"n-1 does not answer; its pod is given up at {UNTIL}"
    seen = judge(RUNNING, [gone], now=LATER)
    assert (seen.stuck, seen.for_good) == ("node-lost", False)
    assert seen.said == f"n-1 does not answer: its pod should have ended there at {UNTIL}"
    assert judge(RUNNING, [pod({"running": {}}), gone], now=LATER).stuck == "node-lost"


def test_a_pod_that_uses_its_grace_runs() -> None:
    """One that has to make room keeps its checkpoint meanwhile; one that has ended waits for nobody."""
    assert judge(RUNNING, [leaving("PreemptionByScheduler", phase="Running")], now=LATER - 2).phase == "running"
    assert judge(RUNNING, [leaving("PreemptionByScheduler", phase="Failed")], now=LATER).stuck is None


def attempt_after(monkeypatch: pytest.MonkeyPatch, *jobs: dict[str, Any], kept: bool = False, again: str = "") -> int:
    """Return the number of the next attempt where the cluster has these Jobs, and the remote knows that 3 failed."""
    ended = End(address="stages.train", fingerprint=FINGERPRINT, attempt=3, instance="i", cause="error", exit_code=1,
                started=0.0, ended=1.0, bundle="b")  # fmt: skip
    place = {"namespace": "ml", "job": "train"} | ({"kept": "3600"} if kept else {})
    handle = RemoteHandle(target="kubernetes", place=place, store="s3://acme", prefix="p/")
    found = SimpleNamespace(listing=lambda *_, **__: list(jobs))
    monkeypatch.setattr(stages, "_store", lambda _: SimpleNamespace(listing=lambda _: []))
    monkeypatch.setattr(stages, "read_remote_run", lambda *_: RemoteRun(ends=(ended,)))
    monkeypatch.setattr(stages.KubernetesStages, "_cluster", lambda *_: (found, None))
    monkeypatch.setattr(stages.KubernetesStages, "handle_of", lambda *_: handle)
    spec = Spec(project="wine", environment="prod", file="mlstack.yaml", resources={})
    key = EntryKey(cmd="python train.py", deps=(), params={}, out_paths=())
    order = SimpleNamespace(stage=plan().stage, graph=SimpleNamespace(spec=spec), key=key, again=again)
    return stages.KubernetesStages().next_attempt(cast("RemoteOrder", order))


def job_of(number: int, *, deleted: bool = False, **condition: str) -> dict[str, Any]:
    """Return a Job as a cluster lists it."""
    about: dict[str, Any] = {"labels": {"mlstack.dev/attempt": str(number)}}
    about |= {"deletionTimestamp": "2026-11-22T08:00:00Z"} if deleted else {}
    return {"metadata": about, "spec": {}, "status": {"conditions": [condition] if condition else []}}


def test_what_is_at_work_already_is_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start was not answered, or its record is lost: a second copy beside it would be trained for nothing."""
    failed = job_of(1, type="Failed", status="True")
    assert attempt_after(monkeypatch) == 1
    assert attempt_after(monkeypatch, failed) == 2
    assert attempt_after(monkeypatch, failed, job_of(2)) == 2
    assert attempt_after(monkeypatch, failed, job_of(2, deleted=True)) == 3
    assert attempt_after(monkeypatch, job_of(1, type="Complete", status="True")) == 2
    assert attempt_after(monkeypatch, job_of(2), again="x") == 3  # somebody wants one of his own


def test_a_pod_that_is_kept_for_a_look_is_not_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt_after(monkeypatch, job_of(2), kept=True) == 2
    assert attempt_after(monkeypatch, job_of(3), kept=True) == 4


@pytest.mark.parametrize(("made", "ended_well"), [([False, True], True), ([False, False], False)])
def test_a_run_that_ends_while_it_is_asked_for_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, made: list[bool], ended_well: bool
) -> None:
    """The remote is asked first, then the cluster: a result may come in between."""
    board = SimpleNamespace(see=lambda _: (Seen(phase="succeeded"), []))
    monkeypatch.setattr(stages, "_is_made", lambda _: made.pop(0))
    monkeypatch.setattr(stages.KubernetesStages, "_cluster", lambda *_: (None, board))
    handle = RemoteHandle(target="kubernetes", place={"namespace": "ml", "job": "train"}, store="s3://a", prefix="p/")
    found = stages.KubernetesStages().outcome(cast("RunRecord", SimpleNamespace(remote=handle, attempt=1)))
    assert (found.ended_well, found.goes_on) == (ended_well, False)
