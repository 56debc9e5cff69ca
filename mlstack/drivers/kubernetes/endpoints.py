"""Endpoints on Kubernetes: a Deployment each, and what makes it reachable and keeps it so."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.base import Absent, Observation, Present, Send, StepContext, Unreadable
from mlstack.drivers.kubernetes.check_pools import check_endpoint_fits, needs_of_target
from mlstack.drivers.kubernetes.endpoint_objects import endpoint_objects
from mlstack.drivers.kubernetes.endpoint_pod import VERSION, secret_name_of
from mlstack.drivers.kubernetes.endpoint_route import check_routes, route_of, url_of
from mlstack.drivers.kubernetes.endpoint_secrets import apply_secrets, remove_secrets, secret_name, secrets_version
from mlstack.drivers.kubernetes.names import object_name
from mlstack.drivers.kubernetes.place import place_of, pods_remote, provider_of, recorded_client
from mlstack.drivers.kubernetes.placement import gpu_name, pod_placement
from mlstack.drivers.kubernetes.pool_names import priority_class_name, remote_secret_name, service_account_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings, read_settings
from mlstack.drivers.local.capacity import resources_of
from mlstack.drivers.local.endpoint_attributes import attributes_of, check_models
from mlstack.drivers.registry import pool_of
from mlstack.drivers.stacks import REPLACED, Object, StackName, StepTrouble, Unit, UnitResult
from mlstack.graph.change import Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Pool, Resource
from mlstack.state.identity import now_iso
from mlstack.state.state import Record

STACK: StackName = "serving"
RUNNER_IMAGE = Address("images.runner")
DEFAULT_PORT = 80
DEFAULT_USER = "65532:65532"
"""Who the images' own user is (`templates/Dockerfile.j2`)."""


