"""What a queue of Kueue says of a Job that waits in it. Pure."""

from collections.abc import Iterator
from typing import Any

from mlstack.drivers.kubernetes.job_objects import QUEUE

Manifest = dict[str, Any]


def what_it_waits_for(job: Manifest, workload: Manifest | None) -> str:
    """Say in which queue a Job waits, and for what.

    `workload` is Kueue's own object of it; None where there is none yet, or it may not be seen.
    """
    name = ((job.get("metadata") or {}).get("labels") or {}).get(QUEUE)
    where = f"waits in the queue {name}" if name else "waits in the cluster's queue"
    said = "; ".join(_reasons(workload)) if workload is not None else ""
    return f"{where}: {said}" if said else where


def _reasons(workload: Manifest) -> Iterator[str]:
    status = workload.get("status") or {}
    told: dict[str, Manifest] = {each["type"]: each for each in status.get("conditions") or ()}
    evicted, reserved = (told.get(name) or {} for name in ("Evicted", "QuotaReserved"))
    is_off = (workload.get("spec") or {}).get("active") is False
    if is_off:
        yield f"it is not let in until somebody activates it again ({_message(evicted) or 'it was deactivated'})"
    elif reserved.get("status") == "True":
        yield from _checks(status)
    elif reserved:
        yield f"it is not let in: {_message(reserved)}" if _is_refused(reserved) else _message(reserved)
    elif not evicted:
        yield "nothing is said of it yet, as where others are before it"
    if evicted.get("status") == "True" and not is_off:
        yield f"it had to make room: {_message(evicted)}"


def _is_refused(reserved: Manifest) -> bool:
    """Whether that is no matter of waiting for others: its queue takes nothing, or has never had so much."""
    return reserved.get("reason") == "Inadmissible" or "maximum capacity" in _message(reserved)


def _checks(status: Manifest) -> Iterator[str]:
    """Yield what has yet to agree to a Job that there is room for: a node that is being made, another cluster."""
    for each in status.get("admissionChecks") or ():
        if each.get("state") != "Ready":
            said = _message(each)
            yield f"there is room; the check {each.get('name')} is {each.get('state')}" + (f": {said}" if said else "")


def _message(condition: Manifest) -> str:
    return str(condition.get("message") or condition.get("reason") or "").rstrip(".")
