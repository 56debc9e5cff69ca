"""What is asked of a cluster before anything is changed: that it answers, knows what is needed, and lets us do it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.existing import with_existing
from mlstack.drivers.kubernetes.needs import AskedCluster, Need
from mlstack.drivers.kubernetes.place import TARGET, Place, place_of, recorded_client, recorded_place
from mlstack.drivers.kubernetes.preflight_names import (
    OPTIONAL_TYPES,
    check_named,
    check_namespace,
    check_namespace_goes,
    check_taken,
)
from mlstack.drivers.kubernetes.preflight_nodes import check_nodes
from mlstack.drivers.kubernetes.preflight_queues import check_queues
from mlstack.drivers.kubernetes.preflight_quotas import check_quotas
from mlstack.drivers.kubernetes.preflight_routes import check_metrics, check_routes_served
from mlstack.drivers.kubernetes.remote_secret import missing_values
from mlstack.drivers.kubernetes.settings import read_settings
from mlstack.drivers.kubernetes.ways import cluster_identity
from mlstack.drivers.registry import pool_of, stack_driver
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.runner.side_by_side import side_by_side
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Endpoint, Pool

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube

OLDEST = (1, 30)
"""The first version in which a container's end can be put off without a program in its image (`preStop.sleep`)."""

_WRITING = ("get", "create", "patch", "delete")
_READING = (("list", "Pod"), ("list", "ReplicaSet"))


def preflight_units(
    rows: Sequence[Change], graph: ResourceGraph, *, root: Path, is_planning: bool
) -> Sequence[Diagnostic]:
    """Ask the clusters of these rows; return everything because of which carrying them out would fail.

    When planning, rights that only apply needs are a warning: who plans may be somebody who can only read.
    """
    needs: dict[Place, list[Need]] = {}
    doomed: dict[Place, list[Change]] = {}
    found: list[Diagnostic] = []
    for row in rows:
        try:
            need = _need_of(row, graph, root) if row.action is not Action.DELETE else None
            if need is None:
                doomed.setdefault(recorded_place(row.before or {}), []).append(row)
            else:
                needs.setdefault(place_of(need.settings, graph.spec), []).append(need)
                found += () if is_planning else missing_values(need.pool, need.settings, root=root)
        except MlstackError as error:
            found += error.diagnostics
    for place in {**needs, **doomed}:
        there = needs.get(place, [])
        going = doomed.get(place, [])
        address = [*going, *(need.row for need in there)][0].address
        try:
            cluster = AskedCluster(recorded_client(place.attributes(), root=root, address=address), place)
            problems = [*_check_place(cluster, going, there, graph, is_planning=is_planning)]
        except MlstackError as error:
            problems = [_not_allowed_to_look(each) if is_planning else each for each in error.diagnostics]
        found += problems
    return found


def _need_of(row: Change, graph: ResourceGraph, root: Path) -> Need | None:
    """Return what a row needs; None for one that is somewhere else now. Raises `MlstackError` for wrong settings."""
    resource = graph.resources.get(row.address)
    if not isinstance(resource, Pool | Endpoint):
        return None
    pool = resource if isinstance(resource, Pool) else pool_of(resource, graph)
    driver = stack_driver(resource, graph, root=root)
    if driver is None or pool.target != TARGET:
        return None
    unit = driver.unit(resource, graph, driver.desired(resource, graph, {}), images={})
    unit = with_existing(unit, graph.spec, None)
    return Need(row=row, resource=resource, pool=pool, settings=read_settings(pool), unit=unit)


def _check_place(
    cluster: AskedCluster,
    going: Sequence[Change],
    needs: Sequence[Need],
    graph: ResourceGraph,
    *,
    is_planning: bool,
) -> Iterator[Diagnostic]:
    client = cluster.client
    version = client.version()
    if needs and version < OLDEST:
        yield _too_old(client, version, needs[0].pool.address)
    if (problem := _other_cluster(cluster, [*going, *(need.row for need in needs)])) is not None:
        yield problem
        return
    yield from check_namespace_goes(cluster, [*going, *(need.row for need in needs)], graph)
    if not needs:
        return
    yield from _gaps(cluster.place, needs)
    missing = list(_missing_types(client, needs))
    yield from missing
    yield from check_metrics(cluster, needs)
    without = {kind for kind in OPTIONAL_TYPES if _is(kind, missing)}
    yield from _missing_rights(cluster, needs, without=without, is_planning=is_planning)
    yield from (strangers := [*check_namespace(cluster, needs, graph)])
    yield from check_named(cluster, needs, without=without)
    if not strangers:
        yield from check_taken(cluster, needs, graph)
    if "HTTPRoute" not in without:
        yield from check_routes_served(cluster, needs)
    yield from check_nodes(client, [need.resource for need in needs], graph)
    yield from check_quotas(cluster, needs, graph)
    if "LocalQueue" not in without:
        for pool, settings in {need.pool.address: (need.pool, need.settings) for need in needs}.values():
            yield from check_queues(settings, pool, graph.spec, cluster.one)


