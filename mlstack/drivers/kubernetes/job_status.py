"""What a Job and its pods say of themselves: how far an attempt is, and why it failed. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from mlstack.drivers.base import Cause
from mlstack.drivers.kubernetes.job_objects import STAGE_CONTAINER

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
    once if `for_good`. `cause` is why it failed.
    """

    phase: Phase
    said: str = ""
    stuck: "Cause | None" = None
    for_good: bool = False
    cause: "Cause | None" = None


def judge(job: Manifest | None, pods: Sequence[Manifest], events: Iterable[Manifest] = ()) -> Seen:
    """Say how far an attempt is. `events` are those of the Job, asked where it has no pod."""
    if job is None:
        return Seen(phase="gone")
    conditions = {each["type"]: each for each in (job.get("status") or {}).get("conditions") or () if _holds(each)}
    if "Complete" in conditions or "SuccessCriteriaMet" in conditions:
        return Seen(phase="succeeded")
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    if failed is not None:
        return _failure(failed, pods)
    if (job.get("spec") or {}).get("suspend"):
        return Seen(phase="waiting", said="waits in the cluster's queue")
    if not pods:
        return _without_pods(events)
    return max((_pod(pod) for pod in pods), key=_urgency)


def end_of(pods: Sequence[Manifest]) -> Manifest | None:
    """Return the state of the stage's container that ended first of those that failed."""
    ended = [state for pod in pods if (state := _terminated(pod)) is not None and state.get("exitCode")]
    return min(ended, key=lambda state: str(state.get("finishedAt") or "~"), default=None)


def is_up(pod: Manifest) -> bool:
    """Whether the stage's container of a pod runs."""
    return any("running" in state for state in _states(pod, main=True))


def _urgency(seen: Seen) -> tuple[bool, bool, int]:
    order = ("running", "starting", "waiting")
    return seen.for_good, seen.stuck is not None, order.index(seen.phase) if seen.phase in order else 0


# ---------------------------------------------------------------------------------------------------- on its way


def _without_pods(events: Iterable[Manifest]) -> Seen:
    said = [str(each.get("message") or "") for each in events if each.get("reason") == "FailedCreate"]
    if not said:
        return Seen(phase="waiting", said="waits for its pod")
    message = _short(said[-1])
    if "exceeded quota" in message:
        return Seen(phase="waiting", said=f"waits for room in the pool's quota: {message}", stuck="no-capacity")
    return Seen(phase="waiting", said=f"its pod cannot be made: {message}", stuck="error")


def _pod(pod: Manifest) -> Seen:
    status = pod.get("status") or {}
    for state in _states(pod):
        waiting = state.get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), _short(str(waiting.get("message") or ""))
        if reason in _PULLING:
            said = f"its image cannot be pulled: {message or reason}"
            return Seen(phase="starting", said=said, stuck="image-pull", for_good=reason in _AT_ONCE)
        if reason in _BROKEN:
            return Seen(phase="starting", said=f"its container cannot start: {message or reason}", stuck="error")
    scheduled: Manifest = next((each for each in status.get("conditions") or () if each["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        said = f"waits for a node: {_short(str(scheduled.get('message') or ''))}"
        return Seen(phase="waiting", said=said, stuck="no-capacity")
    if any({"running", "terminated"} & state.keys() for state in _states(pod, main=True)):
        return Seen(phase="running")
    node = (pod.get("spec") or {}).get("nodeName")
    return Seen(phase="starting", said=f"starts on {node}" if node else "waits for a node")


# ---------------------------------------------------------------------------------------------------- at its end


def _failure(condition: Manifest, pods: Sequence[Manifest]) -> Seen:
    message = _short(str(condition.get("message") or ""))
    if condition.get("reason") == "DeadlineExceeded":
        return Seen(phase="failed", cause="timeout", said=message)
    found = [each for pod in pods if (each := _why(pod)) is not None]
    if found:
        return min(found, key=lambda each: _SPEAKING.index(each.cause or "error"))
    if not pods:
        return Seen(phase="failed", cause="preempted", said="its pod was removed from the cluster")
    return Seen(phase="failed", cause="error", said=message)


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
    disrupted = next(
        (each for each in status.get("conditions") or () if each["type"] == "DisruptionTarget" and _holds(each)), None
    )
    if disrupted is not None or status.get("reason"):
        reason = str((disrupted or {}).get("reason") or status.get("reason"))
        said = _short(str((disrupted or {}).get("message") or status.get("message") or reason))
        if "ephemeral" in said and "exceeds" in said:
            return Seen(phase="failed", cause="error", said=said)
        return Seen(phase="failed", cause="node-lost" if reason in _NODE_WENT else "preempted", said=said)
    if state is None or not state.get("exitCode"):
        return None
    code = int(state["exitCode"])
    word = _short(str(state.get("message") or "").strip().splitlines()[0]) if state.get("message") else ""
    return Seen(phase="failed", cause=_EXIT.get(code, "error"), said=word or f"exit code {code}")


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


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 300 else f"{words[:297]}…"
