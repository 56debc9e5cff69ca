"""Jobs in a queue of Kueue: what is asked of it, and a log that goes on when a Job has made room for another one."""

import time
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, cast

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes import job_follow, job_log
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.job_board import EVERY, JobBoard
from mlstack.drivers.kubernetes.job_follow import Attempt, PodLog, has_failed
from mlstack.drivers.kubernetes.job_log import growing_log
from mlstack.drivers.kubernetes.preflight_queues import check_queues, why_never_let_in
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.runner.record import End
from mlstack.runner.store import Store
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Resources, Spec, Stage
from mlstack.state.state import RemoteHandle

QUEUE = {"kueue.x-k8s.io/queue-name": "team"}
HANDLE = RemoteHandle(target="kubernetes", place={"job": "train", "namespace": "ml"}, store="s3://a/b", prefix="p")


def job(*, suspend: bool = False, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "train", "uid": "u-1", "labels": QUEUE},
        "spec": {"suspend": suspend},
        "status": status,
    }


def pod(name: str) -> dict[str, Any]:
    running = {"name": "stage", "state": {"running": {}}}
    labels = {"batch.kubernetes.io/job-name": "train"}
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"containerStatuses": [running]}}


def workload(message: str) -> dict[str, Any]:
    pending = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
    return {"metadata": {"labels": {"kueue.x-k8s.io/job-uid": "u-1"}}, "status": {"conditions": [pending]}}


COMPLETE = {"type": "Complete", "status": "True"}


Step = tuple[dict[str, Any], list[Any], list[Any]]


class Cluster:
    """Is a step further each time that its Jobs are listed."""

    def __init__(self, *steps: Step) -> None:
        self.steps, self.at, self.asked = steps, 0, [""]
        self.refusal: MlstackError | None = None
        self.writes, self.cut_at = [1], -1

    def listing(self, kind: str, _namespace: str, *, labels: str = "") -> list[dict[str, Any]]:
        self.asked.append(kind)
        found, pods, _ = self.steps[min(self.at, len(self.steps) - 1)]
        if kind == "Pod":
            return pods
        if kind == "Job":
            assert labels
            self.at += 1
            return [found]
        if self.refusal is not None:
            raise self.refusal
        return self.steps[self.at - 1][2]

    def log(
        self, name: str, _namespace: str, *, container: str, follow: bool, timestamps: bool = False, since: str = ""
    ) -> Iterator[bytes]:
        assert (container, follow) == ("stage", True)
        for second in range(int(since[17:19] or 0), 60):
            if second == self.cut_at:
                self.cut_at = -1
                raise MlstackError(Diagnostic(code="kubernetes-unreachable", summary="No", detail="Cut."))
            if second in self.writes:
                yield (f"2026-11-22T08:00:{second:02}.5Z " * timestamps + f"said by {name}").encode()


def board_of(cluster: Cluster) -> JobBoard:
    clock = count(step=EVERY)
    return JobBoard(cast("Kube", cluster), "ml", clock=lambda: float(next(clock)))


def test_pods_of_an_earlier_job_of_that_name_are_not_its_own() -> None:
    """On a node that does not answer a pod stays when its Job is gone, and a new one has the name."""
    pods = [pod("train-0-lost"), pod("train-0-new")]
    for each, owner in zip(pods, ("u-0", "u-1"), strict=True):
        each["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = owner
    _, found = board_of(Cluster((job(), pods, []))).look("train")
    assert [each["metadata"]["name"] for each in found] == ["train-0-new"]


def test_kueue_is_asked_only_while_something_waits() -> None:
    cluster = Cluster((job(), [], []), (job(suspend=True), [], [workload("full")]), (job(), [], []))
    board = board_of(cluster)
    seen = [board.workload_of(board.look("train")[0]) for _ in range(3)]
    assert seen == [None, workload("full"), None]
    assert cluster.asked.count("Workload") == 1


def test_who_may_not_see_what_kueue_knows_follows_all_the_same() -> None:
    cluster = Cluster((job(suspend=True), [], []))
    board = board_of(cluster)
    cluster.refusal = MlstackError(Diagnostic(code="kubernetes-refused", summary="No", detail="Forbidden."))
    assert board.workload_of(board.look("train")[0]) is None
    cluster.refusal = MlstackError(Diagnostic(code="kubernetes-unreachable", summary="No", detail="Nobody."))
    with pytest.raises(MlstackError):
        board.look("train", fresh=True)


def test_a_log_says_what_is_waited_for_and_goes_on_with_the_next_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "_EVERY", 0.0)
    cluster = Cluster(
        (job(suspend=True), [], [workload("full")]),
        (job(suspend=True), [], [workload("full")]),
        (job(), [pod("train-0-a")], []),
        (job(suspend=True), [], [workload("full again")]),
        (job(), [pod("train-0-b")], []),
        (job(conditions=[COMPLETE]), [], []),
    )
    lines = b"".join(
        growing_log(HANDLE, 1, kube=cast("Kube", cluster), board=board_of(cluster), store=cast("Store", None))
    )
    assert lines.decode().splitlines() == [
        "mlstack: waits in the queue team: full",
        "said by train-0-a",
        "mlstack: waits in the queue team: full again",
        "said by train-0-b",
    ]


