"""Whether any node of a cluster could ever take what a pool is asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.kubernetes.placement import gpu_name, pod_placement
from mlstack.drivers.kubernetes.settings import read_settings
from mlstack.drivers.local.capacity import amount_text, resources_of
from mlstack.drivers.registry import pool_of
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.quantity import WrongError, read_cores, read_memory
from mlstack.spec.spec import Endpoint, Pool, Stage

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest


def check_nodes(client: "Kube", asked: Iterable[Pool | Endpoint], graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield which of these endpoints, and of the users of these pools, fit on no node.

    A warning only, where nodes come when they are needed. Who may not see the nodes is told nothing. Those of a pool
    that ask for the same are one question: a hundred endpoints may meet a thousand nodes.
    """
    addresses = {each.address for each in asked}
    users = [
        (user, pool_of(user, graph))
        for user in graph.resources.values()
        if isinstance(user, Stage | Endpoint) and {user.address, user.pool} & addresses
    ]
    if not users or not client.may("list", "Node"):
        return
    nodes = client.listing("Node")
    alike: dict[object, list[tuple[Stage | Endpoint, Pool]]] = {}
    for user, pool in users:
        alike.setdefault((pool.address, *sorted(resources_of(user, pool).items())), []).append((user, pool))
    for (user, pool), *others in alike.values():
        if (problem := why_on_no_node(user, pool, nodes)) is not None:
            more = f" {len(others)} more of its pool ask for the same." if others else ""
            yield msgspec.structs.replace(problem, detail=problem.detail + more)


def why_on_no_node(user: Stage | Endpoint, pool: Pool, nodes: Sequence["Manifest"]) -> Diagnostic | None:
    """Say why no node could ever take a pod of a stage or endpoint; None if one could, were it empty."""
    try:
        settings = read_settings(pool)
    except MlstackError:
        return None
    wanted = resources_of(user, pool)
    placement = pod_placement(pool, settings, gpu=bool(wanted.get("gpu")))
    fitting = [node for node in nodes if takes(node, placement)]
    device = gpu_name(pool, settings)
    if wanted.get("gpu") and not any(_amount(node, "gpu", device) for node in fitting):
        names = " or ".join(pool.accelerator) or device
        return _problem(user, pool, f"no node that it may run on has {names} (as `{device}`)")
    for node in fitting:
        if all(_amount(node, name, device) >= amount for name, amount in wanted.items()):
            return None
    if not fitting:
        return _problem(user, pool, f"none of the {len(nodes)} nodes has the labels and lets it on (taints)")
    largest = {name: max(_amount(node, name, device) for node in fitting) for name in wanted}
    short = [name for name, amount in wanted.items() if amount > largest[name]]
    if not short:
        return _problem(user, pool, f"no single node has {_together(wanted)}")
    needs = ", ".join(amount_text(name, wanted[name]) for name in short)
    has = ", ".join(amount_text(name, largest[name]) for name in short)
    return _problem(user, pool, f"it needs {needs}, and the largest node that it may run on has {has}")


def takes(node: "Manifest", placement: Mapping[str, Any]) -> bool:
    """Whether a node takes pods with this placement: selector, required affinity, taints."""
    labels = dict(node["metadata"].get("labels") or {})
    selector = placement.get("nodeSelector") or {}
    affinity = ((placement.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    terms = affinity.get("nodeSelectorTerms")
    return (
        all(labels.get(key) == value for key, value in selector.items())
        and (terms is None or any(_matches(term, labels) for term in terms))
        and all(_tolerates(placement.get("tolerations") or (), taint) for taint in _taints(node))
    )


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _matches(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all(_is_met(each, labels) for each in term.get("matchExpressions") or ())


def _is_met(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:  # Gt and Lt, of the user's own
            return value is not None


def _taints(node: "Manifest") -> Iterator[Mapping[str, str]]:
    """Yield what keeps pods off a node for good; what passes (not ready, cordoned) does not count."""
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] in ("NoSchedule", "NoExecute") and not taint["key"].startswith("node.kubernetes.io/"):
            yield taint


def _tolerates(tolerations: Sequence[Mapping[str, str]], taint: Mapping[str, str]) -> bool:
    return any(
        each.get("key") in (None, "", taint["key"])
        and each.get("effect") in (None, "", taint["effect"])
        and (each.get("operator") == "Exists" or each.get("value", "") == taint.get("value", ""))
        for each in tolerations
    )


def _amount(node: "Manifest", name: str, device: str) -> float:
    """Return what pods can have of a node, in cores, bytes or devices."""
    found = (node.get("status") or {}).get("allocatable") or {}
    return read_amount(found.get(device if name == "gpu" else name), name) or 0.0


def read_amount(text: object, name: str) -> float | None:
    """Return what a cluster says of cores, bytes or devices; None for nothing, or an amount as nobody writes it."""
    try:
        return read_cores(str(text)) if name != "memory" else float(read_memory(str(text)))
    except WrongError:
        return None


def _together(wanted: Mapping[str, float]) -> str:
    return " and ".join(amount_text(name, amount) for name, amount in sorted(wanted.items()))


def _problem(user: Stage | Endpoint, pool: Pool, why: str) -> Diagnostic:
    comes = pool.nodes is not None and pool.nodes.max > 0
    return Diagnostic(
        code="no-node-fits",
        summary="No node of the cluster could run this",
        detail=f"{user.address} in {pool.address}: {why}.",
        hint="The pool says `nodes`, so it is taken that one comes when it is needed."
        if comes
        else "Ask for less, add such a node, or say `nodes: {min: 0, max: …}` if the cluster adds nodes by itself.",
        severity=Severity.WARNING if comes else Severity.ERROR,
        address=user.address,
    )
