"""Endpoints on Kubernetes: a Deployment each, and what makes it reachable and keeps it so."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.base import SECRETS_VERSION, Absent, Observation, Send, StepContext, Unreadable
from mlstack.drivers.kubernetes.check_pools import check_endpoint_fits, check_endpoint_grows, needs_of_target
from mlstack.drivers.kubernetes.endpoint_objects import endpoint_objects
from mlstack.drivers.kubernetes.endpoint_pod import VERSION, secret_name_of
from mlstack.drivers.kubernetes.endpoint_route import check_routes, route_of, url_of
from mlstack.drivers.kubernetes.endpoint_secrets import apply_secrets, remove_secrets, secret_name
from mlstack.drivers.kubernetes.names import object_name
from mlstack.drivers.kubernetes.place import place_of, pods_remote, provider_of, recorded_client, recorded_place
from mlstack.drivers.kubernetes.placement import gpu_name, pod_placement
from mlstack.drivers.kubernetes.pool_names import priority_class_name, remote_secret_name, service_account_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings, read_settings
from mlstack.drivers.local.capacity import resources_of
from mlstack.drivers.local.endpoint_attributes import attributes_of, check_models
from mlstack.drivers.registry import pool_of
from mlstack.drivers.stack_programs import recorded_unit
from mlstack.drivers.stacks import REPLACED, UNCONFIRMED, UNSCALED, Object, StackName, StepTrouble, Unit, UnitResult
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
    kept: tuple[str, ...] = (SECRETS_VERSION, REPLACED)

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
            *check_endpoint_grows(endpoint, pool, settings),
            *check_routes(endpoint, graph, settings),
            *needs_of_target(pool, graph, root=self._root),
        ]
        if endpoint.replicas.min == 1 and not _may_surge(endpoint, pool):
            found.append(_gap(endpoint, pool))
        return found

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the attributes that the endpoint should have. Raises `MlstackError` for wrong settings."""
        endpoint = _as_endpoint(resource)
        pool = pool_of(endpoint, graph)
        settings = read_settings(pool)
        place, route = place_of(settings, graph.spec), route_of(endpoint, settings)
        port = endpoint.port or DEFAULT_PORT
        grows = endpoint.replicas.max > endpoint.replicas.min
        return {
            **attributes_of(endpoint, graph, {Address(each): it for each, it in versions.items()}, root=self._root),
            "namespace": place.namespace,
            **{name: _tag(address, graph) for name, address in _images(endpoint, graph).items()},
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
        known = {**desired, "secret_name": secret_name(endpoint.address, desired.get(SECRETS_VERSION))}
        references = {
            "server": images.get(graph.image_of[endpoint.address]) if endpoint.address in graph.image_of else None,
            "runner": images.get(RUNNER_IMAGE),
        }
        return Unit(
            address=endpoint.address,
            stack=self.stack,
            provider=provider_of(
                place_of(read_settings(pool_of(endpoint, graph)), graph.spec),
                root=self._root,
            ),
            objects=endpoint_objects(endpoint, graph, known, references),
        )

    def read(self, resource: Resource | None, record: Record | None) -> Observation:  # noqa: ARG002
        """Ask the recorded cluster how the Deployment is, and what is said of its route and its autoscaler."""
        from mlstack.drivers.kubernetes.endpoint_health import read_health

        if record is None:
            return Absent(reason="never made")
        try:
            client = recorded_client(record.attributes, root=self._root, address=record.address)
            return read_health(client, record)
        except MlstackError as error:
            return Unreadable(diagnostic=error.diagnostics[0])

    # ------------------------------------------------------------------------------------------------ being asked

    def sender(self, record: Record, *, timeout: float, token: str | None) -> Send | None:
        """Return how an endpoint is asked by way of the API server; None where its URL can be used as it is."""
        from mlstack.drivers.kubernetes.endpoint_access import sender_for

        return sender_for(record, root=self._root, timeout=timeout, token=token)

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

        Waits while something of its name still ends. Raises `MlstackError`.
        """
        from mlstack.drivers.kubernetes.endpoint_content import publish_content
        from mlstack.drivers.kubernetes.endpoint_rollout import wait_until_left
        from mlstack.drivers.kubernetes.endpoint_scaling import hold_replicas
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
        wait_until_left(client, unit, context)
        if context.record is not None and not context.record.attributes.get("autoscale"):
            hold_replicas(client, unit)

    def settle(self, unit: Unit, result: UnitResult, context: StepContext) -> dict[str, Any]:
        """Wait until the new pods are ready and answer, by their route, too; return what was seen.

        Raises `MlstackError`, `UnseenError` when the cluster does not say.
        """
        from mlstack.drivers.kubernetes.endpoint_rollout import wait_for_rollout
        from mlstack.drivers.kubernetes.endpoint_routing import wait_for_route
        from mlstack.drivers.kubernetes.endpoint_scaling import raise_to_least, why_without_metrics
        from mlstack.drivers.kubernetes.refusals import looking
        from mlstack.drivers.kubernetes.remote_secret import remove_idle_secret
        from mlstack.drivers.kubernetes.ways import cluster_identity

        del result
        endpoint = _as_endpoint(context.resource)
        settings = read_settings(pool_of(endpoint, context.graph))
        client = self._client(settings, context)
        began = time.monotonic()
        with looking():
            raise_to_least(client, unit)
            seen = wait_for_rollout(client, unit, context)
            if unconfirmed := wait_for_route(client, unit, context, began=began):
                seen[UNCONFIRMED] = unconfirmed
            if unscaled := why_without_metrics(client, unit):
                seen[UNSCALED] = unscaled
        namespace, template = namespace_of_unit(unit), deployment_of(unit).inputs["spec"]["template"]
        remove_secrets(client, unit.address, context.graph.spec, namespace, keep=[secret_name_of(template)])
        record = context.record
        known = record.attributes if record is not None else {}
        place = place_of(settings, context.graph.spec)
        if record is not None and record.driver == self.name and recorded_place(known) != place:
            self.removed(record, context)
        if (known.get("pod") or {}).get("remote_secret"):
            remove_idle_secret(client, pool_of(endpoint, context.graph), settings, namespace)
        where = {
            **place.attributes(),
            "api_server": client.connection.server,
            "cluster": cluster_identity(client),
        }
        return where | {"started": known.get("started") or now_iso()} | seen

    def explain(self, unit: Unit, problem: Diagnostic, context: StepContext) -> StepTrouble:
        """Say with which events and words the newest pods of an endpoint did not get ready."""
        from mlstack.drivers.kubernetes.endpoint_trouble import explain_rollout

        endpoint = _as_endpoint(context.resource)
        return explain_rollout(
            self._client(read_settings(pool_of(endpoint, context.graph)), context), unit, problem, context
        )

    def taken_back(self, unit: Unit, context: StepContext) -> None:
        """Remove the Secrets but for the one that what was there before goes on with."""
        before = recorded_unit(context.record) if context.record is not None else None
        keep = [secret_name_of(deployment_of(before).inputs["spec"]["template"])] if before is not None else []
        client = self._client(read_settings(pool_of(_as_endpoint(context.resource), context.graph)), context)
        remove_secrets(client, unit.address, context.graph.spec, namespace_of_unit(unit), keep=keep)

    def removed(self, record: Record, context: StepContext) -> None:
        """Remove the Secrets of an endpoint that is gone."""
        client = recorded_client(record.attributes, root=context.root, address=record.address)
        namespace = str(record.attributes.get("namespace", ""))
        remove_secrets(client, record.address, context.graph.spec, namespace)

    def may_overlap(self, resource: Resource, graph: ResourceGraph) -> bool:
        """Whether the pool has room for an endpoint under two names, and its host is not one that only one can have."""
        endpoint = _as_endpoint(resource)
        pool = pool_of(endpoint, graph)
        settings = read_settings(pool)
        hosts = [settings.ingress.host] if settings.ingress is not None else []
        hosts += [settings.gateway.hostname] if settings.gateway is not None else []
        return _has_room(endpoint, pool, graph) and all(host.startswith("*.") for host in hosts)

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


def _has_room(endpoint: Endpoint, pool: Pool, graph: ResourceGraph) -> bool:
    """Whether the limits of a pool leave room for an endpoint beside all of its endpoints: nobody asks the cluster."""
    resources = resources_of(endpoint, pool)
    for name, amount in resources.items():
        limit = getattr(pool.limits, name)
        others = (each for each in graph.spec.of(Endpoint).values() if each.pool == pool.address)
        taken = sum(resources_of(each, pool).get(name, 0.0) * each.replicas.min for each in others)
        if limit is not None and taken + amount * endpoint.replicas.min > limit:
            return False
    return not resources.get("gpu")


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