def test_whoever_follows_hears_the_next_pod_too() -> None:
    cluster = Cluster((job(), [], []))
    heard: list[str] = []
    attempt = Attempt(job="train", namespace="ml", number=1, prefix="p")
    log = PodLog(attempt, board_of(cluster), cast("Kube", cluster), say=heard.append)
    for name in ("train-0-a", "train-0-a", "train-0-b"):
        log.start([pod(name)])
        log.finish()
    assert heard == ["said by train-0-a", "said by train-0-b"]


def test_a_log_that_breaks_off_goes_on_where_it_was() -> None:
    cluster = Cluster((job(), [], []))
    cluster.writes, cluster.cut_at = [1, 2, 3, 4], 3
    heard: list[str] = []
    log = PodLog(
        Attempt(job="train", namespace="ml", number=1, prefix="p"),
        board_of(cluster),
        cast("Kube", cluster),
        say=heard.append,
    )
    said_then = []
    for _ in range(3):
        log.start([pod("train-0-a")])
        log.finish()
        said_then.append(len(heard))
    assert said_then == [2, 4, 4]


def test_a_cluster_that_does_not_answer_for_a_while_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the first look nor later; what cannot pass does."""
    monkeypatch.setattr(job_follow.JobWatch, "_end", lambda _: None)
    monkeypatch.setattr(job_follow, "EVERY", 0.0)
    cluster = Cluster((job(), [pod("train-0-a")], []), (job(conditions=[COMPLETE]), [], []))
    problems = [
        *(["kubernetes-unreachable", "kubernetes-unavailable"] * 2),
        None,
        "kubernetes-unavailable",
        None,
    ]
    listing = cluster.listing

    def failing(kind: str, namespace: str, *, labels: str = "") -> list[dict[str, Any]]:
        code = problems.pop(0) if problems and kind == "Pod" else None
        if code is not None:
            raise MlstackError(Diagnostic(code=code, summary="No", detail="Nobody."))
        return listing(kind, namespace, labels=labels)

    monkeypatch.setattr(cluster, "listing", failing)
    attempt = Attempt(job="train", namespace="ml", number=1, prefix="p")
    heard: list[str] = []

    def follow() -> Any:
        watch = job_follow.JobWatch(attempt, board_of(cluster), cast("Kube", cluster), cast("Store", None))
        return watch.follow(say=heard.append, is_left=lambda: False)

    assert follow().exit_code == 0
    said = [line.partition(":")[0] for line in heard if not line.startswith("said by")]
    assert said == ["no answer, asking again (the run goes on)", "there is an answer again"] * 2
    problems[:] = ["kubernetes-unauthorized"]
    with pytest.raises(MlstackError):
        follow()


@pytest.mark.parametrize(("node", "cause"), [(None, "node-lost"), ({"kind": "Node"}, "preempted"), ("no", "preempted")])
def test_a_pod_that_went_with_its_node_is_told_from_one_that_was_taken(
    monkeypatch: pytest.MonkeyPatch, node: Any, cause: str
) -> None:
    """When a node is deleted its pods are, too, mostly before anybody has read why."""
    monkeypatch.setattr(job_follow.JobWatch, "_end", lambda _: None)
    monkeypatch.setattr(job_follow, "EVERY", 0.0)
    on_node = pod("train-0-a") | {"spec": {"nodeName": "n-1"}}
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "DisruptionTarget"}
    cluster = Cluster((job(), [on_node], []), (job(conditions=[failed]), [], []))

    def get(kind: str, name: str) -> Any:
        assert (kind, name) == ("Node", "n-1")
        if node == "no":
            raise MlstackError(Diagnostic(code="kubernetes-refused", summary="No", detail="Forbidden."))
        return node

    monkeypatch.setattr(cluster, "get", get, raising=False)
    attempt = Attempt(job="train", namespace="ml", number=1, prefix="p")
    kube = cast("Kube", cluster)
    watch = job_follow.JobWatch(attempt, board_of(cluster), kube, cast("Store", None))
    result = watch.follow(say=lambda _: None, is_left=lambda: False)
    assert result is not None
    assert result.cause == cause


def test_why_it_failed_is_read_after_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods are read before their Job: what ends between the two was at work still when it was read."""
    monkeypatch.setattr(job_follow.JobWatch, "_end", lambda _: None)
    failed = job(conditions=[{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "m"}])
    killed = pod("train-0-a")
    killed["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    steps: tuple[Step, Step] = (failed, [pod("train-0-a")], []), (failed, [killed], [])
    kube = cast("Kube", Cluster(*steps))
    attempt = Attempt(job="train", namespace="ml", number=1, prefix="p")
    watch = job_follow.JobWatch(attempt, board_of(Cluster(*steps)), kube, cast("Store", None))
    result = watch.follow(say=lambda _: None, is_left=lambda: False)
    assert result is not None
    assert result.cause == "out-of-memory"
    assert board_of(Cluster(*steps)).see("train")[0].cause == "out-of-memory"


def test_why_nothing_happens_is_said_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain output leaves the first half minute of a step out."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    attempt = Attempt(job="train", namespace="ml", number=1, prefix="p")
    watch = job_follow.JobWatch(attempt, cast("JobBoard", None), cast("Kube", None), cast("Store", None))
    heard: list[str] = []
    for now[0] in (100.0, 101.0, 129.0, 131.0, 132.0):
        watch._tell(heard.append, "waits")
    assert heard == ["waits", "waits"]


def queue_of(*flavors: Mapping[str, tuple[str, str | None]], cohort: str = "") -> dict[str, Any]:
    """Return a ClusterQueue whose flavors have so much, and may borrow so much (None: without a bound)."""
    made = [
        {
            "name": f"f{index}",
            "resources": [
                {"name": name, "nominalQuota": own} | ({"borrowingLimit": limit} if limit is not None else {})
                for name, (own, limit) in flavor.items()
            ],
        }
        for index, flavor in enumerate(flavors)
    ]
    spec = {"resourceGroups": [{"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": made}]}
    return {"metadata": {"name": "c"}, "spec": spec | ({"cohort": cohort} if cohort else {})}


SMALL = {"cpu": ("2", None), "memory": ("4Gi", None), "nvidia.com/gpu": ("1", None)}


@pytest.mark.parametrize(
    ("wanted", "queue", "why"),
    [
        ({"cpu": 2.0, "memory": 4.0 * 2**30, "nvidia.com/gpu": 1.0}, queue_of(SMALL), ""),
        ({"cpu": 3.0}, queue_of(SMALL), "it needs 3 cores, and the most that a flavor of it has is 2 cores"),
        ({"nvidia.com/gpu": 2.0}, queue_of(SMALL), "it needs 2 GPUs, and the most that a flavor of it has is 1 GPU"),
        ({"cpu": 3.0}, queue_of(SMALL, {"cpu": ("4000m", None)}), ""),
        (
            {"cpu": 3.0, "memory": 4.0 * 2**30},
            queue_of(SMALL, {"cpu": ("4", None), "memory": ("1Gi", None)}),
            "it needs 3 cores and 4 GiB of memory together, and the most",
        ),
        ({"cpu": 3.0}, queue_of(SMALL, cohort="all"), ""),
        ({"cpu": 3.0}, queue_of({"cpu": ("2", "500m")}, cohort="all"), "it needs 3 cores, and"),
        ({"cpu": 2.5}, queue_of({"cpu": ("2", "500m")}, cohort="all"), ""),
        ({"cpu": 2.5}, queue_of({"cpu": ("2", "500m")}), "it needs 2.5 cores"),
        ({"example.com/fpga": 9.0}, queue_of(SMALL), ""),
        ({"cpu": 9.0}, {"metadata": {"name": "c"}, "spec": {}}, ""),
    ],
)
def test_what_a_queue_could_never_let_in(wanted: dict[str, float], queue: dict[str, Any], why: str) -> None:
    """A flavor has to have all of it; a queue in a cohort borrows without a bound, if it says none."""
    found = why_never_let_in(wanted, queue)
    assert found.startswith(why) if why else found == ""


def test_stages_that_are_too_large_for_their_queue_are_named() -> None:
    """Those that ask for the same are one problem; all nodes of a stage count together."""
    pool = Pool(address=Address("compute.gpu"), target="kubernetes", each=Resources(cpu=2.0))
    stages = {
        Address(f"stages.{name}"): Stage(address=Address(f"stages.{name}"), cmd="true", pool=pool.address, nodes=nodes)
        for name, nodes in (("a", 2), ("b", 2), ("c", 1))
    }
    spec = Spec(project="p", environment="e", file="mlstack.yaml", resources={pool.address: pool, **stages})
    there = {"LocalQueue": {"spec": {"clusterQueue": "c"}}, "ClusterQueue": queue_of(SMALL)}
    settings = KubernetesSettings(queue="team")
    (problem,) = check_queues(settings, pool, spec, lambda kind, _name: there[kind])
    assert problem.code == "kubernetes-queue-too-small"
    assert problem.detail == (
        "stages.a in compute.gpu, by the ClusterQueue c: it needs 4 cores, and the most that a flavor of it has is "
        "2 cores. 1 more of its pool ask for the same."
    )
    assert [*check_queues(settings, pool, spec, lambda _kind, _name: None)] == []


@pytest.mark.parametrize(("cause", "expected"), [(None, False), ("stopped", False), ("error", True)])
def test_a_pod_that_was_asked_to_end_is_not_one_that_is_kept(cause: str | None, expected: bool) -> None:
    """A Job that made room has such an end, and then runs on."""
    assert has_failed(cast("End", type("Known", (), {"cause": cause})())) is expected
