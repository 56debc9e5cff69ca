"""Names and labels of what mlstack makes in a cluster: the same for the same address, never random."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from mlstack.spec.address import Address, parse_address

MANAGED_BY = "app.kubernetes.io/managed-by"
PREFIX = "mlstack.dev/"
PROJECT, ENVIRONMENT, ADDRESS, FINGERPRINT = (
    f"{PREFIX}{word}" for word in ("project", "environment", "address", "fingerprint")
)
FIELD_MANAGER = "mlstack"
LONGEST = 63
"""Characters of a label's value, and of the names that end up in one (DNS labels)."""
EGRESS_NAMESPACE = "namespace/"
"""How an `egress` of a pool begins that is all pods of a namespace."""

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def dns_name(text: str, *, longest: int = LONGEST) -> str:
    """Return `text` as a DNS label: lower case, letters, digits and dashes.

    Where that changes or cuts it, a hash of the whole keeps two names apart.
    """
    plain = _NOT_IN_NAMES.sub("-", text.lower()).strip("-")
    return plain if plain == text and len(plain) <= longest else _marked(plain, text, longest)


def label_value(text: str) -> str:
    """Return `text` as the value of a label: an address as it is, with a dot for the slash of a component."""
    plain = text.replace("/", ".")
    if _LABEL.fullmatch(plain) and len(plain) <= LONGEST:
        return plain
    return _marked(_NOT_IN_NAMES.sub("-", text.lower()).strip("-"), text, LONGEST)


def _marked(plain: str, text: str, longest: int) -> str:
    mark = sha256(text.encode()).hexdigest()[:8]
    return f"{plain[: longest - 9].strip('-') or 'x'}-{mark}"


def object_name(address: Address, *, longest: int = LONGEST) -> str:
    """Return what the objects of a resource are called: `quality`, in a component `churn-quality`."""
    parts = parse_address(address)
    if parts is None:
        return dns_name(address, longest=longest)
    words = [parts.component, parts.name] if parts.component else [parts.name]
    instance = f"[{parts.instance}]" if parts.instance else ""
    return dns_name("-".join(words) + instance, longest=longest)


def owner_labels(project: str, environment: str) -> dict[str, str]:
    """Return the labels by which what belongs to an environment is found, and told from what others made."""
    return {MANAGED_BY: "mlstack", PROJECT: label_value(project), ENVIRONMENT: label_value(environment)}


def labels_of(project: str, environment: str, address: Address) -> dict[str, str]:
    """Return the labels of an object of a resource."""
    return owner_labels(project, environment) | {ADDRESS: label_value(address)}


def annotations_of(address: Address) -> dict[str, str]:
    """Return the annotation with the exact address, which a label cannot hold."""
    return {ADDRESS: address}


def owner_of(found: Mapping[str, Any]) -> str:
    """Return which environment of mlstack's has made an object, in words; "" where none says so."""
    labels = (found.get("metadata") or {}).get("labels") or {}
    if labels.get(MANAGED_BY) != "mlstack" or PROJECT not in labels:
        return ""
    return f'environment "{labels.get(ENVIRONMENT, "")}" of the project "{labels[PROJECT]}"'


def is_ours(found: dict[str, object], project: str, environment: str) -> bool:
    """Whether an object carries the labels of this environment."""
    metadata = found.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    wanted = owner_labels(project, environment)
    return isinstance(labels, dict) and all(labels.get(name) == value for name, value in wanted.items())
