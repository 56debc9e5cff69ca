"""What is asked of a cluster before anything is changed: that it answers, knows what is needed, and lets us do it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.kubernetes.names import is_ours
from mlstack.drivers.kubernetes.place import Place, place_of, recorded_client
from mlstack.drivers.kubernetes.preflight_nodes import check_nodes
from mlstack.drivers.kubernetes.settings import KubernetesSettings, read_settings
from mlstack.drivers.registry import pool_of
from mlstack.drivers.stacks import StackDriver, Unit
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Pool

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube

OLDEST = (1, 30)
"""The first version in which a container's end can be put off without a program in its image (`preStop.sleep`)."""

_WRITING = ("get", "create", "patch", "delete")
_READING = (("list", "Pod"), ("list", "ReplicaSet"))
_INSTALLED_BY = {
    "HTTPRoute": "the Gateway API",
    "LocalQueue": "Kueue",
}
_SIDE_BY_SIDE = 8


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one row needs: its resource and pool, and the unit that would be made."""

    row: Change
    resource: Pool | Endpoint
    pool: Pool
    settings: KubernetesSettings
    place: Place
    unit: Unit


def preflight_units(
    driver: StackDriver, rows: Sequence[Change], graph: ResourceGraph, *, root: Path
) -> Sequence[Diagnostic]:
    """Ask the clusters of these rows; return everything because of which making their units would fail."""
    by_place: dict[Place, list[Need]] = {}
    found: list[Diagnostic] = []
    for row in rows:
        resource = graph.resources.get(row.address)
        if not isinstance(resource, Pool | Endpoint):
            continue
        pool = resource if isinstance(resource, Pool) else pool_of(resource, graph)
        try:
            settings = read_settings(pool)
            unit = driver.unit(resource, graph, driver.desired(resource, graph, {}), images={})
        except MlstackError as error:
            found += error.diagnostics
            continue
        place = place_of(settings, graph.spec)
        need = Need(row=row, resource=resource, pool=pool, settings=settings, place=place, unit=unit)
        by_place.setdefault(place, []).append(need)
    for place, needs in by_place.items():
        try:
            client = recorded_client(place.attributes(), root=root, address=needs[0].row.address)
            found += _check_place(client, place, needs, graph)
        except MlstackError as error:
            found += error.diagnostics
    return found


def cluster_identity(client: "Kube") -> str:
    """Return what tells a cluster from every other, whatever it is called; "" where that may not be read."""
    try:
        found = client.get("Namespace", "kube-system")
    except MlstackError:
        return ""
    return str(found["metadata"].get("uid", "")) if found is not None else ""


def _check_place(client: "Kube", place: Place, needs: Sequence[Need], graph: ResourceGraph) -> Iterator[Diagnostic]:
    version = client.version()
    if version < OLDEST:
        yield _too_old(client, version, needs[0].pool.address)
    if (problem := _other_cluster(client, needs)) is not None:
        yield problem
        return
    missing = list(_missing_types(client, needs))
    yield from missing
    yield from _missing_rights(client, place, needs, without={kind for kind, _ in _kinds(needs) if _is(kind, missing)})
    yield from _check_namespace(client, place, needs, graph)
    yield from _missing_names(client, place, needs)
    yield from _not_ours_objects(client, needs, graph)
    yield from check_nodes(client, [need.resource for need in needs], graph)


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
    for kind, what in _INSTALLED_BY.items():
        wanting = [need for need in needs if any(each.type.endswith(f":{kind}") for each in need.unit.objects)]
        if wanting and not client.has_type(kind):
            yield Diagnostic(
                code="kubernetes-type-missing",
                summary="The cluster does not know a type of objects that is needed",
                detail=f"{kind} is not installed on {client.connection.server}; {wanting[0].row.address} needs it.",
                hint=f"Install {what} in the cluster, or leave the setting out that asks for it.",
                address=wanting[0].row.address,
            )
    for need in needs:
        if _scales_on_requests(need.unit) and not client.has_api("custom.metrics.k8s.io"):
            yield Diagnostic(
                code="kubernetes-type-missing",
                summary="The cluster does not know a type of objects that is needed",
                detail=f"custom.metrics.k8s.io is not served by {client.connection.server}; {need.row.address} is to "
                "grow with its requests in flight.",
                hint="Install an adapter of metrics (such as Prometheus'), or write `autoscale: {on: cpu}`.",
                address=need.row.address,
            )


def _scales_on_requests(unit: Unit) -> bool:
    scalers = [each.inputs["spec"]["metrics"] for each in unit.objects if each.type.endswith("PodAutoscaler")]
    return any(metric["type"] == "Pods" for metrics in scalers for metric in metrics)


def _missing_rights(client: "Kube", place: Place, needs: Sequence[Need], *, without: set[str]) -> Iterator[Diagnostic]:
    """Yield all rights that are missing as one problem, as one asks an administrator for them."""
    wanted = [(verb, kind, is_inside) for kind, is_inside in _kinds(needs) if kind not in without for verb in _WRITING]
    if any(isinstance(need.resource, Endpoint) for need in needs):
        wanted += [(verb, kind, True) for verb, kind in _READING]
    if any(_uses_secrets(need) for need in needs):
        wanted += [(verb, "Secret", True) for verb in ("list", "create", "patch", "delete")]

    def may(asked: tuple[str, str, bool]) -> bool:
        verb, kind, is_inside = asked
        return client.may(verb, kind, place.namespace if is_inside else "")

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
        allowed = list(threads.map(may, wanted))
    refused: dict[str, list[str]] = {}
    for (verb, kind, is_inside), is_allowed in zip(wanted, allowed, strict=True):
        if not is_allowed:
            refused.setdefault(kind if is_inside else f"{kind} (of the whole cluster)", []).append(verb)
    if refused:
        rights = [f"  {kind}: {', '.join(verbs)}" for kind, verbs in sorted(refused.items())]
        is_wide = any("whole cluster" in kind for kind in refused)
        own = " Where the cluster's own are used, `create_namespace: false` and `priority_class: NAME` need less."
        yield Diagnostic(
            code="kubernetes-rights-missing",
            summary="Rights on the cluster are missing",
            detail="\n".join([f"In the namespace {place.namespace}, {_who(client)} may not:", *rights]),
            hint=f"Ask for them, or use a context that has them.{own if is_wide else ''}",
            address=needs[0].row.address,
        )


def _uses_secrets(need: Need) -> bool:
    return bool(need.settings.remote_env) or (isinstance(need.resource, Endpoint) and bool(need.resource.secrets))


def _check_namespace(client: "Kube", place: Place, needs: Sequence[Need], graph: ResourceGraph) -> Iterator[Diagnostic]:
    found = client.get("Namespace", place.namespace) if client.may("get", "Namespace") else None
    need = next((need for need in needs if isinstance(need.resource, Pool)), None)
    if need is None:
        return
    if found is None:
        if not need.settings.create_namespace and client.may("get", "Namespace"):
            yield _no_namespace(place, need.row.address)
    elif found["metadata"].get("deletionTimestamp"):
        yield _going(place, need.row.address)
    elif need.settings.create_namespace and not is_ours(found, graph.spec.project, graph.spec.environment):
        yield _not_ours(place, need.row.address)


def _missing_names(client: "Kube", place: Place, needs: Sequence[Need]) -> Iterator[Diagnostic]:
    """Yield what the settings name and the cluster does not have.

    What belongs into a namespace that this very apply makes cannot be there yet: that is a warning.
    """
    is_there = not client.may("get", "Namespace") or client.get("Namespace", place.namespace) is not None
    for need in {need.pool.address: need for need in needs}.values():
        settings = need.settings
        named = [
            ("image_pull_secret", "Secret", settings.image_pull_secret, place.namespace),
            ("service_account", "ServiceAccount", settings.service_account, place.namespace),
            ("priority_class", "PriorityClass", settings.priority_class, ""),
            ("queue", "LocalQueue", None if settings.cluster_queue else settings.queue, place.namespace),
        ]
        for setting, kind, name, namespace in named:
            if name and client.may("get", kind, namespace) and client.get(kind, name, namespace) is None:
                where = f" in the namespace {namespace}" if namespace else ""
                yield Diagnostic(
                    code="kubernetes-named-missing",
                    summary="The cluster does not have what a setting names",
                    detail=f"`{setting}` of {need.pool.address} is `{name}`; there is no {kind} of that name{where}.",
                    hint="Make it, or correct the setting."
                    if is_there or not namespace
                    else "Apply the pool alone first, which makes the namespace; then make it, and apply the rest:",
                    command="" if is_there or not namespace else f"mlstack apply --target {need.pool.address}",
                    severity=Severity.ERROR if is_there or not namespace else Severity.WARNING,
                    address=need.pool.address,
                )


def _not_ours_objects(client: "Kube", needs: Sequence[Need], graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield what would be made for the first time, and is there already under somebody else's labels."""
    wanted = [
        (need, each.inputs)
        for need in needs
        if need.row.before is None
        for each in need.unit.objects
        if each.inputs["kind"] not in {"Namespace", *_INSTALLED_BY}
    ]

    def find(one: tuple[Need, dict[str, Any]]) -> dict[str, Any] | None:
        kind, about = one[1]["kind"], one[1]["metadata"]
        try:
            return client.get(kind, about["name"], about.get("namespace", ""))
        except MlstackError:  # no right to look, which is said where rights are asked for
            return None

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
        for (need, inputs), found in zip(wanted, threads.map(find, wanted), strict=True):
            if found is not None and not is_ours(found, graph.spec.project, graph.spec.environment):
                yield _taken(need, inputs)


