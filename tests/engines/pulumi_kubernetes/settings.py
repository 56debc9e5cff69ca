"""The provider's configuration: what a program gives it, what the environment says, and what a change of it means."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from tests.engines.pulumi_kubernetes.cluster import ApiError, Cluster, UnreachableError
from tests.engines.pulumi_kubernetes.kubeconfig import KubeconfigError, access, active_cluster, ambient, load
from tests.engines.pulumi_kubernetes.values import UNKNOWN, Object

PREFIX = "kubernetes:config:"


@dataclass
class Settings:
    """What all resources of a provider have in common."""

    cluster: Cluster | None
    """None if there is nothing to speak to."""
    unreachable: str
    """Why the cluster cannot be spoken to, or ""."""
    namespace: str
    server_side_apply: bool
    patch_force: bool
    upsert: bool
    delete_unreachable: bool
    skip_update_unreachable: bool
    mutable_config_maps: bool
    mutable_secrets: bool


def configure(given: dict[str, str]) -> Settings:
    """Read the configuration and look whether the cluster answers; one that does not is no error here."""

    def on(name: str, variable: str, *, default: bool = False) -> bool:
        value = given.get(PREFIX + name, os.environ.get("PULUMI_K8S_" + variable))
        return default if value is None else value == "true"

    settings = Settings(
        cluster=None,
        unreachable="",
        namespace=given.get(PREFIX + "namespace", ""),
        server_side_apply=on("enableServerSideApply", "ENABLE_SERVER_SIDE_APPLY", default=True),
        patch_force=on("enablePatchForce", "ENABLE_PATCH_FORCE"),
        upsert=on("upsertExistingObjects", "UPSERT_EXISTING_OBJECTS"),
        delete_unreachable=on("deleteUnreachable", "DELETE_UNREACHABLE"),
        skip_update_unreachable=on("skipUpdateUnreachable", "SKIP_UPDATE_UNREACHABLE"),
        mutable_config_maps=on("enableConfigMapMutable", "ENABLE_CONFIGMAP_MUTABLE"),
        mutable_secrets=on("enableSecretMutable", "ENABLE_SECRET_MUTABLE"),
    )
    _connect(settings, given)
    return settings


def _connect(settings: Settings, given: dict[str, str]) -> None:
    written = given.get(PREFIX + "kubeconfig", "")
    try:
        config = load(written) if written else ambient()
    except (KubeconfigError, OSError) as error:
        settings.unreachable = f"failed to parse kubeconfig data in `kubernetes:config:kubeconfig`- {error}"
        return
    try:
        found = access(config, context=given.get(PREFIX + "context", ""), cluster=given.get(PREFIX + "cluster", ""))
    except (KubeconfigError, OSError) as error:
        settings.unreachable = (
            f"unable to load Kubernetes client configuration from kubeconfig file. Make sure you have: \n\n {error}"
        )
        return
    settings.namespace = settings.namespace or found.namespace
    settings.cluster = Cluster(found)
    try:
        settings.cluster.request("GET", "/api/v1")
    except (ApiError, UnreachableError) as error:
        settings.unreachable = f"unable to load schema information from the API server: {error}"


def diff_config(old: Object, new: Object) -> tuple[list[str], list[str]]:
    """The settings that changed, and those because of which everything is made anew: another cluster."""
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    replacing = ["clusterIdentifier"] if old.get("clusterIdentifier") and "clusterIdentifier" in changed else []
    places = ("kubeconfig", "context", "cluster")
    for key in places:
        if new.get(key) is UNKNOWN:
            return [key], [*replacing, key]
    before, after = (_cluster_of(each) for each in (old, new))
    if before and after and before != after:
        replacing += [key for key in places if key in changed]
    if new.get("clusterIdentifier") and "clusterIdentifier" not in changed:
        replacing = []
    return changed, replacing


def _cluster_of(properties: Object) -> dict[str, Any] | None:
    written = properties.get("kubeconfig") or ""
    config = load(written if isinstance(written, str) else json.dumps(written))
    return active_cluster(config, properties.get("context"), properties.get("cluster"))