class KubernetesEndpoints:
    """The driver of endpoints whose pool has `target: kubernetes`."""

    name = "kubernetes-endpoint"
    stack: StackName = STACK
    kept: tuple[str, ...] = ("secrets_version", REPLACED)

    def __init__(self, *, root: Path | None = None) -> None:
        self._root = root if root is not None else Path.cwd()

    # ------------------------------------------------------------------------------------------------ planning

    def check(self, endpoint: Endpoint, graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Say what of an endpoint can be known to be wrong without asking the cluster."""
        pool = pool_of(endpoint, graph)
        try:
            settings = read_settings(pool)
        except MlstackError as error:
            return error.diagnostics
        found = [
            *check_models(endpoint, graph, where="on Kubernetes"),
            *check_endpoint_fits(endpoint, pool),
            *check_routes(endpoint, graph, settings),
            *needs_of_target(pool, graph, root=self._root),
        ]
        if endpoint.replicas.min == 1 and not _may_surge(endpoint, pool):
            found.append(_gap(endpoint, pool))
        return found

    def preflight(self, rows: Sequence[Change], graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Ask the clusters of these rows for what making them needs."""
        from mlstack.drivers.kubernetes.preflight import preflight_units

        return preflight_units(self, rows, graph, root=self._root)

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the attributes that the endpoint should have. Raises `MlstackError` for wrong settings.

        `secrets_version` is left out when the values of its secrets cannot be had here.
        """
        endpoint = _as_endpoint(resource)
        pool = pool_of(endpoint, graph)
        settings = read_settings(pool)
        place, route = place_of(settings, graph.spec), route_of(endpoint, settings)
        port = endpoint.port or DEFAULT_PORT
        version = secrets_version(endpoint, graph.spec, root=self._root) if endpoint.secrets else None
        grows = endpoint.replicas.max > endpoint.replicas.min
        return {
            **attributes_of(endpoint, graph, {Address(name): found for name, found in versions.items()}),
            **place.attributes(),
            **{name: _tag(address, graph) for name, address in _images(endpoint, graph).items()},
            **({"secrets_version": version} if version is not None else {}),
            "resources": resources_of(endpoint, pool),
            "surge": _may_surge(endpoint, pool),
            "autoscale": {"on": settings.autoscale.on, "target": settings.autoscale.target} if grows else {},
            "pod": _pod(endpoint, pool, settings, graph),
            "remote": pods_remote(settings, graph.spec, root=self._root),
            "route": route,
            "port": port,
            "url": url_of(object_name(endpoint.address), place.namespace, port, route),
            "target": "kubernetes",
        }

    def unit(
        self, resource: Resource, graph: ResourceGraph, desired: Mapping[str, Any], *, images: Mapping[Address, str]
    ) -> Unit:
        """Describe the objects behind an endpoint."""
        endpoint = _as_endpoint(resource)
        known = {**desired, "secret_name": secret_name(endpoint.address, desired.get("secrets_version"))}
        references = {
            "server": images.get(graph.image_of[endpoint.address]) if endpoint.address in graph.image_of else None,
            "runner": images.get(RUNNER_IMAGE),
        }
        return Unit(
            address=endpoint.address,
            stack=self.stack,
            provider=provider_of(desired, root=self._root),
            objects=endpoint_objects(endpoint, graph, known, references),
        )

    def read(self, resource: Resource | None, record: Record | None) -> Observation:  # noqa: ARG002
        """Ask the recorded cluster how the Deployment is."""
        from mlstack.drivers.kubernetes.endpoint_rollout import why_not_ready

        if record is None:
            return Absent(reason="never made")
        known = record.attributes
        try:
            client = recorded_client(known, root=self._root, address=record.address)
            found = client.get("Deployment", object_name(record.address), str(known.get("namespace", "")))
        except MlstackError as error:
            return Unreadable(diagnostic=error.diagnostics[0])
        if found is None:
            return Absent(reason=f"the Deployment {object_name(record.address)} in {known.get('namespace')} is gone")
        problem = why_not_ready(found)
        observed = {"ready": not problem, "url": known.get("url", "")}
        return Present(attributes=observed if not problem else observed | {"reason": problem})

    # ------------------------------------------------------------------------------------------------ being asked

    def sender(self, record: Record, *, timeout: float) -> Send | None:
        """Return how an endpoint is asked by way of the API server; None where its URL can be used as it is."""
        from mlstack.drivers.kubernetes.endpoint_access import sender_for

        return sender_for(record, root=self._root, timeout=timeout)

    def log(self, record: Record, *, follow: bool, lines: int | None) -> Iterator[bytes]:
        """Yield what its servers write."""
        from mlstack.drivers.kubernetes.endpoint_access import log_of

        return log_of(record, root=self._root, follow=follow, lines=lines)

    # ------------------------------------------------------------------------------------------------ carrying out

    def apply(self, change: Change, context: StepContext) -> Record:
        """Never called: a stack makes it."""
        raise NotImplementedError(change.address)

    def delete(self, record: Record, context: StepContext) -> None:
        """Never called: a stack removes it."""
        raise NotImplementedError(record.address)

    def prepare(self, unit: Unit, context: StepContext) -> None:
        """Apply the Secrets that its pods take variables from, and have its code where they fetch it.

        Raises `MlstackError`.
        """
        from mlstack.drivers.kubernetes.endpoint_content import publish_content
        from mlstack.drivers.kubernetes.remote_secret import apply_remote_secret

        endpoint = _as_endpoint(context.resource)
        pool = pool_of(endpoint, context.graph)
        settings, namespace = read_settings(pool), namespace_of_unit(unit)
        client = self._client(settings, context)
        template = deployment_of(unit).inputs["spec"]["template"]
        version = template["metadata"]["annotations"][VERSION]
        publish_content(endpoint, context.graph, version, root=context.root, say=context.say)
        apply_remote_secret(client, pool, settings, context.graph.spec, namespace, root=context.root)
        name = secret_name_of(template)
        if name:
            apply_secrets(client, endpoint, context.graph.spec, name, namespace, root=context.root)

    def settle(self, unit: Unit, result: UnitResult, context: StepContext) -> dict[str, Any]:
        """Wait until the new pods are ready and answer, and return what was seen. Raises `MlstackError`."""
        from mlstack.drivers.kubernetes.endpoint_rollout import wait_for_rollout
        from mlstack.drivers.kubernetes.preflight import cluster_identity

        del result
        endpoint = _as_endpoint(context.resource)
        client = self._client(read_settings(pool_of(endpoint, context.graph)), context)
        seen = wait_for_rollout(client, unit, context)
        namespace, template = namespace_of_unit(unit), deployment_of(unit).inputs["spec"]["template"]
        remove_secrets(client, unit.address, context.graph.spec, namespace, keep=[secret_name_of(template)])
        known = context.record.attributes if context.record is not None else {}
        where = {"api_server": client.connection.server, "cluster": cluster_identity(client)}
        return where | {"started": known.get("started") or now_iso()} | seen

    def explain(self, unit: Unit, problem: Diagnostic, context: StepContext) -> StepTrouble:
        """Say with which events and words the newest pods of an endpoint did not get ready."""
        from mlstack.drivers.kubernetes.endpoint_trouble import explain_rollout

        endpoint = _as_endpoint(context.resource)
        return explain_rollout(
            self._client(read_settings(pool_of(endpoint, context.graph)), context), unit, problem, context
        )

    def removed(self, record: Record, context: StepContext) -> None:
        """Remove the Secrets of an endpoint that is gone."""
        client = recorded_client(record.attributes, root=context.root, address=record.address)
        namespace = str(record.attributes.get("namespace", ""))
        remove_secrets(client, record.address, context.graph.spec, namespace)

    def _client(self, settings: KubernetesSettings, context: StepContext) -> Any:
        known = place_of(settings, context.graph.spec).attributes()
        address = context.resource.address if context.resource is not None else None
        return recorded_client(known, root=context.root, address=address)


def deployment_of(unit: Unit) -> Object:
    """Return the Deployment of an endpoint's unit."""
    return next(each for each in unit.objects if each.key == "deployment")


def namespace_of_unit(unit: Unit) -> str:
    """Return the namespace that an endpoint's objects are in."""
    return str(deployment_of(unit).inputs["metadata"]["namespace"])


# ---------------------------------------------------------------------------------------------------- attributes


def _pod(endpoint: Endpoint, pool: Pool, settings: KubernetesSettings, graph: ResourceGraph) -> dict[str, Any]:
    """Return what a pod gets of its pool."""
    uses_gpu = bool(resources_of(endpoint, pool).get("gpu"))
    found = {
        "service_account": service_account_name(pool, settings),
        "priority_class": priority_class_name(pool, settings, graph.spec),
        "remote_secret": remote_secret_name(pool.address) if settings.remote_env else "",
        "image_pull_secret": settings.image_pull_secret or "",
        "user": str(settings.user or DEFAULT_USER),
        "storage": settings.storage or "",
        "gpu": gpu_name(pool, settings) if uses_gpu else "",
        "placement": pod_placement(pool, settings, gpu=uses_gpu),
    }
    return {name: value for name, value in found.items() if value}


def _may_surge(endpoint: Endpoint, pool: Pool) -> bool:
    """Whether one replica more than its fewest may run while it is replaced: accelerators are seldom to spare."""
    resources = resources_of(endpoint, pool)
    wanted = {name: amount * (endpoint.replicas.min + 1) for name, amount in resources.items()}
    limits = {name: getattr(pool.limits, name) for name in wanted}
    return not resources.get("gpu") and all(limits[name] is None or wanted[name] <= limits[name] for name in wanted)


def _images(endpoint: Endpoint, graph: ResourceGraph) -> dict[str, Address]:
    own = {"image": graph.image_of[endpoint.address]} if endpoint.address in graph.image_of else {}
    return {**own, "runner": RUNNER_IMAGE}


def _tag(address: Address, graph: ResourceGraph) -> str | None:
    plan = graph.images.get(address)
    return plan.tag if plan is not None else None


def _as_endpoint(resource: Resource | None) -> Endpoint:
    if not isinstance(resource, Endpoint):
        raise TypeError(f"the driver of endpoints was handed {type(resource).__name__}")
    return resource


def _gap(endpoint: Endpoint, pool: Pool) -> Diagnostic:
    why = "its pool has no accelerator to spare" if resources_of(endpoint, pool).get("gpu") else "its pool is full"
    return Diagnostic(
        code="endpoint-replaced-with-a-gap",
        summary="Requests are lost while the endpoint is replaced",
        detail=f"{endpoint.address} has one replica, which ends before the next one starts: {why}.",
        hint="Give it `replicas: {min: 2}`, or its pool higher `limits`.",
        severity=Severity.WARNING,
        address=endpoint.address,
    )