def _other_cluster(client: "Kube", needs: Sequence[Need]) -> Diagnostic | None:
    """Say that what is recorded is in another cluster: somebody's current context is not what it was."""
    recorded: Mapping[str, Any] = next((need.row.before for need in needs if need.row.before), {})
    known, identity = str(recorded.get("cluster") or ""), cluster_identity(client)
    if not known or not identity or known == identity:
        return None
    return Diagnostic(
        code="kubernetes-other-cluster",
        summary="This is another cluster than the one in which it was made",
        detail=f"{client.connection.server} (context {client.connection.context or 'of the pod'}) is not the cluster "
        f"that has {needs[0].row.address}, which was {recorded.get('api_server', 'another one')}.",
        hint="Name the right `context` in the target's settings. To move to another cluster, destroy it there first.",
        address=needs[0].row.address,
    )


# ---------------------------------------------------------------------------------------------------- words


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


def _taken(need: Need, inputs: Mapping[str, Any]) -> Diagnostic:
    about = inputs["metadata"]
    where = f" in the namespace {about['namespace']}" if "namespace" in about else ""
    return Diagnostic(
        code="kubernetes-name-taken",
        summary="Something of that name is there, and belongs to somebody else",
        detail=f"The {inputs['kind']} {about['name']}{where}, which {need.row.address} is to have, was not made by "
        "this environment.",
        hint="Give the project, the environment or the pool another name, or remove it if nobody needs it.",
        command=f"kubectl describe {inputs['kind'].lower()} {about['name']}"
        + (f" -n {about['namespace']}" if "namespace" in about else ""),
        address=need.row.address,
    )


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


def _not_ours(place: Place, address: Address) -> Diagnostic:
    return Diagnostic(
        code="namespace-not-ours",
        summary="The namespace of the pool belongs to somebody else",
        detail=f"The namespace {place.namespace} of {address} exists and was not made by this environment. What is in "
        "it would come under our policies and bounds.",
        hint="Name another `namespace`, or say `create_namespace: false` to use it as it is.",
        address=address,
    )
