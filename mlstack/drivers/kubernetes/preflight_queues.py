"""Whether Kueue would let the Jobs of a pool begin: queues that are there, take something in, and have as much."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.drivers.kubernetes.placement import gpu_name
from mlstack.drivers.kubernetes.preflight_nodes import read_amount
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.local.capacity import amount_text, resources_of
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Spec, Stage

Find = Callable[[str, str], Mapping[str, Any] | None]
"""Finds an object by kind and name; None also where it may not be seen."""


def check_queues(settings: KubernetesSettings, pool: Pool, spec: Spec, find: Find) -> Iterator[Diagnostic]:
    """Yield which queue of a pool lets nothing begin, and which of its stages are larger than all that the queue has.

    A queue may let something begin again by the time that something waits: that is a warning.
    """
    local = find("LocalQueue", settings.queue) if settings.queue else None
    behind = settings.cluster_queue or ((local or {}).get("spec") or {}).get("clusterQueue")
    cluster = find("ClusterQueue", behind) if behind else None
    # The second does not say why, if the first is the reason.
    for kind, name, found in (("ClusterQueue", behind, cluster), ("LocalQueue", settings.queue, local)):
        conditions = ((found or {}).get("status") or {}).get("conditions") or ()
        active: Mapping[str, Any] = next((each for each in conditions if each["type"] == "Active"), {})
        if active.get("status") == "False":
            yield _inactive(kind, str(name), pool.address, str(active.get("message") or active.get("reason")))
            break
    if cluster is not None:
        stages = [each for each in spec.of(Stage).values() if each.pool == pool.address]
        yield from _too_large(stages, pool, cluster, device=gpu_name(pool, settings))


def why_never_let_in(wanted: Mapping[str, float], queue: Mapping[str, Any]) -> str:
    """Say why a ClusterQueue could not let a Job in were it empty; "" where it could, or where that is not known.

    `wanted` is what all pods of the Job ask for together, by Kubernetes' names of resources. All of it that a group of
    resources covers comes from one flavor. A queue in a cohort borrows from others, as far as it says.
    """
    spec = queue["spec"]
    is_alone = not (spec.get("cohort") or spec.get("cohortName"))
    for group in spec.get("resourceGroups") or ():
        asked = [name for name in group.get("coveredResources") or () if wanted.get(name)]
        rooms = [_room(flavor, is_alone=is_alone) for flavor in group.get("flavors") or ()]
        if not asked or any(all(wanted[name] <= room.get(name, 0.0) for name in asked) for room in rooms):
            continue
        largest = {name: max((room.get(name, 0.0) for room in rooms), default=0.0) for name in asked}
        short = [name for name in asked if wanted[name] > largest[name]] or asked
        needs = " and ".join(_text(name, wanted[name]) for name in short)
        has = " and ".join(_text(name, largest[name]) for name in short)
        together = " together" if short == asked and len(rooms) > 1 and len(short) > 1 else ""
        return f"it needs {needs}{together}, and the most that a flavor of it has is {has}"
    return ""


def _room(flavor: Mapping[str, Any], *, is_alone: bool) -> dict[str, float]:
    """Return how much of each resource a Job could have of a flavor."""
    found = {}
    for each in flavor.get("resources") or ():
        own = _read(each["name"], each.get("nominalQuota"))
        borrowed = 0.0 if is_alone else _read(each["name"], each.get("borrowingLimit"))
        found[each["name"]] = own + borrowed
    return found


def _read(name: str, amount: object) -> float:
    """Return an amount in cores, bytes or devices; what is not said, or not as it is known, bounds nothing."""
    found = read_amount(amount, "memory" if name == "memory" else "cpu") if amount is not None else None
    return inf if found is None else found


def _text(name: str, amount: float) -> str:
    return amount_text(name if name in ("cpu", "memory") else "gpu", amount)


def _too_large(stages: Sequence[Stage], pool: Pool, queue: Mapping[str, Any], *, device: str) -> Iterator[Diagnostic]:
    """Yield the stages that would wait for good; those that ask for the same are one problem."""
    alike: dict[tuple[tuple[str, float], ...], list[Stage]] = {}
    for stage in stages:
        amounts = {name: amount * stage.nodes for name, amount in resources_of(stage, pool).items()}
        alike.setdefault(tuple(sorted(amounts.items())), []).append(stage)
    for asked, (stage, *others) in alike.items():
        wanted = {device if name == "gpu" else name: amount for name, amount in asked}
        if why := why_never_let_in(wanted, queue):
            problem = _never(stage.address, pool.address, str(queue["metadata"]["name"]), why)
            more = f" {len(others)} more of its pool ask for the same." if others else ""
            yield msgspec.structs.replace(problem, detail=problem.detail + more)


# ---------------------------------------------------------------------------------------------------- words


def _inactive(kind: str, name: str, pool: Address, said: str) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-queue-inactive",
        summary="A queue of Kueue lets nothing begin",
        detail=f"The {kind} {name} of {pool} is not active: {said}",
        hint="Stages of the pool wait until whoever looks after the queue has mended that.",
        command=f"kubectl describe {kind.lower()} {name}",
        severity=Severity.WARNING,
        address=pool,
    )


def _never(stage: Address, pool: Address, queue: str, why: str) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-queue-too-small",
        summary="A queue of Kueue could never let this in",
        detail=f"{stage} in {pool}, by the ClusterQueue {queue}: {why}.",
        hint="Ask for less, use another `queue`, or have its quota raised by whoever looks after it.",
        command=f"kubectl describe clusterqueue {queue}",
        address=stage,
    )
