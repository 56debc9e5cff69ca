"""Jobs and pods of one namespace as they are now, read once for all who follow one of them."""

import time
from collections.abc import Callable, Mapping
from threading import Lock

from mlstack.drivers.kubernetes.client import Kube, Manifest
from mlstack.drivers.kubernetes.pool_names import ROLE, RUN

EVERY = 1.0
"""Seconds between two looks, however many runs are followed."""
_JOB = "batch.kubernetes.io/job-name"


class JobBoard:
    """What runs of a namespace are doing. May be used by many threads. Raises `MlstackError` as the client does."""

    def __init__(self, kube: Kube, namespace: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube, self._namespace, self._clock = kube, namespace, clock
        self._lock = Lock()
        self._read_at = float("-inf")
        self._jobs: Mapping[str, Manifest] = {}
        self._pods: dict[str, list[Manifest]] = {}

    def look(self, job: str, *, fresh: bool = False) -> tuple[Manifest | None, list[Manifest]]:
        """Return a Job, None if there is none, and its pods; `fresh`: as they are after this call began."""
        with self._lock:
            if fresh or self._clock() - self._read_at >= EVERY:
                self._read()
            return self._jobs.get(job), self._pods.get(job, [])

    def _read(self) -> None:
        # Pods first: a Job that is over when it is read has pods that are at least as old.
        selector = f"{ROLE}={RUN}"
        pods: dict[str, list[Manifest]] = {}
        for pod in self._kube.listing("Pod", self._namespace, labels=selector):
            pods.setdefault(pod["metadata"]["labels"].get(_JOB, ""), []).append(pod)
        jobs = self._kube.listing("Job", self._namespace, labels=selector)
        self._jobs = {each["metadata"]["name"]: each for each in jobs}
        self._pods = pods
        self._read_at = self._clock()
