"""The log of a run on a cluster: from its pod while there is one, else from the parts that the runner left."""

import time
from collections.abc import Iterator

from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.job_board import JobBoard
from mlstack.drivers.kubernetes.job_follow import first_pod
from mlstack.drivers.kubernetes.job_objects import STAGE_CONTAINER
from mlstack.drivers.remote_run.results import read_log, read_remote_run
from mlstack.runner.record import End, Heartbeat
from mlstack.runner.store import Store
from mlstack.state.state import RemoteHandle

_EVERY = 1.0


def run_log(handle: RemoteHandle, attempt: int, *, kube: Kube, board: JobBoard, store: Store) -> Iterator[bytes]:
    """Yield what an attempt has written so far, masked, line by line."""
    job, namespace = handle.place["job"], handle.place["namespace"]
    pod = first_pod(board.look(job)[1])
    lines = (line + b"\n" for line in kube.log(pod, namespace, container=STAGE_CONTAINER)) if pod else iter(())
    found = False
    for line in lines:
        found = True
        yield line
    if not found:
        yield kept_log(handle, attempt, store)


def growing_log(handle: RemoteHandle, attempt: int, *, kube: Kube, board: JobBoard, store: Store) -> Iterator[bytes]:
    """Yield what an attempt writes until it is over; before it begins, say why it waits.

    A pod that a queue takes out again has a successor, whose log goes on behind.
    """
    job, namespace = handle.place["job"], handle.place["namespace"]
    shown, said = None, ""
    while True:
        seen, pods = board.see(job)
        pod = first_pod(pods)
        if seen.phase == "running" and pod not in (None, shown):
            shown = pod
            yield from (line + b"\n" for line in kube.log(str(pod), namespace, container=STAGE_CONTAINER, follow=True))
        elif seen.phase in {"waiting", "starting"} and seen.said != said:
            said = seen.said
            yield f"mlstack: {said}\n".encode()
        elif seen.phase not in {"waiting", "starting", "running"}:
            if shown is None:
                yield from run_log(handle, attempt, kube=kube, board=board, store=store)
            return
        time.sleep(_EVERY)


def kept_log(handle: RemoteHandle, attempt: int, store: Store) -> bytes:
    """Return the log of an attempt as the runner left it in the remote; empty if it left none."""
    run = read_remote_run(store, handle.prefix)
    records: list[End | Heartbeat] = [*run.ends, *([run.heartbeat] if run.heartbeat is not None else [])]
    names = [each.name for each in records if each.attempt == attempt] or [each.name for each in records]
    return read_log(store, handle.prefix, names[-1])[0] if names else b""
