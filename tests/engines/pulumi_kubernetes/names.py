"""Names: what a URN says, identifiers, and names that the program left to Pulumi."""

from __future__ import annotations

import hashlib
import secrets as random
from typing import Any

from tests.engines.pulumi_kubernetes.values import UNKNOWN, Object

AUTONAMED = "pulumi.com/autonamed"


def type_of(urn: str) -> tuple[str, str]:
    """The apiVersion and kind that the type in a URN stands for: `kubernetes:apps/v1:Deployment`."""
    token = urn.split("::")[2].rsplit("$", 1)[-1]
    _, version, kind = token.split(":", 2)
    return version.removeprefix("core/"), kind


def name_in(urn: str) -> str:
    """What the program calls the resource."""
    return urn.split("::", 3)[3]


def identifier(obj: Object) -> str:
    """The resource's id: `namespace/name`, or `name` where there are no namespaces."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def from_identifier(given: str) -> tuple[str, str]:
    """Namespace (or "") and name."""
    parts = given.split("/")
    return ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])


def suffix(seed: bytes = b"") -> str:
    """Eight characters; the same ones for the same seed, so that a preview names what the update will."""
    return hashlib.sha512(seed).hexdigest()[:8] if seed else random.token_hex(4)


def annotation(obj: Object, key: str) -> str:
    """The value of an annotation, or ""."""
    meta = obj.get("metadata")
    notes = meta.get("annotations") if isinstance(meta, dict) else None
    value = notes.get(key) if isinstance(notes, dict) else None
    return value if isinstance(value, str) else ""


def is_named(obj: Object) -> bool:
    """Whether a name is given, if only one that is known later."""
    name = meta_value(obj, "name")
    return name is UNKNOWN or bool(name)


def is_autonamed(obj: Object) -> bool:
    """Whether Pulumi chose the name."""
    return annotation(obj, AUTONAMED) == "true"


def set_name(obj: Object, name: str) -> None:
    """Give an object a name that Pulumi chose, and note that on it."""
    meta = obj.setdefault("metadata", {})
    if meta is UNKNOWN:
        return
    meta["name"] = name
    if meta.get("annotations") is not UNKNOWN:
        meta["annotations"] = {**(meta.get("annotations") or {}), AUTONAMED: "true"}


def meta_value(obj: Object, key: str) -> Any:
    """A value of the metadata, or None."""
    meta = obj.get("metadata")
    return meta.get(key) if isinstance(meta, dict) else None
