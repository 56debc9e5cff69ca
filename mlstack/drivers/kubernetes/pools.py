"""Pools on Kubernetes: the namespace and what bounds the pods in it."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import SECRETS_VERSION, Absent, Observation, Present, StepContext, Unreadable
from mlstack.drivers.kubernetes.amounts import cpu_text, memory_text
from mlstack.drivers.kubernetes.check_pools import check_pool
from mlstack.drivers.kubernetes.place import place_of, pools_at, provider_of, recorded_client
from mlstack.drivers.kubernetes.placement import gpu_name
from mlstack.drivers.kubernetes.pool_egress import egress_of
from mlstack.drivers.kubernetes.pool_names import priority_class_name, service_account_name
from mlstack.drivers.kubernetes.pool_objects import pool_objects
from mlstack.drivers.kubernetes.remote_secret import (
    apply_remote_secret,
    remote_attributes,
    remove_idle_secret,
    remove_remote_secrets,
)
from mlstack.drivers.kubernetes.settings import KubernetesSettings, read_settings
from mlstack.drivers.stacks import StackName, StepTrouble, Unit, UnitResult
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Resource, Resources
from mlstack.state.state import Record

STACK: StackName = "platform"


class KubernetesPools:
    """The driver of pools with `target: kubernetes`."""

    name = "kubernetes-pool"
    kept: tuple[str, ...] = (SECRETS_VERSION,)
    stack: StackName = STACK

    def __init__(self, *, root: Path | None = None) -> None:
        self._root = root if root is not None else Path.cwd()

    # ------------------------------------------------------------------------------------------------ planning

    def check(self, pool: Pool, graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Say what of a pool can be known to be wrong without asking the cluster."""
        return check_pool(pool, graph, root=self._root)

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the attributes that the pool should have. Raises `MlstackError` for wrong settings."""
        del versions
        pool, spec = _as_pool(resource), graph.spec
        settings = read_settings(pool)
        place = place_of(settings, spec)
        return {
            "namespace": place.namespace,
            "owns_namespace": settings.create_namespace,
            "service_account": service_account_name(pool, settings),
            "makes_service_account": settings.service_account is None,
            "priority_class": priority_class_name(pool, settings, spec),
            "makes_priority_class": settings.priority_class is None,
            "priority": settings.priority,
            "quota": _quota(pool, settings),
            "limit_range": _limit_range(pools_at(place, graph)) if settings.create_namespace else {},
            "egress": egress_of(settings, spec, root=self._root),
            **remote_attributes(pool, settings, spec, root=self._root),
            "queue": settings.queue or "",
            "cluster_queue": settings.cluster_queue or "",
            "makes_queue": settings.queue is not None and settings.cluster_queue is not None,
            "target": "kubernetes",
        }

    def unit(
        self, resource: Resource, graph: ResourceGraph, desired: Mapping[str, Any], *, images: Mapping[Address, str]
    ) -> Unit:
        """Describe the objects behind a pool."""
        del images
        place = place_of(read_settings(_as_pool(resource)), graph.spec)
        return Unit(
            address=resource.address,
            stack=self.stack,
            provider=provider_of(place, root=self._root),
            objects=pool_objects(resource.address, graph.spec, desired),
        )

    def read(self, resource: Resource | None, record: Record | None) -> Observation:  # noqa: ARG002
        """Ask the recorded cluster whether the namespace of a pool is there, and ours."""
        if record is None:
            return Absent(reason="never made")
        known = record.attributes
        namespace = str(known.get("namespace", ""))
        try:
            found = recorded_client(known, root=self._root, address=record.address).get("Namespace", namespace)
        except MlstackError as error:
            return Unreadable(diagnostic=error.diagnostics[0])
        if found is None:
            return Absent(reason=f"the namespace {namespace} is gone")
        if (found.get("metadata") or {}).get("deletionTimestamp"):
            return Absent(reason=f"the namespace {namespace} is being deleted")
        return Present(attributes={"namespace": namespace})

    # ------------------------------------------------------------------------------------------------ carrying out

    def apply(self, change: Change, context: StepContext) -> Record:
        """Never called: a stack makes it."""
        raise NotImplementedError(change.address)

    def delete(self, record: Record, context: StepContext) -> None:
        """Never called: a stack removes it."""
        raise NotImplementedError(record.address)

    def prepare(self, unit: Unit, context: StepContext) -> None:
        """The Secret for the remote needs the namespace: it comes when that is there."""

    def settle(self, unit: Unit, result: UnitResult, context: StepContext) -> dict[str, Any]:
        """Look whether the namespace is there and put the Secret for the remote into it; return the server that has it.

        Raises `MlstackError`.
        """
        from mlstack.drivers.kubernetes.ways import cluster_identity

        del result
        pool, spec = _as_pool(context.resource), context.graph.spec
        settings = read_settings(pool)
        place = place_of(settings, spec)
        client = recorded_client(place.attributes(), root=context.root, address=unit.address)
        found = client.get("Namespace", place.namespace)
        phase = ((found or {}).get("status") or {}).get("phase")
        if phase != "Active":
            raise MlstackError(_not_there(unit.address, place.namespace, phase))
        apply_remote_secret(client, pool, settings, spec, place.namespace, root=context.root)
        known = context.record.attributes if context.record is not None else {}
        if known.get("remote_env") or known.get("secrets"):
            remove_idle_secret(client, pool, settings, place.namespace)
        return {**place.attributes(), "api_server": client.connection.server, "cluster": cluster_identity(client)}

    def explain(self, unit: Unit, problem: Diagnostic, context: StepContext) -> StepTrouble:
        """A pool runs nothing, so that there is nothing more to say."""
        del unit, context
        return StepTrouble(diagnostic=problem)

    def taken_back(self, unit: Unit, context: StepContext) -> None:
        """Never called: pools stay as far as they came."""

    def removed(self, record: Record, context: StepContext) -> None:
        """Remove the Secret for the remote, which no stack has. The namespace may stay, for others."""
        known = record.attributes
        if not (known.get("remote_env") or known.get("secrets")):
            return
        client = recorded_client(known, root=context.root, address=record.address)
        remove_remote_secrets(client, record.address, context.graph, str(known.get("namespace", "")))


# ---------------------------------------------------------------------------------------------------- attributes


def _quota(pool: Pool, settings: KubernetesSettings) -> dict[str, str]:
    """Return what the pods of the pool may ask for together."""
    limits, found = pool.limits, {}
    if limits.cpu is not None:
        found["requests.cpu"] = cpu_text(limits.cpu)
    if limits.memory is not None:
        found["requests.memory"] = memory_text(limits.memory)
    if limits.gpu is not None:
        found[f"requests.{gpu_name(pool, settings)}"] = str(limits.gpu)
    return found


def _limit_range(pools: Sequence[Pool]) -> dict[str, dict[str, str]]:
    """Return the bounds of one container in a namespace that these pools share: the widest of theirs.

    What a container gets that says nothing is the least that one of them gives to each, if that is within the bounds.
    """
    found: dict[str, dict[str, str]] = {}
    for name, text in (("cpu", cpu_text), ("memory", memory_text)):
        limits = [_amount(pool.limits, name) for pool in pools]
        most = max(limit or 0.0 for limit in limits) if None not in limits else inf
        if most < inf:
            found.setdefault("max", {})[name] = text(most)
        each = [amount for pool in pools if (amount := _amount(pool.each, name)) is not None]
        if each:
            found.setdefault("default", {})[name] = text(min(*each, most))
            found.setdefault("defaultRequest", {})[name] = text(min(*each, most))
    return found


def _amount(resources: Resources, name: str) -> float | None:
    value: float | None = getattr(resources, name)
    return value


def _as_pool(resource: Resource | None) -> Pool:
    if not isinstance(resource, Pool):
        raise TypeError(f"the driver of pools was handed {type(resource).__name__}")
    return resource


def _not_there(address: Address, namespace: str, phase: str | None) -> Diagnostic:
    how = f"is {phase.lower()}" if phase else "is not there"
    return Diagnostic(
        code="namespace-not-active",
        summary="The namespace of the pool is not as it should be",
        detail=f"The namespace {namespace} of {address} {how}, although it was applied.",
        hint="Apply again when nobody else removes it.",
        command=f"kubectl get namespace {namespace}",
        address=address,
    )