def _kinds(needs: Iterable[Need]) -> list[tuple[str, bool]]:
    """Return the kinds of objects that are made, and whether each is in a namespace."""
    found = {
        each.type.rpartition(":")[2]: "namespace" in each.inputs["metadata"]
        for need in needs
        for each in need.unit.objects
    }
    return sorted(found.items())


def _is(kind: str, problems: Iterable[Diagnostic]) -> bool:
    return any(problem.detail.startswith(f"{kind} ") for problem in problems)


def _missing_types(client: "Kube", needs: Sequence[Need]) -> Iterator[Diagnostic]:
    for kind, what in OPTIONAL_TYPES.items():
        wanting = [need for need in needs if _wants(need, kind)]
        if wanting and not client.has_type(kind):
            yield Diagnostic(
                code="kubernetes-type-missing",
                summary="The cluster does not know a type of objects that is needed",
                detail=f"{kind} is not installed on {client.connection.server}; {wanting[0].row.address} needs it.",
                hint=f"Install {what} in the cluster, or leave the setting out that asks for it.",
                address=wanting[0].row.address,
            )


def _wants(need: Need, kind: str) -> bool:
    """Whether a row needs a type: it makes such an object, or names the queue that somebody else has made."""
    makes = any(each.type.endswith(f":{kind}") for each in need.unit.objects)
    return makes or (kind == "LocalQueue" and bool(need.settings.queue))


def _missing_rights(
    cluster: AskedCluster, needs: Sequence[Need], *, without: set[str], is_planning: bool
) -> Iterator[Diagnostic]:
    """Yield all rights that are missing as one problem, as one asks an administrator for them."""
    wanted = [(verb, kind, is_inside) for kind, is_inside in _kinds(needs) if kind not in without for verb in _WRITING]
    if any(isinstance(need.resource, Endpoint) for need in needs):
        wanted += [(verb, kind, True) for verb, kind in _READING]
    if any(_uses_secrets(need) for need in needs):
        wanted += [(verb, "Secret", True) for verb in ("list", "create", "patch", "delete")]
    wanted = list(dict.fromkeys(wanted))

    def may(asked: tuple[str, str, bool]) -> bool:
        verb, kind, is_inside = asked
        return cluster.may(verb, kind, is_inside=is_inside)

    refused: dict[str, list[str]] = {}
    for (verb, kind, is_inside), is_allowed in zip(wanted, side_by_side(may, wanted), strict=True):
        if not is_allowed:
            refused.setdefault(kind if is_inside else f"{kind} (of the whole cluster)", []).append(verb)
    if refused:
        yield _refused_rights(cluster, refused, needs[0].row.address, is_planning=is_planning)


def _uses_secrets(need: Need) -> bool:
    return bool(need.settings.remote_env) or (isinstance(need.resource, Endpoint) and bool(need.resource.secrets))


def _other_cluster(cluster: AskedCluster, rows: Sequence[Change]) -> Diagnostic | None:
    """Say that what is recorded is in another cluster, or may be; an endpoint may go to a pool on another one.

    A context may lead elsewhere than it did. Records have the ways from here (`ways.py`) where these are known to lead
    to the same cluster: one that has another is elsewhere, or whoever asks may not read what would tell.
    """
    identity = cluster_identity(cluster.client)
    for row in rows:
        before = row.before or {}
        known, has_moved = before.get("cluster"), recorded_place(before).way != cluster.place.way
        if not before or (has_moved and row.kind is Kind.ENDPOINT):
            continue
        if identity and known and identity != known:
            return _not_the_cluster(cluster.client, row)
        if has_moved and not (identity and known):
            return _perhaps_not_the_cluster(cluster, row)
    return None


