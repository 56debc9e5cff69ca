"""When a Deployment, Job or Pod is ready, and what keeps it from that."""

from __future__ import annotations

from tests.engines.pulumi_kubernetes.values import Object
from tests.engines.pulumi_kubernetes.waiting import Verdict, Wait, condition, found

REVISION = "deployment.kubernetes.io/revision"


def deployment(wait: Wait, live: Object) -> Verdict:
    """Ready once the ReplicaSet of its newest revision has all the Pods that it wants."""
    progressing, available = condition(live, "Progressing"), condition(live, "Available")
    unmet = [each for each in (progressing, available) if each and each.get("status") != "True"]
    reasons = [f"[{each.get('reason')}] {each.get('message')}" for each in unmet]
    revision = _revision(live)
    seen = found(live, "status", "observedGeneration") == live["metadata"].get("generation")
    rolled_out = progressing.get("status") == "True" and progressing.get("reason") == "NewReplicaSetAvailable"
    is_available = available.get("status") == "True"
    newest = _newest(wait, live, revision) if revision and seen else None
    complete = newest is not None and _complete(wait, live, newest, revision)
    if seen and is_available and complete and (revision == "1" or rolled_out):
        return Verdict(ready=True, reasons=[])
    if not is_available:
        reasons.append("Minimum number of live Pods was not attained")
    elif revision == "1" or not rolled_out:
        reasons.append("Minimum number of Pods to consider the application live was not attained")
    else:
        reasons.append("Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live")
    return Verdict(ready=False, reasons=reasons + (pod_errors(wait, newest) if newest else []))


def _revision(obj: Object) -> str:
    return str(found(obj, "metadata", "annotations", REVISION) or "")


def _newest(wait: Wait, live: Object, revision: str) -> Object | None:
    for each in wait.items("ReplicaSet", "apps/v1"):
        if owned_by(each, live) and _revision(each) == revision:
            return each
    return None


def _complete(wait: Wait, live: Object, newest: Object, revision: str) -> bool:
    wanted, ready = found(newest, "spec", "replicas"), found(newest, "status", "readyReplicas")
    wanted = 1 if wanted is None else wanted
    enough = bool(ready >= wanted) if ready is not None else wanted == 0
    if wait.before is None or _revision(live) == _revision(wait.before):
        return enough
    return enough and revision != _revision(wait.before)


def owned_by(obj: Object, owner: Object) -> bool:
    """Whether an object belongs to another."""
    return any(each.get("uid") == owner["metadata"]["uid"] for each in obj["metadata"].get("ownerReferences") or [])


def pod_errors(wait: Wait, owner: Object) -> list[str]:
    """What the Pods of a ReplicaSet or Job complain about."""
    return [message for each in wait.items("Pod") if owned_by(each, owner) for message in _complaints(each)]


def _complaints(pod: Object) -> list[str]:
    name, namespace = pod["metadata"]["name"], pod["metadata"].get("namespace", "default")
    full = name if namespace == "default" else f"{namespace}/{name}"
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "True":
        return []
    errors = "\n".join(each for status in found(pod, "status", "containerStatuses") or [] for each in _errors(status))
    for kind in ("Initialized", "Ready"):
        each = condition(pod, kind)
        if not each or each.get("status") == "True" or found(pod, "status", "phase") == "Succeeded":
            continue
        text = each.get("message", "") if each.get("reason") else ""
        return [f"[Pod {full}]: {text}{errors}"] if errors or each.get("message") else []
    return []


def _errors(status: Object) -> list[str]:
    if status.get("ready"):
        return []
    errors = []
    if (waiting := found(status, "state", "waiting")) and waiting.get("reason") != "ContainerCreating":
        errors.append(f"[{waiting.get('reason', '')}] {waiting.get('message', '')}")
    if (ended := found(status, "state", "terminated")) and ended.get("reason"):
        errors.append(
            f"[{ended['reason']}] {ended['message']}"
            if ended.get("message")
            else f'container "{status["name"]}" completed with exit code {ended.get("exitCode", 0)}'
        )
    if last := found(status, "lastState", "terminated"):
        errors.append(
            f'container "{status["name"]}" terminated at {last.get("finishedAt")} '
            f"({last.get('reason', '')}: exit code {last.get('exitCode', 0)})"
        )
        errors += [last["message"]] if last.get("message") else []
    return errors


def job(wait: Wait, live: Object) -> Verdict:
    """Ready once it is complete. A failed one is an error at once; a suspended one is waited for like any other."""
    failed = condition(live, "Failed")
    if failed.get("status") == "True" and failed.get("reason") in ("BackoffLimitExceeded", "DeadlineExceeded"):
        reasons = [f"[{failed['reason']}] {failed.get('message')}", *pod_errors(wait, live)]
        return Verdict(ready=False, reasons=reasons, failed=True)
    if found(live, "status", "startTime") and condition(live, "Complete").get("status") == "True":
        return Verdict(ready=True, reasons=[])
    return Verdict(ready=False, reasons=pod_errors(wait, live))


def pod(_wait: Wait, live: Object) -> Verdict:
    """Ready once its condition says so, or it has done its work."""
    ready = condition(live, "Ready").get("status") == "True" or found(live, "status", "phase") == "Succeeded"
    return Verdict(ready=ready, reasons=[] if ready else _complaints(live))
