"""What of pools on Kubernetes can be known to be wrong without asking a cluster."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.kubernetes.place import pods_remote
from mlstack.drivers.kubernetes.placement import check_accelerators
from mlstack.drivers.kubernetes.pool_egress import store_endpoint
from mlstack.drivers.kubernetes.remote_secret import remote_variables
from mlstack.drivers.kubernetes.settings import KubernetesSettings, read_settings
from mlstack.drivers.local.capacity import amount_text, resources_of
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.spec import Endpoint, Pool, Stage

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""The variables that say where a store is that speaks S3 and is not AWS's, the stronger one first."""


def check_pool(pool: Pool, graph: ResourceGraph, *, root: Path) -> Sequence[Diagnostic]:
    """Return what is wrong with a pool: its settings, what a cluster needs of the file, a quota that is too small."""
    try:
        settings = read_settings(pool)
    except MlstackError as error:
        return error.diagnostics
    return [
        *_check_settings(pool, settings),
        *check_accelerators(pool, settings),
        *needs_of_target(pool, graph, root=root),
        *_check_store_inside(pool, settings, graph, root=root),
        *_check_together(pool, graph),
    ]


def needs_of_target(pool: Pool, graph: ResourceGraph, *, root: Path) -> Iterator[Diagnostic]:
    """Yield what the file must name before anything of this pool can run on a cluster: registry and remote."""
    if not _is_used(pool, graph):
        return
    if not graph.spec.registry:
        yield Diagnostic(
            code="registry-missing",
            summary="A cluster needs a registry",
            detail=f"{pool.address} is on Kubernetes, whose nodes take images from a registry; the file names none.",
            hint="Say where images go, at the top level: `registry: HOST/PATH`.",
            address=pool.address,
        )
    if (problem := _no_remote(pool, graph, root=root)) is not None:
        yield problem


def _is_used(pool: Pool, graph: ResourceGraph) -> bool:
    return any(isinstance(each, Stage | Endpoint) and each.pool == pool.address for each in graph.resources.values())


def check_endpoint_fits(endpoint: Endpoint, pool: Pool) -> Iterator[Diagnostic]:
    """Yield what an endpoint alone asks for beyond the limits of its pool, with its fewest replicas."""
    limits = _limits(pool)
    for name, amount in resources_of(endpoint, pool).items():
        wanted = amount * endpoint.replicas.min
        if name in limits and wanted > limits[name]:
            times = f" for {endpoint.replicas.min} replicas" if endpoint.replicas.min > 1 else ""
            yield Diagnostic(
                code="endpoint-exceeds-pool",
                summary="The endpoint asks for more than its pool has",
                detail=f"It needs {amount_text(name, wanted)}{times}; the limit of {pool.address} is "
                f"{amount_text(name, limits[name])}.",
                hint=f"Lower its `resources.{name}` or `replicas.min`, or raise `limits.{name}` of the pool.",
                address=endpoint.address,
            )


def check_endpoint_grows(endpoint: Endpoint, pool: Pool, settings: KubernetesSettings) -> Iterator[Diagnostic]:
    """Yield that an autoscaler cannot work: it goes by a share of what replicas ask for, and they ask for nothing."""
    grows = endpoint.replicas.max > endpoint.replicas.min
    if grows and settings.autoscale.on == "cpu" and "cpu" not in resources_of(endpoint, pool):
        yield Diagnostic(
            code="endpoint-never-grows",
            summary="The autoscaler of an endpoint cannot work",
            detail=f"{endpoint.address} is to grow with {settings.autoscale.target} % of the CPU that a replica asks "
            "for, and its replicas ask for none.",
            hint=f"Say what one gets: `resources: {{cpu: 1}}` of it, or `each: {{cpu: 1}}` of {pool.address}.",
            severity=Severity.WARNING,  # a namespace of somebody else may give them some
            address=endpoint.address,
        )


def _check_settings(pool: Pool, settings: KubernetesSettings) -> Iterator[Diagnostic]:
    if settings.ingress is not None and settings.gateway is not None:
        yield _wrong(pool, "`ingress` and `gateway` are two ways to one endpoint; name one of them.")
    if settings.ingress is not None and not settings.ingress.host:
        yield _wrong(pool, "`ingress` names no `host`.")
    try:
        remote_variables(pool, settings)
    except MlstackError as error:
        yield from error.diagnostics
    if settings.cluster_queue and not settings.queue:
        yield _wrong(pool, "`cluster_queue` without `queue`: name the LocalQueue that is made for it.")


