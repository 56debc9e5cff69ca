"""What a Job and its pods say of themselves: how far an attempt is, and why it failed. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from mlstack.drivers.base import Cause
from mlstack.drivers.kubernetes.job_objects import STAGE_CONTAINER
from mlstack.drivers.kubernetes.job_queue import what_it_waits_for

Manifest = dict[str, Any]
Phase = Literal["waiting", "starting", "running", "failed", "succeeded", "gone"]

_AT_ONCE = ("InvalidImageName", "ErrImageNeverPull")
_PULLING = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable", *_AT_ONCE)
_BROKEN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_NODE_WENT = ("DeletionByTaintManager", "DeletionByPodGC", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")
_EXIT: dict[int, Cause] = {124: "timeout", 125: "hang", 143: "preempted"}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """How far an attempt is. `said` is a line for people.

    `stuck` is why it does not go on, as long as it does not: after a while that counts as a failure for that cause, at
    once if `for_good`. `cause` is why it failed. `told_by` names the object whose events may say more. With
    `is_unexplained` no pod says why it failed, or that it did; perhaps they were read before that.
    """

    phase: Phase
    said: str = ""
    stuck: "Cause | None" = None
    for_good: bool = False
    cause: "Cause | None" = None
    told_by: str = ""
    is_unexplained: bool = False


def judge(
    job: Manifest | None,
    pods: Sequence[Manifest],
    events: Sequence[Manifest] = (),
    *,
    workload: Manifest | None = None,
    now: float = 0.0,
) -> Seen:
    """Say how far an attempt is.

    `events` are those that the answer asked for without them (`told_by`); `workload` is what Kueue says of a Job that
    waits. `now` (seconds since the epoch) tells which pods should have ended by now.
    """
    if job is None:
        return Seen(phase="gone")
    conditions = {each["type"]: each for each in (job.get("status") or {}).get("conditions") or () if _holds(each)}
    if "Complete" in conditions or "SuccessCriteriaMet" in conditions:
        return Seen(phase="succeeded")
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    if failed is not None:
        return _failure(failed, pods)
    if (job.get("spec") or {}).get("suspend"):
        return Seen(phase="waiting", said=shortened(what_it_waits_for(job, workload)))
    if not pods:
        return _without_pods(job, events)
    return max((_leaving(pod, now) or _pod(pod, events) for pod in pods), key=_urgency)


def is_up(pod: Manifest) -> bool:
    """Whether the stage's container of a pod runs."""
    return any("running" in state for state in _states(pod, main=True))


def _urgency(seen: Seen) -> tuple[bool, bool, int]:
    order = ("running", "starting", "waiting")
    return seen.for_good, seen.stuck is not None, order.index(seen.phase) if seen.phase in order else 0


# ---------------------------------------------------------------------------------------------------- on its way


def _without_pods(job: Manifest, events: Sequence[Manifest]) -> Seen:
    said = [str(each.get("message") or "") for each in events if each.get("reason") == "FailedCreate"]
    if not said:
        return Seen(phase="waiting", said="waits for its pod", told_by=(job.get("metadata") or {}).get("name", ""))
    message = shortened(said[-1])
    if "exceeded quota" in message:
        amounts = (
            message.partition("exceeded quota: ")[2] or message
        )  # before that: which pod, and that it is forbidden
        return Seen(phase="waiting", said=f"waits for room in the pool's quota: {amounts}", stuck="no-capacity")
    return Seen(phase="waiting", said=f"its pod cannot be made: {message}", stuck="error")


def _leaving(pod: Manifest, now: float) -> Seen | None:
    """Say so of a pod whose node does not tell how it ends: only the node can, or whoever removes it."""
    until = (pod.get("metadata") or {}).get("deletionTimestamp")
    if until is None or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return None
    node = (pod.get("spec") or {}).get("nodeName") or "its node"
    if datetime.fromisoformat(until).timestamp() < now:
        said = f"{node} does not answer: its pod should have ended there at {until}"
        return Seen(phase="starting", said=said, stuck="node-lost")
    disrupted = _disrupted(pod)
    if disrupted is not None and disrupted.get("reason") == "DeletionByTaintManager":
        return Seen(phase="starting", said=f"{node} does not answer; its pod is given up at {until}")
    return None


