"""What is asked before the first of several stages runs on a cluster: a remote, an answer, the rights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import find_connection
from mlstack.drivers.kubernetes.needs import AskedCluster
from mlstack.drivers.kubernetes.place import place_of
from mlstack.drivers.kubernetes.preflight_nodes import check_nodes
from mlstack.drivers.kubernetes.preflight_queues import check_queues
from mlstack.drivers.kubernetes.remote_secret import missing_values
from mlstack.drivers.kubernetes.settings import namespace_of, read_settings
from mlstack.drivers.registry import pool_of
from mlstack.drivers.remote_run.remote import explained, open_remote, project_remote
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.runner.layout import OWN
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Stage

_NEEDED = (("create", "Job"), ("delete", "Job"), ("list", "Pod"), ("patch", "Secret"))


def check_stages(rows: Sequence[Change], graph: ResourceGraph, *, root: Path) -> Iterator[Diagnostic]:
    """Yield what keeps these stages from running where their pools are. Nothing is changed."""
    stages = [stage for row in rows if isinstance(stage := graph.resources.get(row.address), Stage)]
    pools: dict[Address, Pool] = {stage.pool: pool_of(stage, graph) for stage in stages}
    for check in (_check_remote(graph, root), *(_check_pool(pool, graph, root) for pool in pools.values())):
        try:
            yield from check
        except MlstackError as error:
            yield from error.diagnostics


def _check_remote(graph: ResourceGraph, root: Path) -> Iterator[Diagnostic]:
    remote = project_remote(graph.spec.remote, root)
    with explained():
        open_remote(remote, patience=5.0).size(f"{OWN}asked")
    yield from ()


def _check_pool(pool: Pool, graph: ResourceGraph, root: Path) -> Iterator[Diagnostic]:
    settings = read_settings(pool)
    yield from missing_values(pool, settings, root=root)
    connection = find_connection(settings, root=root, address=pool.address)
    kube = Kube(connection, address=pool.address)
    namespace = namespace_of(settings, project=graph.spec.project, environment=graph.spec.environment)
    lacking = [f"{verb} {kind}" for verb, kind in _NEEDED if not kube.may(verb, kind, namespace)]
    if lacking:
        yield Diagnostic(
            code="kubernetes-rights-for-runs",
            summary="You may not run stages in this namespace",
            detail=f"{connection.server}, namespace {namespace}: not allowed: {', '.join(lacking)}.",
            hint="Ask for the rights, or use a context that has them. What you may do:",
            command=f"kubectl auth can-i --list --namespace {namespace}",
            address=pool.address,
        )
    yield from check_nodes(kube, [pool], graph)
    cluster = AskedCluster(kube, place_of(settings, graph.spec))
    if settings.queue and kube.has_type("LocalQueue"):
        yield from check_queues(settings, pool, graph.spec, cluster.one)
