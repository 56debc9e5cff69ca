"""Following an attempt to its end: what its pods write, why they wait, how it ended."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Cause, RunResult, Say
from mlstack.drivers.kubernetes.client import Kube, Manifest
from mlstack.drivers.kubernetes.job_board import EVERY, JobBoard
from mlstack.drivers.kubernetes.job_lines import LogLines
from mlstack.drivers.kubernetes.job_status import Seen, judge
from mlstack.drivers.kubernetes.refusals import Patience, may_pass
from mlstack.drivers.remote_run.remote import explained
from mlstack.drivers.remote_run.results import as_run_result, read_remote_run, tail_of
from mlstack.runner.record import End
from mlstack.runner.store import Store

PATIENCE: dict[str, float] = {"image-pull": 60.0, "error": 60.0, "no-capacity": 1800.0}
"""For how many seconds an attempt may be stuck before that counts as its failure."""
UNREACHABLE_FOR = 600.0
"""Seconds for which a cluster that does not answer is asked again: a run goes on without us."""
_SILENT = 10.0  # seconds without a pod that runs after which events are read
_EVENTS_EVERY = 5.0  # seconds between two such readings
_SAID_AGAIN = 30.0  # seconds after which it is said once more why nothing happens; then after twice as long
_LAST_LINES = 20.0  # seconds for which the last lines of a pod that has ended are waited for
_KEPT_EVERY = 5.0  # seconds between two questions to the remote whether a pod that is kept has failed


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as it is followed: where it is, and until when it may wait for room (seconds)."""

    job: str
    namespace: str
    number: int
    prefix: str
    capacity_window: float | None = None
    is_kept: bool = False


class JobWatch:
    """Follows one attempt."""

    def __init__(self, attempt: Attempt, board: JobBoard, kube: Kube, store: Store) -> None:
        self._attempt, self._board, self._kube, self._store = attempt, board, kube, store
        self.is_stuck = False
        self._nodes: set[str] = set()
        self._stuck_since: dict[str, float] = {}
        self._began = time.monotonic()
        self._last_said, self._again_at, self._pause = "", 0.0, _SAID_AGAIN
        self._asked_remote_at = 0.0
        self._events: list[Manifest] = []
        self._events_again_at = 0.0

    def follow(self, *, say: Say, is_left: Callable[[], bool]) -> RunResult | None:
        """Return how it ended; None when `is_left` says so before. Raises `MlstackError` when nobody answers."""
        logs = PodLog(self._attempt, self._board, self._kube, say=say)
        patience, is_first = Patience(UNREACHABLE_FOR, passes=_may_pass), True
        try:
            while not is_left():
                try:
                    result = self._look(say, logs, fresh=is_first)
                    is_first = False
                    if patience.answered():
                        self._tell(say, "there is an answer again: following goes on")
                except MlstackError as error:
                    if not patience.has(error):
                        raise
                    self._tell(say, f"no answer, asking again (the run goes on): {error.diagnostics[0].detail}")
                    result = None
                if result is not None:
                    return result
                time.sleep(EVERY)
            return None
        finally:
            logs.stop()

    def _look(self, say: Say, logs: "PodLog", *, fresh: bool) -> RunResult | None:
        job, pods = self._board.look(self._attempt.job, fresh=fresh)
        self._nodes |= {node for pod in pods if (node := (pod.get("spec") or {}).get("nodeName"))}
        workload, now = self._board.workload_of(job), time.time()
        seen = judge(job, pods, workload=workload, now=now)
        if seen.told_by:
            seen = judge(job, pods, self._events_of(seen.told_by), workload=workload, now=now)
        if seen.is_unexplained:
            pods = self._board.pods_of_ended(self._attempt.job)
            seen = judge(job, pods, now=now)
        match seen.phase:
            case "succeeded" | "failed" | "gone":
                logs.finish()
                return self._ended(seen if pods or seen.phase != "failed" else self._with_its_node(seen))
            case "running":
                logs.start(pods)
                self._stuck_since.clear()
                return self._kept()
            case _:
                if seen.said:
                    self._tell(say, seen.said)
                return self._stuck(seen)

    def _events_of(self, name: str) -> list[Manifest]:
        """Return the events of a Job without a pod, of a pod that only starts, once that takes long."""
        now = time.monotonic()
        if now - self._began > _SILENT and now >= self._events_again_at:
            self._events = self._kube.events_of(name, self._attempt.namespace)
            self._events_again_at = now + _EVENTS_EVERY
        return self._events

    def _with_its_node(self, seen: Seen) -> Seen:
        """Say of an attempt whose pods are gone whether that is because a node is: it takes its pods along."""
        for node in sorted(self._nodes):
            try:
                is_gone = self._kube.get("Node", node) is None
            except MlstackError as error:
                if _may_pass(error):
                    raise
                continue  # who may not look at nodes takes it for preempted
            if is_gone:
                return msgspec.structs.replace(seen, cause="node-lost", said=f"its node {node} is gone")
        return seen

    def _tell(self, say: Say, line: str) -> None:
        now, is_new = time.monotonic(), line != self._last_said
        if is_new or now >= self._again_at:
            self._pause = _SAID_AGAIN if is_new else self._pause * 2
            self._last_said, self._again_at = line, now + self._pause
            say(line)

    def _stuck(self, seen: Seen) -> RunResult | None:
        if seen.stuck is None:
            self._stuck_since.clear()
            return None
        since = self._stuck_since.setdefault(seen.stuck, time.monotonic())
        patience = PATIENCE.get(seen.stuck, 60.0)
        if seen.stuck == "no-capacity" and self._attempt.capacity_window is not None:
            patience = self._attempt.capacity_window
        if not seen.for_good and time.monotonic() - since < patience:
            return None
        self.is_stuck = True
        return RunResult(exit_code=None, cause=seen.stuck, detail=seen.said)

    def _kept(self) -> RunResult | None:
        """Say how an attempt ended whose pod is kept for whoever wants to look."""
        now = time.monotonic()
        if not self._attempt.is_kept or now - self._asked_remote_at < _KEPT_EVERY:
            return None
        self._asked_remote_at = now
        end = self._end()
        return self._result(end, None) if end is not None and has_failed(end) else None

    def _ended(self, seen: Seen) -> RunResult:
        end = self._end()
        if end is not None and end.cause is None:
            return RunResult(exit_code=0, seconds=end.phases.get("run", 0.0))
        if seen.phase == "succeeded":
            return RunResult(exit_code=0)
        if seen.phase == "gone":
            said = "its Job was removed from the cluster"
            return self._result(end, Seen(phase="gone", cause="preempted", said=said))
        return self._result(end, seen)

    def _result(self, end: End | None, seen: Seen | None) -> RunResult:
        """Put together what the runner knows of its end, and what the cluster knows and the runner cannot."""
        cause: Cause = seen.cause if seen is not None and seen.cause is not None else "error"
        said = seen.said if seen is not None else ""
        if end is None:
            return RunResult(exit_code=None, cause=cause, detail=said)
        with explained():
            tail = tail_of(self._store, self._attempt.prefix, end)
        found = as_run_result(end, log_tail=tail)
        if end.cause == "stopped":  # somebody asked it to end, and it was not us
            taken: Cause = cause if cause in {"node-lost", "out-of-memory", "timeout"} else "preempted"
            return msgspec.structs.replace(found, cause=taken, detail=said or "it was asked to end")
        if cause == "out-of-memory":
            return msgspec.structs.replace(found, cause=cause, detail=said)
        return found

    def _end(self) -> End | None:
        """Return how the attempt ended, as its pods have told the remote: the success, else the first failure."""
        run = read_remote_run(self._store, self._attempt.prefix)
        if run.result is not None:
            return run.result
        mine = [end for end in run.ends if end.attempt == self._attempt.number]
        return min(mine, key=lambda end: (end.cause == "stopped", end.ended), default=None)


