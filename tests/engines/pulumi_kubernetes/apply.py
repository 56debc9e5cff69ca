"""Writing to the API server: create, server-side apply, delete, and who manages which fields."""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tests.engines.pulumi_kubernetes import names, waiting
from tests.engines.pulumi_kubernetes.cluster import APPLY, JSON_PATCH, ApiError, Cluster, NoMatchError
from tests.engines.pulumi_kubernetes.values import Object

if TYPE_CHECKING:
    from tests.engines.pulumi_kubernetes.provider import Provider

CLIENT_SIDE = "pulumi-kubernetes"
"""Who makes objects. The first update hands its fields over to the resource's own manager."""

RETRIES = 5
FORCE = "pulumi.com/patchForce"
PROPAGATION = {"orphan": "Orphan", "background": "Background"}
SKIPS_WAIT_FOR_DELETION = {
    ("v1", "Namespace"),
    ("v1", "Pod"),
    ("v1", "ReplicationController"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
}


def no_namespace(error: ApiError) -> bool:
    """Whether an object was refused since its namespace is not there."""
    return error.status == HTTPStatus.NOT_FOUND and error.details.get("kind") == "namespaces"


def create(provider: Provider, inputs: Object, *, manager: str, preview: bool) -> Object:
    """Make an object; again for half a minute while its namespace or definition is not there yet."""
    dry = {"dryRun": "All"} if preview else {}
    pause = 1.0
    for tried in range(RETRIES + 1):
        try:
            if provider.settings.server_side_apply and provider.settings.upsert:
                force = _forced(provider, inputs, None, preview=preview)
                path = provider.cluster.path_of(inputs, inputs["metadata"]["name"])
                return _apply(provider.cluster, path, inputs, manager, force=force, fieldValidation="Warn", **dry)
            path = provider.cluster.path_of(inputs)
            return provider.cluster.request("POST", path, inputs, fieldManager=CLIENT_SIDE, **dry)
        except (ApiError, NoMatchError) as error:
            lasting = isinstance(error, ApiError) and error.status != HTTPStatus.NOT_FOUND
            if lasting or tried == RETRIES or (preview and isinstance(error, ApiError) and no_namespace(error)):
                raise
            if provider.cancelled.wait(pause):
                raise
            pause *= 2
    raise AssertionError("unreachable")


def update(
    provider: Provider, inputs: Object, live: Object, *, manager: str, preview: bool, ignored: list[str]
) -> Object:
    """Apply the inputs to an object that is there."""
    cluster, dry = provider.cluster, {"dryRun": "All"} if preview else {}
    path = cluster.path_of(inputs, live["metadata"]["name"])
    if inputs["kind"] == "CustomResourceDefinition":
        version = {**inputs["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
        return cluster.request("PUT", path, {**inputs, "metadata": version}, fieldManager=manager, **dry)
    if not preview and (managed := _taken_over(live["metadata"].get("managedFields") or [], manager)):
        change = [{"op": "replace", "path": "/metadata/managedFields", "value": managed}]
        live = cluster.request("PATCH", path, change, content=JSON_PATCH)
    wanted = _without_ignored(inputs, live, manager, ignored)
    return _apply(cluster, path, wanted, manager, force=_forced(provider, inputs, live, preview=preview), **dry)


def _apply(cluster: Cluster, path: str, obj: Object, manager: str, *, force: bool, **query: str) -> Object:
    try:
        return cluster.request(
            "PATCH", path, obj, content=APPLY, fieldManager=manager, force=str(force).lower(), **query
        )
    except ApiError as error:
        if error.status == HTTPStatus.CONFLICT:
            managed = f'The resource managed by field manager "{manager}" had an apply conflict: {error}'
            error.args = (f"server-side apply field conflict detected\n{managed}",)
        raise


def _forced(provider: Provider, inputs: Object, live: Object | None, *, preview: bool) -> bool:
    """Whether fields that others manage are taken from them."""
    if names.annotation(inputs, FORCE) == "true" or provider.settings.patch_force:
        return True
    managed = (live or {}).get("metadata", {}).get("managedFields") or []
    if live is None:
        return preview
    if not managed:  # made before there was server-side apply
        return True
    ours = ("pulumi-resource-kubernetes", "pulumi-kubernetes", "pulumi-kubernetes.exe")
    return preview and any(each["operation"] == "Update" and each["manager"] in ours for each in managed)


# -------------------------------------------------------------------------------------------- who manages which fields

_TAKEN_OVER = [
    ("kubectl", "Apply"),
    ("kubectl", "Update"),
    ("before-first-apply", "Update"),
    ("pulumi-kubernetes", "Update"),
    ("pulumi-resource-kubernetes", "Update"),
]


def _taken_over(managed: list[Object], manager: str) -> list[Object] | None:
    """The managed fields with what kubectl and client-side Pulumi set handed over to `manager`; None if there is none.

    What went through a subresource, as `kubectl scale` does, is not handed over: changing it is a conflict.
    """
    own = next((each for each in managed if each["manager"] == manager and each["operation"] == "Apply"), None)
    kept, merged = [], copy.deepcopy(own)
    for each in managed:
        if each is own:
            continue
        if not any(_is_by(each, name, operation) for name, operation in _TAKEN_OVER):
            kept.append(each)
        elif merged is None:
            merged = {**copy.deepcopy(each), "manager": manager, "operation": "Apply"}
        else:
            merged["fieldsV1"] = _union(merged["fieldsV1"], each["fieldsV1"])
    if merged is None or len(kept) + (own is not None) == len(managed):
        return None
    return [*kept, merged]


def _is_by(entry: Object, name: str, operation: str) -> bool:
    return bool(entry["manager"].startswith(name) and entry["operation"] == operation and not entry.get("subresource"))


def _union(one: Object, other: Object) -> Object:
    both = dict(one)
    for key, value in other.items():
        both[key] = _union(both[key], value) if key in both else value
    return both


def _without_ignored(inputs: Object, live: Object, manager: str, ignored: list[str]) -> Object:
    """The inputs without changes that the program ignores: left to who manages them, else as they are live."""
    wanted = copy.deepcopy(inputs)
    for path in ignored:
        steps = path.split(".")
        mine, theirs = _managers(live, manager, steps)
        if theirs and not mine:
            _remove(wanted, steps)
        elif (value := waiting.found(live, *steps)) is not None:
            _put(wanted, steps, value)
    return wanted


def _managers(live: Object, manager: str, steps: list[str]) -> tuple[bool, bool]:
    fields = [f"f:{step}" for step in steps]
    holders = {
        each["manager"] == manager
        for each in live["metadata"].get("managedFields") or []
        if waiting.found(each.get("fieldsV1") or {}, *fields) is not None
    }
    return True in holders, False in holders


def _remove(obj: Any, steps: list[str]) -> None:
    for step in steps[:-1]:
        obj = obj.get(step) if isinstance(obj, dict) else None
    if isinstance(obj, dict):
        obj.pop(steps[-1], None)


def _put(obj: Object, steps: list[str], value: Any) -> None:
    for step in steps[:-1]:
        obj = obj.setdefault(step, {})
    obj[steps[-1]] = value


def relinquish(cluster: Cluster, live: Object, manager: str) -> None:
    """Let go of all fields that were applied as `manager`."""
    name = live["metadata"]["name"]
    nothing = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": name}}
    _apply(cluster, cluster.path_of(live, name), nothing, manager, force=False)


def delete(provider: Provider, inputs: Object, live: Object, name: str, *, timeout: float) -> None:
    """Delete an object, what it owns first, and wait until it is gone.

    Raises:
        NotReadyError: it was not gone in time.
    """
    policy = PROPAGATION.get(names.annotation(inputs, "pulumi.com/deletionPropagationPolicy").lower(), "Foreground")
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    try:
        provider.cluster.request("DELETE", provider.cluster.path_of(live, name), options)
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return
        raise
    if waiting.skips_await(inputs) and (inputs["apiVersion"], inputs["kind"]) in SKIPS_WAIT_FOR_DELETION:
        return
    waiting.until_gone(provider.cluster, provider.cancelled, live, waiting.timeout_of(inputs, timeout))


__all__ = ["CLIENT_SIDE", "create", "delete", "no_namespace", "relinquish", "update"]
