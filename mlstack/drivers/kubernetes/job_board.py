"""Jobs and pods of one namespace as they are now, read once for all who follow one of them."""

import time
from collections.abc import Callable, Mapping
from threading import Lock

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.client import Kube, Manifest
from mlstack.drivers.kubernetes.job_status import Seen, judge
from mlstack.drivers.kubernetes.pool_names import ROLE, RUN
from mlstack.drivers.kubernetes.refusals import may_pass

EVERY = 1.0
"""Seconds between two looks, however many runs are followed."""
_JOB = "batch.kubernetes.io/job-name"
_OWNER = "batch.kubernetes.io/controller-uid"
_JOB_UID = "kueue.x-k8s.io/job-uid"


class JobBoard:
    """What runs of a namespace are doing. May be used by many threads. Raises `MlstackError` as the client does."""

    def __init__(self, kube: Kube, namespace: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube, self._namespace, self._clock = kube, namespace, clock
        self._lock = Lock()
        self._began_at = self._ended_at = float("-inf")
        self._problem: MlstackError | None = None
        self._jobs: Mapping[str, Manifest] = {}
        self._pods: dict[str, list[Manifest]] = {}
        self._workloads: dict[str, Manifest] = {}

    def look(self, job: str, *, fresh: bool = False) -> tuple[Manifest | None, list[Manifest]]:
        """Return a Job, None if there is none, and its pods; `fresh`: as they are after this call began.

        Whoever waits here while somebody reads takes what that gives, if it began late enough: two hundred that begin
        to follow at once cost one reading.
        """
        asked_at = self._clock()
        with self._lock:
            is_due = fresh or self._clock() - self._ended_at >= EVERY
            if is_due and self._began_at <= asked_at:
                self._read()
            if self._problem is not None:
                raise self._problem
            return self._one(job)

    def _one(self, name: str) -> tuple[Manifest | None, list[Manifest]]:
        """Return a Job and its own pods: one of a lost node may outlive the Job, and have its successor's name."""
        job, pods = self._jobs.get(name), self._pods.get(name, [])
        uid = job["metadata"].get("uid") if job is not None else None
        return job, [each for each in pods if uid in (None, each["metadata"]["labels"].get(_OWNER, uid))]

    def see(self, name: str) -> tuple[Seen, list[Manifest]]:
        """Say how far the attempt of a Job is, and return its pods."""
        job, pods = self.look(name)
        found = judge(job, pods, workload=self.workload_of(job), now=time.time())
        if found.told_by:
            events = self._kube.events_of(found.told_by, self._namespace)
            found = judge(job, pods, events, workload=self.workload_of(job), now=time.time())
        if found.is_unexplained:
            pods = self.pods_of_ended(name)
            found = judge(job, pods, now=time.time())
        return found, pods

    def pods_of_ended(self, name: str) -> list[Manifest]:
        """Return the pods of a Job that was seen to be over: those read before it may have been at work still."""
        return self.look(name, fresh=True)[1]

    def workload_of(self, job: Manifest | None) -> Manifest | None:
        """Return what Kueue knows of a Job that waits in its queue, as it was when that was read."""
        return self._workloads.get(str(((job or {}).get("metadata") or {}).get("uid")))

    def _read(self) -> None:
        self._began_at, self._problem = self._clock(), None
        try:
            self._jobs, self._pods = self._listed()
            self._workloads = self._queued()
        except MlstackError as error:
            self._problem = error
        self._ended_at = self._clock()

    def _listed(self) -> tuple[Mapping[str, Manifest], dict[str, list[Manifest]]]:
        # Pods first: a Job that is over when it is read has pods that are at least as old.
        selector = f"{ROLE}={RUN}"
        pods: dict[str, list[Manifest]] = {}
        for pod in self._kube.listing("Pod", self._namespace, labels=selector):
            pods.setdefault(pod["metadata"]["labels"].get(_JOB, ""), []).append(pod)
        jobs = self._kube.listing("Job", self._namespace, labels=selector)
        return {each["metadata"]["name"]: each for each in jobs}, pods

    def _queued(self) -> dict[str, Manifest]:
        """Return Kueue's objects by the Job's uid, if a Job waits; none where they may not be seen."""
        if not any((job.get("spec") or {}).get("suspend") for job in self._jobs.values()):
            return {}
        try:
            found = self._kube.listing("Workload", self._namespace)
        except MlstackError as error:
            if may_pass(error):
                raise
            return {}
        return {(each["metadata"].get("labels") or {}).get(_JOB_UID, ""): each for each in found}
