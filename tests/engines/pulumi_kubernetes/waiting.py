"""Waiting until what was asked for is so, as the real provider does before it calls a resource created or updated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tests.engines.pulumi_kubernetes.cluster import ApiError, Cluster
from tests.engines.pulumi_kubernetes.names import annotation
from tests.engines.pulumi_kubernetes.values import Object

TIMEOUT = 600.0
"""Seconds that a create, update or delete waits where nothing else is said."""

SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
SETTLED = 10.0
"""Seconds without a change of endpoints after which those are taken to be all."""


class NotReadyError(Exception):
    """The object exists, and is not what it should become."""

    def __init__(self, message: str, live: Object, reasons: list[str] | None = None) -> None:
        super().__init__(message)
        self.live = live
        self.reasons = reasons or []


@dataclass
class Verdict:
    """What a look at an object says: whether it is ready, and if not, why."""

    ready: bool
    reasons: list[str]
    failed: bool = False
    """Whether it will never be ready."""
    good_enough: bool = False
    """Whether it counts as ready when the wait ends."""


Look = Callable[["Wait", Object], Verdict]


@dataclass
class Wait:
    """One object that is waited for."""

    cluster: Cluster
    cancelled: threading.Event
    obj: Object
    """As the API server returned it."""
    before: Object | None
    """As it was before an update."""
    timeout: float
    settled: bool = False
    """Whether to take what is seen for what will be, as a refresh does."""

    def items(self, kind: str, version: str = "v1", **query: str) -> list[Object]:
        """The objects of a kind beside this one."""
        path = self.cluster.path(version, kind, self.obj["metadata"].get("namespace", ""))
        listed: list[Object] = self.cluster.request("GET", path, **query)["items"]
        return listed

    def until_ready(self, look: Look) -> Object:
        """Return the object once it is ready.

        Raises:
            NotReadyError: it was not in time, or the wait was cancelled.
        """
        name, path = self.obj["metadata"]["name"], self.cluster.path_of(self.obj, self.obj["metadata"]["name"])
        deadline, pause, live, ended = time.monotonic() + self.timeout, 0.1, self.obj, ""
        while True:
            verdict = look(self, live)
            if verdict.ready or (ended and verdict.good_enough):
                return live
            if verdict.failed:
                raise NotReadyError(f"Resource '{name}' was created but failed to initialize", live, verdict.reasons)
            if ended:
                raise NotReadyError(ended, live, verdict.reasons)
            if self.cancelled.wait(max(0.0, min(pause, deadline - time.monotonic()))):
                ended = f'Resource operation was cancelled for "{name}"'
            elif time.monotonic() >= deadline:
                ended = f"'{name}' timed out waiting to be Ready"
            pause = min(pause * 1.5, 1.0)
            live = self.cluster.request("GET", path)  # once more after the end: the error says how it is then


def timeout_of(inputs: Object, custom: float) -> float:
    """Seconds: the resource option, else the annotation, else ten minutes."""
    if custom:
        return custom
    note = annotation(inputs, TIMEOUT_SECONDS)
    return float(note) if note.lstrip("+-").isdigit() else TIMEOUT


def skips_await(inputs: Object) -> bool:
    """Whether the program asked not to wait."""
    return annotation(inputs, SKIP_AWAIT) == "true"


def until_gone(cluster: Cluster, cancelled: threading.Event, obj: Object, timeout: float) -> None:
    """Wait until an object that was deleted is not there any more.

    Raises:
        NotReadyError: it still is.
    """
    path = cluster.path_of(obj, obj["metadata"]["name"])
    deadline, pause, live = time.monotonic() + timeout, 0.05, obj
    while True:
        try:
            live = cluster.request("GET", path)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return
        if time.monotonic() + pause > deadline:
            raise NotReadyError("timed out waiting for the condition", live)
        if cancelled.wait(pause):
            raise NotReadyError("context canceled", live)
        pause = min(pause * 1.5, 1.0)


def found(obj: Any, *path: str) -> Any:
    """A value inside an object, or None."""
    for step in path:
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj


def condition(obj: Object, kind: str) -> Object:
    """The condition of this type in an object's status, or an empty one."""
    for each in found(obj, "status", "conditions") or []:
        if each.get("type") == kind:
            return dict(each)
    return {}