def _pod(pod: Manifest, events: Sequence[Manifest]) -> Seen:
    status = pod.get("status") or {}
    for state in _states(pod):
        waiting = state.get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), shortened(str(waiting.get("message") or ""))
        if reason in _PULLING:
            said = f"its image cannot be pulled: {message or reason}"
            return Seen(phase="starting", said=said, stuck="image-pull", for_good=reason in _AT_ONCE)
        if reason in _BROKEN:
            return Seen(phase="starting", said=f"its container cannot start: {message or reason}", stuck="error")
    scheduled: Manifest = next((each for each in status.get("conditions") or () if each["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        said = f"waits for a node: {shortened(str(scheduled.get('message') or ''))}"
        return Seen(phase="waiting", said=said, stuck="no-capacity")
    if any({"running", "terminated"} & state.keys() for state in _states(pod, main=True)):
        return Seen(phase="running")
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        return Seen(phase="waiting", said="waits for a node")
    steps = [each for each in events if each.get("reason") in ("Pulling", "Pulled")]
    is_pulling = bool(steps) and steps[-1]["reason"] == "Pulling"
    said = f"starts on {node}" + (": its image is being pulled" if is_pulling else "")
    return Seen(phase="starting", said=said, told_by=(pod.get("metadata") or {}).get("name", ""))


# ---------------------------------------------------------------------------------------------------- at its end


def _failure(condition: Manifest, pods: Sequence[Manifest]) -> Seen:
    message = shortened(str(condition.get("message") or ""))
    if condition.get("reason") == "DeadlineExceeded":
        return Seen(phase="failed", cause="timeout", said=message)
    found = [each for pod in pods if (each := _why(pod)) is not None]
    if found:
        return min(found, key=lambda each: _SPEAKING.index(each.cause or "error"))
    if not pods:
        said = "its pod was removed from the cluster"
        return Seen(phase="failed", cause="preempted", said=said, is_unexplained=True)
    return Seen(phase="failed", cause="error", said=message, is_unexplained=True)


_SPEAKING: tuple[Cause, ...] = (
    "out-of-memory",
    "node-lost",
    "preempted",
    "timeout",
    "hang",
    "error",
    "no-capacity",
    "image-pull",
    "cancelled",
)
"""Of several nodes that failed, which one's reason is the one to be told."""


def _why(pod: Manifest) -> Seen | None:
    """Say why a pod failed; None when it did not, or is only ended because another one failed."""
    status = pod.get("status") or {}
    state = _terminated(pod)
    if state is not None and state.get("reason") == "OOMKilled":
        return Seen(phase="failed", cause="out-of-memory", said="it used more memory than it has")
    disrupted = _disrupted(pod)
    if disrupted is not None or status.get("reason"):
        reasons = [str(each["reason"]) for each in (disrupted or {}, status) if each.get("reason")]
        said = shortened(str((disrupted or {}).get("message") or status.get("message") or reasons[0]))
        if "ephemeral" in said and "exceeds" in said:
            return Seen(phase="failed", cause="error", said=said)
        return Seen(
            phase="failed", cause="preempted" if set(reasons).isdisjoint(_NODE_WENT) else "node-lost", said=said
        )
    if state is None or not state.get("exitCode"):
        return None
    code = int(state["exitCode"])
    word = shortened(str(state.get("message") or "").strip().splitlines()[0]) if state.get("message") else ""
    return Seen(phase="failed", cause=_EXIT.get(code, "error"), said=word or f"exit code {code}")


def _disrupted(pod: Manifest) -> Manifest | None:
    """Return why the cluster takes a pod away, if it does."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "DisruptionTarget" and _holds(each)), None)


def _terminated(pod: Manifest) -> Manifest | None:
    states = [state["terminated"] for state in _states(pod) if state.get("terminated")]
    return next((state for state in states if state.get("exitCode")), states[-1] if states else None)


def _states(pod: Manifest, *, main: bool = False) -> list[Manifest]:
    status = pod.get("status") or {}
    found = [] if main else list(status.get("initContainerStatuses") or ())
    found += [each for each in status.get("containerStatuses") or () if not main or each["name"] == STAGE_CONTAINER]
    return [each.get("state") or {} for each in found]


def _holds(condition: Manifest) -> bool:
    return bool(condition.get("status") == "True")


def shortened(text: str) -> str:
    """Return a text of others on one line, without its middle where that is long."""
    words = " ".join(text.split())
    return words if len(words) <= 300 else f"{words[:119]} … {words[-178:]}"  # the cause comes last
