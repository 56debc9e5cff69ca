"""What of the settings of a pool a cluster would refuse: names, labels, hosts, tolerations, addresses."""

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from mlstack.drivers.kubernetes.names import EGRESS_NAMESPACE, LONGEST
from mlstack.spec.quantity import WrongError, read_duration, read_memory

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.settings import KubernetesSettings

_USER = re.compile(r"(?P<uid>[0-9]{1,10})(:[0-9]{1,10})?")
_EGRESS = re.compile(r"(?P<network>[0-9a-fA-F.:]*(/[0-9]{1,3})?):(?P<port>[0-9]{1,5})")
_PART = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DESTINATION = "`CIDR:PORT` (such as `10.0.0.0/8:5432`), `:PORT`, nor `namespace/NAME`"
_LONGEST_NAME = 253
_PRIORITIES = range(-(2**31), 10**9 + 1)
"""What Kubernetes lets a user's PriorityClass have."""

_TOLERATION = {
    "key": None,
    "operator": ("Exists", "Equal"),
    "value": None,
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "tolerationSeconds": None,
}


def wrong_settings(found: "KubernetesSettings") -> Iterator[WrongError]:
    """Yield what is wrong with settings whose types are right. Sources: Kubernetes' rules for names and labels."""
    for name, read in (("keep_failed", read_duration), ("storage", read_memory)):
        value = getattr(found, name)
        try:
            _ = read(value) if value is not None else None
        except WrongError as error:
            yield WrongError(f"`{name}`: {error.detail}", error.hint)
    yield from _user(found.user)
    if found.priority not in _PRIORITIES:
        yield WrongError(_says("priority", found.priority, f"a number up to {_PRIORITIES[-1]:,}"))
    yield from _wrong_names(found)
    yield from _labels("node_selector", found.node_selector)
    for product, labels in found.accelerator_labels.items():
        yield from _labels(f"accelerator_labels.{product}", labels)
    for number, toleration in enumerate(found.tolerations):
        yield from _toleration(f"tolerations[{number}]", toleration)
    for text in found.egress:
        if not _is_egress(text):
            yield WrongError(_says("egress", text, _DESTINATION))


def _wrong_names(found: "KubernetesSettings") -> Iterator[WrongError]:
    if found.namespace is not None and not _is_part(found.namespace):
        yield WrongError(_says("namespace", found.namespace, f"1 to {LONGEST} lower-case letters, digits and dashes"))
    for name, value in _names(found):
        if value is not None and not _is_name(value):
            yield WrongError(_says(name, value, "a name in a cluster: lower-case letters, digits, dashes and dots"))
    for name, host in _hosts(found):
        if host and not _is_name(host.removeprefix("*.")):
            yield WrongError(_says(name, host, "a host"), "Write for example wine.example.com or *.example.com.")
    if found.gpu_resource is not None and not _is_key(found.gpu_resource):
        yield WrongError(_says("gpu_resource", found.gpu_resource, "a resource of nodes"), "As nvidia.com/gpu is one.")
    for name in found.remote_env:
        if not _VARIABLE.fullmatch(name):
            yield WrongError(_says("remote_env", name, "the name of a variable"))


def _says(name: str, value: object, wanted: str) -> str:
    return f"`{name}`: `{value}` is not {wanted}."


def _user(user: str | int | None) -> Iterator[WrongError]:
    read = _USER.fullmatch(str(user)) if user is not None else None
    if user is not None and read is None:
        yield WrongError(_says("user", user, "UID or UID:GID, in numbers"), "Write for example 1000:1000.")
    if read is not None and int(read["uid"]) == 0:
        yield WrongError("`user`: 0 is root, as which no pod of a pool runs.", "Write for example 1000:1000.")


def _names(found: "KubernetesSettings") -> Iterator[tuple[str, str | None]]:
    for name in ("service_account", "priority_class", "image_pull_secret", "queue", "cluster_queue"):
        yield name, getattr(found, name)
    if found.ingress is not None:
        yield "ingress.class", found.ingress.class_name or None
        yield "ingress.tls", found.ingress.tls or None
    if found.gateway is not None:
        yield "gateway.name", found.gateway.name
        yield "gateway.namespace", found.gateway.namespace or None
        yield "gateway.section", found.gateway.section or None


def _hosts(found: "KubernetesSettings") -> Iterator[tuple[str, str]]:
    if found.ingress is not None:
        yield "ingress.host", found.ingress.host
    if found.gateway is not None:
        yield "gateway.hostname", found.gateway.hostname


def _labels(name: str, labels: dict[str, str]) -> Iterator[WrongError]:
    for key, value in labels.items():
        if not _is_key(key):
            yield WrongError(_says(name, key, "the key of a label"))
        if value and not (_LABEL.fullmatch(value) and len(value) <= LONGEST):
            yield WrongError(_says(f"{name}.{key}", value, "the value of a label"))


def _toleration(name: str, toleration: dict[str, Any]) -> Iterator[WrongError]:
    for key, value in toleration.items():
        if key not in _TOLERATION:
            yield WrongError(_says(name, key, f"one of {', '.join(_TOLERATION)}"))
        elif (allowed := _TOLERATION[key]) is not None and value not in allowed:
            yield WrongError(_says(f"{name}.{key}", value, f"one of {', '.join(allowed)}"))
        elif not isinstance(value, int if key == "tolerationSeconds" else str):
            yield WrongError(_says(f"{name}.{key}", value, "a number" if key == "tolerationSeconds" else "text"))
    if not toleration.get("key") and toleration.get("operator") != "Exists":
        yield WrongError(f"`{name}` has no `key`.", "Name the taint's key, or say `operator: Exists` for all taints.")


def _is_part(text: str) -> bool:
    return bool(_PART.fullmatch(text)) and len(text) <= LONGEST


def _is_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and all(_is_part(part) for part in text.split("."))


def _is_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    return bool(_LABEL.fullmatch(name)) and len(name) <= LONGEST and (not slash or _is_name(prefix))


def _is_egress(text: str) -> bool:
    if text.startswith(EGRESS_NAMESPACE):
        return _is_part(text.removeprefix(EGRESS_NAMESPACE))
    found = _EGRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        return False
    try:
        return not found["network"] or bool(ip_network(found["network"]))
    except ValueError:
        return False