class PodLog:
    """Hands on what the pod of the first node writes, from a thread of its own."""

    def __init__(self, attempt: Attempt, board: JobBoard, kube: Kube, *, say: Say) -> None:
        self._attempt, self._board, self._kube, self._say = attempt, board, kube, say
        self._thread: Thread | None = None
        self._lines: LogLines | None = None
        self._refused_by: str | None = None
        self._stopped = Event()

    def start(self, pods: list[Manifest]) -> None:
        """Begin, if that has not happened yet, or go on where it broke off; begin anew with another pod."""
        pod = first_pod(pods)
        if pod in (None, self._refused_by) or (self._thread is not None and self._thread.is_alive()):
            return
        if self._lines is None or self._lines.pod != pod:
            self._lines = LogLines(self._kube, str(pod), self._attempt.namespace)
        self._thread = Thread(target=self._copy, args=(self._lines,), daemon=True, name=f"log of {pod}")
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last lines of a pod that has ended."""
        if self._thread is not None:
            self._thread.join(_LAST_LINES)

    def stop(self) -> None:
        """Hand on nothing more."""
        self._stopped.set()

    def _copy(self, lines: LogLines) -> None:
        try:
            for line in lines.more():
                if self._stopped.is_set():
                    return
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._say(text)
        except MlstackError as error:  # the run goes on without its log being seen
            if not _may_pass(error):
                self._refused_by = lines.pod
                self._say(f"its log cannot be followed: {error.diagnostics[0].detail}")


def first_pod(pods: list[Manifest]) -> str | None:
    """Return the name of the pod of the first node."""

    def index(pod: Any) -> int:
        return int(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", 0))

    found = sorted(pods, key=index)
    return str(found[0]["metadata"]["name"]) if found else None


def has_failed(end: End) -> bool:
    """Whether a pod that is kept ended so: one that was asked to end is not kept, and a queue may let it in again."""
    return end.cause not in (None, "stopped")


def _may_pass(error: MlstackError) -> bool:
    return may_pass(error) or all(each.code == "remote-unusable" for each in error.diagnostics)
