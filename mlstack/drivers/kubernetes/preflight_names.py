"""Whether a cluster has what settings name, and nobody else has what is to be made: the namespace, objects in it."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.drivers.existing import name_of
from mlstack.drivers.kubernetes.names import ENVIRONMENT, MANAGED_BY, PROJECT, is_ours, owner_of
from mlstack.drivers.kubernetes.needs import FEW, AskedCluster, Need
from mlstack.drivers.kubernetes.place import Place, recorded_place
from mlstack.drivers.kubernetes.pool_objects import namespace_key
from mlstack.drivers.stacks import Object, Unit
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.runner.side_by_side import side_by_side
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool

OPTIONAL_TYPES = {
    "HTTPRoute": "the Gateway API",
    "LocalQueue": "Kueue",
}
"""Types that a cluster has if somebody installed them, and what brings them."""


def check_namespace(cluster: AskedCluster, needs: Sequence[Need], graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield what is wrong with the namespace that pools are to have."""
    need = next((need for need in needs if isinstance(need.resource, Pool)), None)
    if need is None:
        return
    found = cluster.namespace
    if found is None:
        if not need.settings.create_namespace and cluster.lacks_namespace:
            yield _no_namespace(cluster.place, need.row.address)
    elif found["metadata"].get("deletionTimestamp"):
        yield _going(cluster.place, need.row.address)
    elif need.settings.create_namespace and not (
        is_ours(found, graph.spec.project, graph.spec.environment)
        or any(_takes_namespace(each.unit, cluster.place) for each in needs)
    ):
        yield _not_ours(cluster.place, need.row.address, owner_of(found))


