"""Asking an endpoint on a cluster, and reading what it writes, from wherever mlstack runs."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Send
from mlstack.drivers.kubernetes.endpoint_pod import SERVER
from mlstack.drivers.kubernetes.names import object_name
from mlstack.drivers.kubernetes.place import recorded_client
from mlstack.spec.address import Address
from mlstack.state.state import Record

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest


def sender_for(record: Record, *, root: Path, timeout: float, token: str | None) -> Send | None:
    """Return how an endpoint is asked by way of the API server; None where its URL can be used as it is.

    That is one with a host of an Ingress or a Gateway: the name of a Service is known inside of its cluster only.
    """
    known = record.attributes
    if (known.get("route") or {}).get("host") or known.get("in_cluster"):
        return None
    client = recorded_client(known, root=root, address=record.address)
    name, namespace = object_name(record.address), str(known.get("namespace", ""))

    # The API server takes `Authorization` for its own, and hands it on to nobody.
    headers = {"X-Mlstack-Authorization": f"Bearer {token}"} if token is not None else {}

    def send(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        del method  # a request with a body is a POST, as the protocol has it
        answer = client.through_service(name, namespace, "http", path, body=body, headers=headers, within=timeout)
        is_endpoints = 'realm="mlstack"' in answer.headers.get("www-authenticate", "")
        is_missing = answer.status == 404 and b'"kind":"Status"' in answer.data
        if is_missing or (answer.status in (401, 403) and not is_endpoints):
            raise MlstackError(_not_asked(record.address, client, answer.status, answer.data))
        return answer.status, answer.data

    return send


def log_of(record: Record, *, root: Path, follow: bool, lines: int | None) -> Iterator[bytes]:
    """Yield what the servers of an endpoint write; where there are several, each line begins with its pod's name.

    Raises `MlstackError` when there are none.
    """
    client = recorded_client(record.attributes, root=root, address=record.address)
    namespace = str(record.attributes.get("namespace", ""))
    deployment = client.get("Deployment", object_name(record.address), namespace)
    selector: Mapping[str, str] = deployment["spec"]["selector"]["matchLabels"] if deployment is not None else {}
    pods = client.listing("Pod", namespace, labels=selector) if selector else []
    if not pods:
        raise MlstackError(_no_pods(record.address, namespace))
    names = [str(pod["metadata"]["name"]) for pod in sorted(pods, key=_age)]

    def read(name: str) -> Iterator[bytes]:
        prefix = f"{name}: ".encode() if len(names) > 1 else b""
        for line in client.log(name, namespace, container=SERVER, follow=follow, tail=lines):
            yield prefix + line + b"\n"

    if not follow or len(names) == 1:
        for name in names:
            yield from read(name)
        return
    yield from _side_by_side([read(name) for name in names])


def _side_by_side(streams: list[Iterator[bytes]]) -> Iterator[bytes]:
    """Yield the lines of several streams as they come."""
    queue: SimpleQueue[bytes | None] = SimpleQueue()

    def pump(stream: Iterator[bytes]) -> None:
        with suppress(MlstackError):  # that pod has gone; the others go on
            for line in stream:
                queue.put(line)
        queue.put(None)

    for stream in streams:
        Thread(target=pump, args=(stream,), daemon=True).start()
    left = len(streams)
    while left:
        line = queue.get()
        if line is None:
            left -= 1
        else:
            yield line


def _age(pod: "Manifest") -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _not_asked(address: Address, client: "Kube", status: int, data: bytes) -> Diagnostic:
    import json

    with suppress(ValueError):
        found: Any = json.loads(data)
        data = str(found.get("message", "")).encode() if isinstance(found, dict) else data
    return Diagnostic(
        code="endpoint-unreachable",
        summary="The endpoint does not answer",
        detail=f"Asked by way of {client.connection.server}: {data.decode(errors='replace').strip()} (HTTP {status}).",
        hint="Asking takes the right to get and create `services/proxy`, or a way of its own: `ingress`, `gateway`.",
        address=address,
    )


def _no_pods(address: Address, namespace: str) -> Diagnostic:
    return Diagnostic(
        code="no-log",
        summary="There is no log",
        detail=f"{address}: there is no pod of it in the namespace {namespace}.",
        command=f"kubectl get events -n {namespace}",
        address=address,
    )
