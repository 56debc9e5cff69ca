"""The Secret with which pods of a pool reach the remote: `remote_env` of its settings, applied by mlstack itself."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.names import annotations_of, labels_of
from mlstack.drivers.kubernetes.pool_names import ROLE, remote_secret_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.secrets import resolve_secrets
from mlstack.runner.store import CREDENTIALS
from mlstack.spec.spec import Pool, SecretRef, Spec

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube


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
    labels = labels_of(spec.project, spec.environment, pool.address) | {ROLE: "remote"}
    about = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations_of(pool.address)}
    prefixed = {f"{CREDENTIALS}{key.removeprefix(CREDENTIALS)}": value for key, value in values.items()}
    client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": "Opaque", "stringData": prefixed})
    return name


def remote_variables(pool: Pool, settings: KubernetesSettings) -> tuple[dict[str, str], dict[str, SecretRef]]:
    """Return `remote_env` taken apart: texts, and where secrets are found. Raises `MlstackError` for anything else."""
    texts: dict[str, str] = {}
    secrets: dict[str, SecretRef] = {}
    for name, value in settings.remote_env.items():
        match value:
            case str():
                texts[name] = value
            case {"secret": str() as uri, **others} if not others:
                secrets[name] = SecretRef(uri)
            case _:
                raise MlstackError(_wrong(pool, name))
    return texts, secrets


def _wrong(pool: Pool, name: str) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-setting-wrong",
        summary="A setting of the target kubernetes has a wrong value",
        detail=f"`remote_env.{name}` is neither text nor `{{secret: …}}`.",
        hint=f"Write `{name}: {{secret: env://{name}}}`.",
        address=pool.address,
    )
