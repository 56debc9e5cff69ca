"""Stands in for the runner of stages, whose pods are only played: writes what it would have left in the remote.

As soon as a run's order is in the remote, its outputs and its result are written beside it, and only then its pod is
said to have ended. The Job, its pods, their scheduling, and how mlstack follows them and collects the results are not
played.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import obstore
from obstore.store import S3Store

from mlstack.drivers.kubernetes.names import ADDRESS
from mlstack.drivers.kubernetes.pool_names import ROLE, RUN
from mlstack.runner.layout import RunKeys, blob_key
from mlstack.runner.order import Order, decode_order
from mlstack.runner.record import End, Made, encode_record
from tests.benchmarks.cluster import Cluster
from tests.engines.kube_client import MERGE, KubeApi

_LOOKS_EVERY = 0.5


@contextmanager
def played_runs(cluster: Cluster) -> Iterator[None]:
    """Play runners while the block lasts, one run for an address. Raises what went wrong, when it ends."""
    stop, problems = Event(), []

    def play() -> None:
        try:
            _play(cluster, stop)
        except Exception as error:  # noqa: BLE001 - raised again below: here only the thread would see it
            problems.append(error)

    thread = Thread(target=play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if problems:
        raise problems[0]


def _play(cluster: Cluster, stop: Event) -> None:
    done: dict[str, str] = {}
    while not stop.wait(_LOOKS_EVERY):
        for batch in obstore.list(cluster.bucket):
            for found in batch:
                key = str(found["path"])
                if key.endswith("/order.json") and key not in done:
                    order = decode_order(bytes(obstore.get(cluster.bucket, key).bytes()))
                    _leave(cluster.bucket, key.removesuffix("order.json"), order)
                    done[key] = order.address
        _end_pods(cluster.api, set(done.values()))


def _end_pods(api: KubeApi, addresses: set[str]) -> None:
    """Say of the pods of these stages that they have succeeded, once they are on a node."""
    for pod in api.call("GET", f"/api/v1/pods?labelSelector={ROLE}={RUN}")["items"]:
        known = pod["metadata"]
        if (
            pod["status"]["phase"] == "Pending"
            and "nodeName" in pod["spec"]
            and known["annotations"][ADDRESS] in addresses
        ):
            path = f"/api/v1/namespaces/{known['namespace']}/pods/{known['name']}/status"
            api.call("PATCH", path, {"status": {"phase": "Succeeded"}}, kind=MERGE)


def _leave(store: S3Store, prefix: str, order: Order) -> None:
    """Write every output (its own path is its content), and that the run has ended well."""
    root = prefix.partition("mlstack/runs/")[0]
    made = []
    for out in order.outs:
        content = out.path.encode()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        obstore.put(store, f"{root}{blob_key(md5)}", content)
        made.append(Made(path=out.path, md5=md5, size=len(content)))
    now = time.time()
    end = End(
        address=order.address,
        fingerprint=order.fingerprint,
        attempt=1,
        instance="played",
        cause=None,
        exit_code=0,
        started=now,
        ended=now,
        outs=tuple(made),
        bundle=order.bundle,
    )
    obstore.put(store, RunKeys(prefix).result, encode_record(end))
