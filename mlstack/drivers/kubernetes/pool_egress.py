"""Where the pods of a pool may go beside names and each other: the remote, whom credentials come from, `egress`. Pure.

Each destination is a text: `CIDR:PORT`, `:PORT` (anywhere) or `namespace/NAME` (every pod of a namespace). The last is
for Services of the cluster: policies look at a packet when its address is a pod's already and its port the pod's own,
so that neither the address nor the port of a Service means anything to them.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlstack.drivers.kubernetes.names import EGRESS_NAMESPACE
from mlstack.drivers.kubernetes.place import place_of, pods_remote
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.runner.store import CREDENTIALS, plain_name
from mlstack.spec.spec import Spec

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Every namespace has its own name under this label: the API server sees to it."""

_HTTPS = ":443"
_METADATA = "169.254.169.254/32:80"
"""Where a machine of AWS, Google and Azure gets the credentials of its role."""
_IDENTITIES = {
    "s3": (_METADATA, "169.254.170.23/32:80"),  # the second: EKS' agent of pod identities
    "gs": (_METADATA, "169.254.169.252/32:988"),  # the second: where GKE leads the first to
    "azure": (_METADATA,),
}


def egress_of(settings: KubernetesSettings, spec: Spec, *, root: Path) -> list[str]:
    """Return what the pods of a pool may reach: the remote, who gives them credentials for it, what the file says."""
    remote = pods_remote(settings, spec, root=root)
    return sorted({*settings.egress, *_remote(settings, spec, remote), *_identity(settings, remote)})


def egress_rule(text: str) -> dict[str, Any]:
    """Return the rule of a NetworkPolicy for a destination."""
    if text.startswith(EGRESS_NAMESPACE):
        labels = {NAMESPACE_LABEL: text.removeprefix(EGRESS_NAMESPACE)}
        return {"to": [{"namespaceSelector": {"matchLabels": labels}}]}
    network, _, port = text.rpartition(":")
    rule: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": int(port)}]}
    if network:
        rule["to"] = [{"ipBlock": {"cidr": network}}]
    return rule


def _remote(settings: KubernetesSettings, spec: Spec, remote: Mapping[str, Any]) -> Iterator[str]:
    endpoint = store_endpoint(settings, remote)
    if not endpoint:
        yield _HTTPS
        return
    place = urlsplit(endpoint)
    host, port = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    try:
        address = ip_address(host)
    except ValueError:
        yield f":{port}"
        yield from _service(host, place_of(settings, spec).namespace)
    else:
        yield f"{address}/{address.max_prefixlen}:{port}"


def store_endpoint(settings: KubernetesSettings, remote: Mapping[str, Any]) -> str:
    """Return the URL at which pods find the store ("": its cloud's own), as the runner does: variables go first."""
    for name, value in sorted(settings.remote_env.items()):
        if plain_name(name.removeprefix(CREDENTIALS).lower()).startswith("endpoint") and isinstance(value, str):
            return value
    return str(remote.get("config", {}).get("endpoint", ""))


def _service(host: str, namespace: str) -> Iterator[str]:
    """Yield the namespace of a Service that pods may mean by this name."""
    match host.split("."):
        case [_]:
            yield f"{EGRESS_NAMESPACE}{namespace}"
        case [_, other] | [_, other, "svc", *_]:
            yield f"{EGRESS_NAMESPACE}{other}"


def _identity(settings: KubernetesSettings, remote: Mapping[str, Any]) -> Iterator[str]:
    """Yield who gives credentials to pods that are given none."""
    if settings.service_account is not None:
        yield _HTTPS  # a token of the service account is exchanged at the cloud
    has_own = any(not isinstance(value, str) for value in settings.remote_env.values())
    if remote and not has_own and (settings.service_account is not None or not store_endpoint(settings, remote)):
        scheme = str(remote["url"]).partition("://")[0]
        yield from _IDENTITIES.get(scheme, ())