# ---------------------------------------------------------------------------------------------------- words


def _way(place: Place) -> str:
    named = {"context": place.context, "kubeconfig": place.kubeconfig}
    said = " and ".join(f"`{name}: {value}`" for name, value in named.items() if value)
    return "`in_cluster: true`" if place.in_cluster else said or "the current context"


def _gaps(place: Place, needs: Sequence[Need]) -> Iterator[Diagnostic]:
    """Yield endpoints that end on one cluster before they are ready on another."""
    for need in needs:
        before = recorded_place(need.row.before or {})
        if need.row.before and before.way != place.way and need.row.previous_address is None:
            yield Diagnostic(
                code="endpoint-moves-with-a-gap",
                summary="Nobody answers while the endpoint moves to another cluster",
                detail=f"{need.row.address} ends on the one cluster ({_way(before)}) as soon as it is made on the "
                f"other ({_way(place)}), which is before it is ready there.",
                hint="Give it another name at the same time, and announce it (`moved`): then it answers under the one "
                "before until the new one is ready.",
                severity=Severity.WARNING,
                address=need.row.address,
            )


def _not_the_cluster(client: "Kube", row: Change) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-other-cluster",
        summary="This is another cluster than the one in which it was made",
        detail=f"{client.connection.server} (context {client.connection.context or 'of the pod'}) is not the cluster "
        f"that has {row.address}, which was {(row.before or {}).get('api_server', 'another one')}.",
        hint="Name the right `context` in the target's settings. To move to another cluster, give the pool there "
        "another name, or destroy this one first.",
        address=row.address,
    )


def _perhaps_not_the_cluster(cluster: AskedCluster, row: Change) -> Diagnostic:
    before = row.before or {}
    return Diagnostic(
        code="kubernetes-cluster-unsure",
        summary="Whether this is the cluster in which it was made cannot be told",
        detail=f"{row.address} was made by way of {_way(recorded_place(before))} on {before.get('api_server')}; the "
        f"file says {_way(cluster.place)}, which is {cluster.client.connection.server}. If that is another cluster, "
        "all of it would be made anew there.",
        hint=f"Have {_who(cluster.client)} allowed to get the namespace kube-system, whose ID tells clusters apart, or "
        "use the name and the address that it had.",
        address=row.address,
    )


def _who(client: "Kube") -> str:
    return f"the user of context {client.connection.context}" if client.connection.context else "mlstack's user"


def _too_old(client: "Kube", version: tuple[int, int], address: Address) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-too-old",
        summary="The cluster's version of Kubernetes is too old",
        detail=f"{client.connection.server} has {version[0]}.{version[1]}; needed is {OLDEST[0]}.{OLDEST[1]} or newer.",
        hint="Upgrade the cluster, or use another one.",
        address=address,
    )


def _refused_rights(
    cluster: AskedCluster, refused: Mapping[str, Sequence[str]], address: Address, *, is_planning: bool
) -> Diagnostic:
    rights = [f"  {kind}: {', '.join(verbs)}" for kind, verbs in sorted(refused.items())]
    is_wide = any("whole cluster" in kind for kind in refused)
    own = " Where the cluster's own are used, `create_namespace: false` and `priority_class: NAME` need less."
    ask = "Ask for them, or use a context that has them."
    later = ""
    if is_planning:
        ask = "The plan stands: who applies it needs them."
        later = (
            " Plans after that read what was made: get." if any("get" in verbs for verbs in refused.values()) else ""
        )
    return Diagnostic(
        code="kubernetes-rights-missing",
        summary="Rights on the cluster are missing",
        detail="\n".join([f"In the namespace {cluster.place.namespace}, {_who(cluster.client)} may not:", *rights]),
        hint=ask + later + (own if is_wide else ""),
        severity=Severity.WARNING if is_planning else Severity.ERROR,
        address=address,
    )


def _not_allowed_to_look(problem: Diagnostic) -> Diagnostic:
    """Return a problem of a plan: that somebody may not look keeps nobody from planning."""
    if problem.code != "kubernetes-forbidden":
        return problem
    hint = "The plan stands; apply looks again, as whoever applies it. What you may do:"
    return msgspec.structs.replace(problem, severity=Severity.WARNING, hint=hint)
