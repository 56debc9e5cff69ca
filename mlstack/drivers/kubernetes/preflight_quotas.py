"""Whether a quota that somebody else has set on a namespace could ever hold what is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.drivers.kubernetes.names import is_ours
from mlstack.drivers.kubernetes.needs import AskedCluster, Need
from mlstack.drivers.kubernetes.placement import gpu_name
from mlstack.drivers.kubernetes.preflight_nodes import read_amount
from mlstack.drivers.local.capacity import amount_text, resources_of
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.spec import Endpoint, Stage

_BOUNDS: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("requests.cpu", "cpu"),
    "memory": ("requests.memory", "memory"),
}
"""What a quota calls a bound on what pods ask for."""


def check_quotas(cluster: AskedCluster, needs: Sequence[Need], graph: ResourceGraph) -> Iterator[Diagnostic]:
    """Yield which of these endpoints, and of the stages of these pools, a quota of somebody else has no place for.

    What it could not hold were it empty is an error; what others have left no room for is a warning, as they may go.
    Our own quotas come from `limits` and are looked at without a cluster. Those for some pods only say nothing here.
    """
    if cluster.namespace is None or not cluster.may("list", "ResourceQuota"):
        return
    owner = graph.spec.project, graph.spec.environment
    quotas = [
        each
        for each in cluster.client.listing("ResourceQuota", cluster.place.namespace)
        if not is_ours(dict(each), *owner) and not {"scopes", "scopeSelector"} & each["spec"].keys()
    ]
    for need in needs if quotas else ():
        if isinstance(need.resource, Endpoint):
            yield from _too_much(cluster, need, need.resource, quotas)
        else:
            stages = [each for each in graph.spec.of(Stage).values() if each.pool == need.pool.address]
            for stage in stages:
                yield from _too_much(cluster, need, stage, quotas)


def _too_much(
    cluster: AskedCluster, need: Need, user: Endpoint | Stage, quotas: Sequence[Mapping[str, Any]]
) -> Iterator[Diagnostic]:
    pods = user.nodes if isinstance(user, Stage) else user.replicas.min
    is_new = isinstance(user, Endpoint) and need.row.before is None
    device = gpu_name(need.pool, need.settings)
    bounds = [
        (name, amount * pods, bound)
        for name, amount in resources_of(user, need.pool).items()
        for bound in _BOUNDS.get(name, (f"requests.{device}",))
    ]
    for (name, wanted, bound), quota in product(bounds, quotas):
        hard = read_amount((quota["spec"].get("hard") or {}).get(bound), name)
        used = read_amount(((quota.get("status") or {}).get("used") or {}).get(bound), name) or 0.0
        if hard is None or wanted <= hard - (used if is_new else 0.0):
            continue
        taken = f" with {amount_text(name, used)} taken" if wanted <= hard else ""
        yield Diagnostic(
            code="kubernetes-quota-too-small",
            summary="A quota of the namespace has no room for this",
            detail=f"{user.address} in {need.pool.address}: it needs {amount_text(name, wanted)}, and `{bound}` is "
            f"{amount_text(name, hard)}{taken}, by the ResourceQuota {quota['metadata']['name']}.",
            hint="Ask for less, use another `namespace`, or have the quota raised by whoever set it.",
            command=f"kubectl describe quota {quota['metadata']['name']} -n {cluster.place.namespace}",
            severity=Severity.ERROR if wanted > hard else Severity.WARNING,
            address=user.address,
        )