def _check_together(pool: Pool, graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield where all endpoints of a pool do not fit into its limits together, or one stage does not on its nodes."""
    limits = _limits(pool)
    each = {name: getattr(pool.each, name) for name in limits if getattr(pool.each, name) is not None}
    yield from _too_small(pool, limits, each, "what each run or replica gets (`each`)")
    together: dict[str, float] = {}
    endpoints = [each for each in graph.spec.of(Endpoint).values() if each.pool == pool.address]
    for endpoint in endpoints:
        for name, amount in resources_of(endpoint, pool).items():
            together[name] = together.get(name, 0.0) + amount * endpoint.replicas.min
    if len(endpoints) > 1:
        yield from _too_small(pool, limits, together, f"its {len(endpoints)} endpoints")
    for stage in graph.spec.of(Stage).values():
        if stage.pool == pool.address and stage.nodes > 1:
            wanted = {name: amount * stage.nodes for name, amount in resources_of(stage, pool).items()}
            yield from _too_small(pool, limits, wanted, f"the {stage.nodes} nodes of {stage.address}")


def _too_small(pool: Pool, limits: Mapping[str, float], wanted: Mapping[str, float], by: str) -> Iterator[Diagnostic]:
    for name in sorted(limits.keys() & wanted.keys()):
        if wanted[name] > limits[name]:
            yield Diagnostic(
                code="pool-quota-too-small",
                summary="The limits of a pool are too small for what it is to hold",
                detail=f"{by[0].upper()}{by[1:]}: {amount_text(name, wanted[name])} in all; the limit of "
                f"{pool.address} is {amount_text(name, limits[name])}.",
                hint=f"Raise `limits.{name}` of the pool, or lower what they ask for.",
                address=pool.address,
            )


def _limits(pool: Pool) -> dict[str, float]:
    found = {name: getattr(pool.limits, name) for name in ("cpu", "memory", "gpu")}
    return {name: float(value) for name, value in found.items() if value is not None}


def _no_remote(pool: Pool, graph: ResourceGraph, *, root: Path) -> Diagnostic | None:
    from mlstack.drivers.dvc.remote_place import find_remote
    from mlstack.drivers.dvc.settings import read_settings as read_dvc

    try:
        remote = find_remote(graph.spec.remote, read_dvc(root), root)
    except MlstackError as error:
        return error.diagnostics[0]
    if remote is not None and remote.scheme in ("s3", "gs", "azure"):
        return None
    what = f"the remote is {remote.url}, which pods cannot reach" if remote is not None else "the file names none"
    return Diagnostic(
        code="remote-missing",
        summary="A cluster needs a remote",
        detail=f"{pool.address} is on Kubernetes, whose pods take data and models from an object store, and {what}.",
        hint="Name one, at the top level: `remote: s3://BUCKET/PATH` (or gs://, azure://).",
        address=pool.address,
    )


def _check_store_inside(
    pool: Pool, settings: KubernetesSettings, graph: ResourceGraph, *, root: Path
) -> Iterator[Diagnostic]:
    """Yield where only this machine is told that the store is not AWS's: pods do not see its variables."""
    here = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if here is None or not _is_used(pool, graph):
        return
    remote = pods_remote(settings, graph.spec, root=root)
    url = str(remote.get("url", ""))
    if url.startswith("s3://") and not store_endpoint(settings, remote):
        yield Diagnostic(
            code="remote-endpoint-not-for-pods",
            summary="Pods are not told where the remote's store is",
            detail=f"{here} is set here, and says that {url} is not in AWS's own S3. Pods do not see it.",
            hint=f"If pods are to reach the same store: `targets: {{kubernetes: {{remote_env: {{{here}: URL}}}}}}`.",
            severity=Severity.WARNING,
            address=pool.address,
        )


def _wrong(pool: Pool, detail: str) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-setting-wrong",
        summary="A setting of the target kubernetes has a wrong value",
        detail=detail,
        hint="Correct it in `targets: {kubernetes: …}` or in the pool's `settings`.",
        address=pool.address,
    )
