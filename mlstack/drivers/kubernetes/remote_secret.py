"""The Secret with which pods of a pool reach the remote: `remote_env` of its settings, applied by mlstack itself.

Its name stays when a value is rotated: pods read it when they start, and those that run need it no more. A pod that
starts after the key before was withdrawn finds the new one, whichever revision of its Deployment it is of.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import SECRETS_VERSION
from mlstack.drivers.kubernetes.names import ADDRESS, annotations_of, labels_of, owner_labels
from mlstack.drivers.kubernetes.pool_names import ROLE, pool_labels, remote_secret_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.local.endpoint_start import digest_of
from mlstack.drivers.secret_versions import secrets_version
from mlstack.drivers.secrets import resolve_secrets
from mlstack.graph.graph import ResourceGraph
from mlstack.runner.store import CREDENTIALS
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, SecretRef, Spec

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube

_SCHEMES = ("env://", "file://")
_ROLE = "remote"
_OVER = ("Succeeded", "Failed")


def remote_attributes(pool: Pool, settings: KubernetesSettings, spec: Spec, *, root: Path) -> dict[str, Any]:
    """Return what a plan compares of it, values as digests; `SECRETS_VERSION` is left out where they cannot be had.

    Raises `MlstackError`.
    """
    texts, secrets = remote_variables(pool, settings)
    version = secrets_version(secrets, pool.address, spec, root=root) if secrets else None
    return {
        "remote_env": {name: digest_of(value) for name, value in texts.items()},
        "secrets": {name: secret.uri for name, secret in secrets.items()},
        **({SECRETS_VERSION: version} if version is not None else {}),
    }


def missing_values(pool: Pool, settings: KubernetesSettings, *, root: Path) -> Iterator[Diagnostic]:
    """Yield what keeps the Secret from being made: a reference that leads nowhere here."""
    try:
        _, secrets = remote_variables(pool, settings)
        resolve_secrets(secrets, address=pool.address, root=root, environment=os.environ)
    except MlstackError as error:
        yield from error.diagnostics


def apply_remote_secret(
    client: "Kube", pool: Pool, settings: KubernetesSettings, spec: Spec, namespace: str, *, root: Path
) -> str:
    """Make the Secret as it should be now, and return its name; "" if the pool's settings say nothing of that kind.

    Its variables are for the store alone: a stage's command does not get them. Raises `MlstackError`.
    """
    if not settings.remote_env:
        return ""
    texts, secrets = remote_variables(pool, settings)
    values = texts | resolve_secrets(secrets, address=pool.address, root=root, environment=os.environ).reveal()
    name = remote_secret_name(pool.address)
    labels = labels_of(spec.project, spec.environment, pool.address) | {ROLE: _ROLE}
    about = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations_of(pool.address)}
    prefixed = {f"{CREDENTIALS}{key.removeprefix(CREDENTIALS)}": value for key, value in values.items()}
    client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": "Opaque", "stringData": prefixed})
    return name


def remove_idle_secret(client: "Kube", pool: Pool, settings: KubernetesSettings, namespace: str) -> None:
    """Remove the Secret of a pool that has none any more, unless a pod takes it still: it may have to start again.

    Raises `MlstackError`.
    """
    if settings.remote_env:
        return
    name = remote_secret_name(pool.address)
    pods = client.listing("Pod", namespace, labels=pool_labels(pool.address))
    if not any(_takes(pod, name) for pod in pods):
        client.delete("Secret", name, namespace)


def _takes(pod: Mapping[str, Any], secret: str) -> bool:
    spec = pod["spec"]
    if pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("phase") in _OVER:
        return False
    containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
    sources = (source for each in containers for source in each.get("envFrom") or ())
    return any((source.get("secretRef") or {}).get("name") == secret for source in sources)


def remove_remote_secrets(client: "Kube", pool: Address, graph: ResourceGraph, namespace: str) -> None:
    """Remove the Secret of a pool that is gone, and those of addresses that no pool has any more (`moved`).

    Raises `MlstackError`.
    """
    labels = owner_labels(graph.spec.project, graph.spec.environment) | {ROLE: _ROLE}
    for found in client.listing("Secret", namespace, labels=labels):
        address = (found["metadata"].get("annotations") or {}).get(ADDRESS)
        if address == pool or address not in graph.resources:
            client.delete("Secret", found["metadata"]["name"], namespace)


def remote_variables(pool: Pool, settings: KubernetesSettings) -> tuple[dict[str, str], dict[str, SecretRef]]:
    """Return `remote_env` taken apart: texts, and where secrets are found. Raises `MlstackError` for anything else."""
    texts: dict[str, str] = {}
    secrets: dict[str, SecretRef] = {}
    for name, value in settings.remote_env.items():
        match value:
            case str():
                texts[name] = value
            case {"secret": str() as uri, **others} if not others and uri.startswith(_SCHEMES):
                secrets[name] = SecretRef(uri)
            case _:
                raise MlstackError(_wrong(pool, name))
    return texts, secrets


def _wrong(pool: Pool, name: str) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-setting-wrong",
        summary="A setting of the target kubernetes has a wrong value",
        detail=f"`remote_env.{name}` is neither text nor `{{secret: REFERENCE}}`.",
        hint=f"Write `{name}: {{secret: env://{name}}}`, or `file://PATH`; never its value.",
        address=pool.address,
    )
