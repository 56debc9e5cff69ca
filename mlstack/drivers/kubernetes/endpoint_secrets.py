"""Secrets of endpoints: applied by mlstack itself, so that no value passes through the engine or into a file.

A Secret's name holds a version of its values. When one is rotated, the pods refer to another Secret and are replaced
one after the other; what runs keeps what it was started with until then, also when the rollout is taken back.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mlstack.drivers.kubernetes.names import ADDRESS, annotations_of, dns_name, labels_of, object_name
from mlstack.drivers.kubernetes.pool_names import ROLE
from mlstack.drivers.secrets import resolve_secrets
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Spec

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube

_ROLE = "endpoint-secrets"


def secret_name(address: Address, version: str | None) -> str:
    """Return what the Secret of an endpoint is called."""
    return dns_name("-".join(filter(None, [object_name(address, longest=40), "secrets", version])))


def apply_secrets(client: "Kube", endpoint: Endpoint, spec: Spec, name: str, namespace: str, *, root: Path) -> None:
    """Make the Secret with the values as they are now. Raises `MlstackError`."""
    values = resolve_secrets(endpoint.secrets, address=endpoint.address, root=root, environment=os.environ).reveal()
    labels = labels_of(spec.project, spec.environment, endpoint.address) | {ROLE: _ROLE}
    about = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations_of(endpoint.address)}
    client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": "Opaque", "stringData": values})


def remove_secrets(client: "Kube", address: Address, spec: Spec, namespace: str, *, keep: Iterable[str] = ()) -> None:
    """Remove the Secrets of an endpoint but for some. Raises `MlstackError`."""
    labels = labels_of(spec.project, spec.environment, address) | {ROLE: _ROLE}
    kept = set(keep)
    for found in client.listing("Secret", namespace, labels=labels):
        exact = (found["metadata"].get("annotations") or {}).get(ADDRESS)
        if exact == address and found["metadata"]["name"] not in kept:
            client.delete("Secret", found["metadata"]["name"], namespace)