def check_namespace_goes(cluster: AskedCluster, rows: Iterable[Change], graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield what others have in a namespace that a row removes."""
    key, namespace = f"#{namespace_key(cluster.place.namespace)}", cluster.place.namespace
    going = [
        row for row in rows if any(part.action is Action.DELETE and part.address.endswith(key) for part in row.parts)
    ]
    if not going:
        return
    owner = graph.spec.project, graph.spec.environment

    def others(kind: str, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        there = cluster.client.listing(kind, namespace, labels=dict(labels)) if cluster.may("list", kind) else []
        return [each for each in there if not is_ours(dict(each), *owner)]

    # Every pool has a policy, whatever runs in it.
    if owners := sorted({owner_of(each) for each in others("NetworkPolicy", {MANAGED_BY: "mlstack"})} - {""}):
        yield _goes_with_others(cluster.place, going[0].address, owners)
    elif pods := sorted(str(each["metadata"]["name"]) for each in others("Pod", {})):
        yield _goes_with_pods(cluster.place, going[0].address, pods)


def _takes_namespace(unit: Unit, place: Place) -> bool:
    return any(each.adopt == place.namespace and each.type.endswith(":Namespace") for each in unit.objects)


def check_named(cluster: AskedCluster, needs: Sequence[Need], *, without: Container[str]) -> Iterator[Diagnostic]:
    """Yield what the settings name and the cluster does not have; `without` are types that it does not know.

    What belongs into a namespace that this very apply makes cannot be there yet: that is a warning.
    """
    for need in {need.pool.address: need for need in needs}.values():
        settings = need.settings
        named = [
            ("image_pull_secret", "Secret", settings.image_pull_secret, True),
            ("service_account", "ServiceAccount", settings.service_account, True),
            ("priority_class", "PriorityClass", settings.priority_class, False),
            ("queue", "LocalQueue", None if settings.cluster_queue else settings.queue, True),
            ("cluster_queue", "ClusterQueue", settings.cluster_queue if "LocalQueue" not in without else None, False),
        ]
        for setting, kind, name, is_inside in named:
            if not name or kind in without or not cluster.may("get", kind, is_inside=is_inside):
                continue
            if not cluster.named(kind, [name], is_inside=is_inside):
                where = f" in the namespace {cluster.place.namespace}" if is_inside else ""
                is_early = is_inside and cluster.lacks_namespace
                yield _not_named(
                    f"`{setting}` of {need.pool.address} is `{name}`; there is no {kind} of that name{where}.",
                    need.pool.address,
                    is_early=is_early,
                    is_made=settings.create_namespace,
                )


def check_taken(cluster: AskedCluster, needs: Sequence[Need], graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield what would be made, or taken in, for the first time, and is there already under somebody else's labels.

    Where it may not be looked, this is said with the rights.
    """
    wanted: dict[tuple[str, bool], dict[str, tuple[Need, Object]]] = {}
    for need in needs:
        is_new = recorded_place(need.row.before or {}) != cluster.place
        for part in need.unit.objects if is_new else ():
            kind, about = part.inputs["kind"], part.inputs["metadata"]
            if kind not in OPTIONAL_TYPES and (part.adopt or kind != "Namespace"):
                wanted.setdefault((kind, "namespace" in about), {}).setdefault(about["name"], (need, part))

    def find(one: tuple[str, bool]) -> Mapping[str, Mapping[str, Any]]:
        return cluster.named(one[0], [*wanted[one]], is_inside=one[1])

    taken: dict[tuple[Address, str, bool], list[Object]] = {}
    for named, found in zip(wanted.values(), side_by_side(find, [*wanted]), strict=True):
        for name, there in found.items():
            need, part = named[name]
            owner, is_adopted = owner_of(there), bool(part.adopt)
            if not is_ours(dict(there), graph.spec.project, graph.spec.environment) and (owner or not is_adopted):
                taken.setdefault((need.row.address, owner, is_adopted), []).append(part)
    for (address, owner, is_adopted), parts in taken.items():
        yield _not_to_be_taken(address, owner, parts) if is_adopted else _taken(address, owner, parts)


# ---------------------------------------------------------------------------------------------------- words


def _taken(address: Address, owner: str, parts: Sequence[Object]) -> Diagnostic:
    names = [name_of(part) for part in parts]
    take_in = f"{{to: {address}, id: {names[0]}}}" if len(names) == 1 else str(address)
    hint = "Give the pool or endpoint another name, or its pool another `namespace`"
    return Diagnostic(
        code="kubernetes-name-taken",
        summary="Something of that name is there, and belongs to somebody else",
        detail=f"{address} is to have these, which {_whose(owner)}:\n" + "\n".join(map(_line, parts)),
        hint=f"{hint}." if owner else f"{hint}, remove what nobody needs, or take it in: `import: [{take_in}]`.",
        command=_describe(parts[0]),
        address=address,
    )


def _not_to_be_taken(address: Address, owner: str, parts: Sequence[Object]) -> Diagnostic:
    kind, name, where = _named(parts[0])
    return Diagnostic(
        code="import-of-another-environment",
        summary="What is to be taken in belongs to another environment",
        detail=f"{address} is to take these in, which {_whose(owner)}; each of the two would change and destroy what "
        "is the other's:\n" + "\n".join(map(_line, parts)),
        hint="Destroy it there first. If that environment is gone, and its state with it, take its label off each:",
        command=f"kubectl label {kind} {name}{where} {PROJECT}-",
        address=address,
    )


def _whose(owner: str) -> str:
    return f"belong to {owner}" if owner else "were not made by this environment"


def _line(part: Object) -> str:
    about = part.inputs["metadata"]
    where = f" in the namespace {about['namespace']}" if "namespace" in about else ""
    return f"  {part.inputs['kind']} {about['name']}{where}"


def _named(part: Object) -> tuple[str, str, str]:
    about = part.inputs["metadata"]
    return part.inputs["kind"].lower(), about["name"], f" -n {about['namespace']}" if "namespace" in about else ""


def _describe(part: Object) -> str:
    kind, name, where = _named(part)
    return f"kubectl describe {kind} {name}{where}"


def _no_namespace(place: Place, address: Address) -> Diagnostic:
    return Diagnostic(
        code="namespace-missing",
        summary="The namespace of the pool does not exist",
        detail=f"{address} has `create_namespace: false`, and there is no namespace {place.namespace}.",
        hint="Have it made, or leave `create_namespace` out.",
        command=f"kubectl create namespace {place.namespace}",
        address=address,
    )


def _going(place: Place, address: Address) -> Diagnostic:
    return Diagnostic(
        code="namespace-going",
        summary="The namespace of the pool is being deleted",
        detail=f"The namespace {place.namespace} of {address} is on its way out, and takes nothing new.",
        hint="Wait until it is gone, and apply again; what hangs in it shows:",
        command=f"kubectl get namespace {place.namespace} -o yaml",
        address=address,
    )


def _not_ours(place: Place, address: Address, owner: str) -> Diagnostic:
    use = "Name another `namespace`, or say `create_namespace: false` to use it as it is"
    take_in = f"To make it this environment's own: `import: [{{to: {address}, id: namespace/{place.namespace}}}]`."
    return Diagnostic(
        code="namespace-not-ours",
        summary="The namespace of the pool belongs to somebody else",
        detail=f"The namespace {place.namespace} of {address} exists and was "
        + (f"made by {owner}." if owner else "not made by this environment.")
        + " What is in it would come under our policies and bounds.",
        hint=f"{use}." if owner else f"{use}. {take_in}",
        address=address,
    )


def _goes_with_others(place: Place, address: Address, owners: Sequence[str]) -> Diagnostic:
    return Diagnostic(
        code="namespace-in-use",
        summary="The namespace would go with what others have in it",
        detail=f"The namespace {place.namespace} goes with {address}, and with all that is in it. "
        f"In it is also: {'; '.join(owners)}.",
        hint="Destroy that first, or move it to another `namespace`.",
        command=f"kubectl get deployments,jobs -n {place.namespace} -L {PROJECT},{ENVIRONMENT}",
        address=address,
    )


def _goes_with_pods(place: Place, address: Address, pods: Sequence[str]) -> Diagnostic:
    shown = ", ".join(pods[:FEW]) + (f" and {len(pods) - FEW} more" if len(pods) > FEW else "")
    return Diagnostic(
        code="namespace-has-pods",
        summary="The namespace goes with pods that are not mlstack's",
        detail=f"The namespace {place.namespace} goes with {address}, and with all that is in it, also: {shown}.",
        hint="Move them, if somebody needs them.",
        severity=Severity.WARNING,
        address=address,
    )


def _not_named(detail: str, pool: Address, *, is_early: bool, is_made: bool) -> Diagnostic:
    """Say so; `is_early`: the namespace that it belongs into does not exist yet; `is_made`: apply makes that one."""
    if is_early and not is_made:
        hint = "Have it made together with the namespace."
    elif is_early:
        hint = "Apply the pool alone first, which makes the namespace; then make it, and apply the rest:"
    else:
        hint = "Make it, or correct the setting."
    return Diagnostic(
        code="kubernetes-named-missing",
        summary="The cluster does not have what a setting names",
        detail=detail,
        hint=hint,
        command=f"mlstack apply --target {pool}" if is_early and is_made else "",
        severity=Severity.WARNING if is_early else Severity.ERROR,
        address=pool,
    )
