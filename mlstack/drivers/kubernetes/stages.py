"""Stages as Jobs of a cluster: started so that they outlive mlstack, followed by whoever comes along, from anywhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOutcome, RunResult, Say
from mlstack.drivers.elsewhere import RemoteOrder, RemoteResult
from mlstack.drivers.kubernetes.client import Kube, Manifest
from mlstack.drivers.kubernetes.job_board import JobBoard
from mlstack.drivers.kubernetes.job_follow import Attempt, JobWatch, first_pod, has_failed
from mlstack.drivers.kubernetes.job_log import growing_log, run_log
from mlstack.drivers.kubernetes.job_objects import ATTEMPT, STAGE_CONTAINER, WORK, job_name
from mlstack.drivers.kubernetes.job_preflight import check_stages
from mlstack.drivers.kubernetes.job_status import is_up, judge
from mlstack.drivers.kubernetes.job_submit import (
    Bundles,
    absent_inputs,
    create_objects,
    make_plan,
    open_project_remote,
    prefix_of,
)
from mlstack.drivers.kubernetes.names import FINGERPRINT, labels_of
from mlstack.drivers.kubernetes.place import TARGET, place_of, recorded_client
from mlstack.drivers.kubernetes.placement import check_accelerators
from mlstack.drivers.kubernetes.settings import read_settings
from mlstack.drivers.remote_run.remote import explained, open_remote
from mlstack.drivers.remote_run.results import executable_outs, lock_entry, read_remote_run
from mlstack.graph.change import Change
from mlstack.graph.graph import EntryKey, ResourceGraph, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.runner.layout import RunKeys, blob_key
from mlstack.runner.order import Remote
from mlstack.runner.side_by_side import side_by_side
from mlstack.runner.store import Store
from mlstack.spec.spec import Pool, Stage
from mlstack.state.state import RemoteHandle, RunRecord


class KubernetesStages:
    """Runs stages as Jobs. `root` is the project's folder: kubeconfig and remote are found from there."""

    name = TARGET

    def __init__(self, *, root: Path | None = None) -> None:
        self._root = root if root is not None else Path.cwd()
        self._bundles = Bundles()
        self._lock = Lock()
        self._boards: dict[str, tuple[Kube, JobBoard]] = {}

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        """Say whether this stage could run there, as far as that is known without asking the cluster."""
        del stage
        try:
            return check_accelerators(pool, read_settings(pool))
        except MlstackError as error:
            return error.diagnostics

    def preflight(self, rows: Sequence[Change], graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Ask remote and cluster whether these stages could run: they answer, and allow it."""
        return list(check_stages(rows, graph, root=self._root))

    # ------------------------------------------------------------------------------------------------ starting

    def handle_of(self, order: RemoteOrder) -> RemoteHandle:
        """Return how the run will be found again."""
        remote, _ = open_project_remote(order)
        settings = read_settings(order.pool)
        place = place_of(settings, order.graph.spec).attributes()
        job = job_name(order.stage.address, fingerprint(order.key), order.attempt)
        kept = {"kept": str(int(settings.kept_for))} if settings.kept_for else {}
        return RemoteHandle(
            target=self.name,
            place={
                **{name: str(value) for name, value in place.items()},
                "pool": order.pool.address,
                "job": job,
                **kept,
            },
            store=remote.url,
            config=remote.config,
            prefix=prefix_of(order),
        )

    def next_attempt(self, order: RemoteOrder) -> int:
        """Return the number of the next attempt: one more than any that the remote or the cluster knows.

        One that is at work although nothing tells so (its record was lost, its start was not answered) is the next one:
        there is no second copy beside it.
        """
        handle = self.handle_of(order)
        with explained():
            keys = [each.key for each in _store(handle).listing(RunKeys(handle.prefix).attempts)]
        numbers = [int(name[:4]) for key in keys if (name := key.rpartition("attempts/")[2])[:4].isdigit()]
        kube, _ = self._cluster(handle)
        spec = order.graph.spec
        labels = labels_of(spec.project, spec.environment, order.stage.address)
        labels |= {FINGERPRINT: fingerprint(order.key)[:12]}
        jobs = kube.listing("Job", handle.place["namespace"], labels=labels)
        at_work = [] if order.again else [number for each in jobs if (number := _at_work(each)) is not None]
        if at_work and not ("kept" in handle.place and _failed_attempts(handle) & set(at_work)):
            return max(at_work)
        numbers += [_number(each) for each in jobs]
        return max(numbers, default=0) + 1

    def missing_inputs(self, order: RemoteOrder) -> Mapping[str, FileDigest]:
        """Return the inputs that travel by hash and are not in the remote yet (path → digest)."""
        return absent_inputs(order, open_project_remote(order)[1])

    def submit(self, order: RemoteOrder, handle: RemoteHandle, *, say: Say) -> None:
        """Start the attempt; a Job of its name that is there already is the one."""
        remote, store = open_project_remote(order)
        plan = make_plan(order, store, remote, bundles=self._bundles, say=say)
        kube, _ = self._cluster(handle)
        self._end_earlier(order, handle, kube)
        is_made = create_objects(plan, kube, root=self._root)
        say(f"Job {plan.name} is {'made' if is_made else 'there already'} in namespace {plan.namespace}")

    def _end_earlier(self, order: RemoteOrder, handle: RemoteHandle, kube: Kube) -> None:
        """End earlier attempts at this stage that are still there, kept for a look: the new one needs their room."""
        if "kept" not in handle.place:
            return
        spec = order.graph.spec
        labels = labels_of(spec.project, spec.environment, order.stage.address)
        for job in kube.listing("Job", handle.place["namespace"], labels=labels):
            name = str(job["metadata"]["name"])
            is_other = name != handle.place["job"]
            if is_other and judge(job, [{}]).phase not in {"failed", "succeeded"}:
                kube.delete("Job", name, handle.place["namespace"])

    def failed_shell(self, run: RunRecord) -> Sequence[str]:
        """Return the command that opens a shell where an attempt has failed. Raises `MlstackError` when it is gone."""
        handle = _handle(run)
        _, board = self._cluster(handle)
        pod = first_pod([each for each in board.look(handle.place["job"])[1] if is_up(each)])
        if pod is None:
            raise MlstackError(_nothing_kept(run))
        options = [f"--{name}={handle.place[name]}" for name in ("context", "kubeconfig") if handle.place.get(name)]
        where = ["--namespace", handle.place["namespace"], "exec", "-it", pod, "-c", STAGE_CONTAINER, "--"]
        return ["kubectl", *options, *where, "/bin/sh", "-c", f"cd {WORK}/project && exec ${{SHELL:-/bin/sh}}"]

    # ------------------------------------------------------------------------------------------------ following

    def wait(self, stage: Stage, run: RunRecord, *, say: Say, is_left: Callable[[], bool]) -> RunResult | None:
        """Follow an attempt to its end, whoever started it; None when `is_left` says so before."""
        handle = _handle(run)
        kube, board = self._cluster(handle)
        windows = [rule.window for rule in stage.retry if rule.cause == "no-capacity"]
        attempt = Attempt(
            job=handle.place["job"],
            namespace=handle.place["namespace"],
            number=run.attempt,
            prefix=handle.prefix,
            capacity_window=windows[0] if windows else None,
            is_kept="kept" in handle.place,
        )
        watch = JobWatch(attempt, board, kube, _store(handle))
        result = watch.follow(say=say, is_left=is_left)
        if watch.is_stuck:  # it would go on as soon as it could, beside the next attempt
            self._delete(handle)
        return result

    def log(self, run: RunRecord, *, follow: bool) -> Iterator[bytes]:
        """Yield what an attempt has written, masked; with `follow` also what it writes until it is over."""
        handle = _handle(run)
        kube, board = self._cluster(handle)
        read = growing_log if follow else run_log
        yield from read(handle, run.attempt, kube=kube, board=board, store=_store(handle))

    def outcome(self, run: RunRecord) -> RunOutcome:
        """Say how far a run is: the remote knows of a success, the cluster of what goes on."""
        handle, made = _handle(run), RunOutcome(ended_well=True, said="its result is in the remote")
        if _is_made(handle):
            return made
        seen, _ = self._cluster(handle)[1].see(handle.place["job"])
        match seen.phase:
            case "waiting" | "starting" | "running" as phase if not self._has_failed(run, handle):
                return RunOutcome(goes_on=True, phase=phase, said=seen.said)
            case _ if _is_made(handle):  # it ended after the remote was asked
                return made
            case "gone":
                return RunOutcome(said="its Job is gone")
            case _:
                return RunOutcome(said=seen.said or "it failed")

    def result(self, handle: RemoteHandle, key: EntryKey) -> RemoteResult | None:
        """Return what the run has made, if it is done and all of it is in the remote."""
        store = _store(handle)
        end = read_remote_run(store, handle.prefix).result
        if end is None:
            return None
        with explained():
            sizes = side_by_side(lambda out: store.size(blob_key(out.md5)), end.outs)
        if any(size is None for size in sizes):
            return None
        return RemoteResult(entry=lock_entry(end, key), executable=executable_outs(end))

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        """Stop a run: its pods get the grace that they were made with. One that is already over succeeds."""
        del grace
        self._delete(_handle(run))

    def _delete(self, handle: RemoteHandle) -> None:
        kube, _ = self._cluster(handle)
        kube.delete("Job", handle.place["job"], handle.place["namespace"])

    def _has_failed(self, run: RunRecord, handle: RemoteHandle) -> bool:
        """Whether an attempt whose pod is kept has failed long ago."""
        return "kept" in handle.place and run.attempt in _failed_attempts(handle)

    def _cluster(self, handle: RemoteHandle) -> tuple[Kube, JobBoard]:
        """Return the cluster of a run, connected once, and what is known of its runs."""
        place = {name: handle.place.get(name, "") for name in ("namespace", "context", "kubeconfig", "in_cluster")}
        key = "\0".join(place.values())
        with self._lock:
            if key not in self._boards:
                kube = recorded_client(place, root=self._root)
                self._boards[key] = kube, JobBoard(kube, place["namespace"])
            return self._boards[key]


def _at_work(job: Manifest) -> int | None:
    """Return the number of the attempt that a Job carries out; None if it is over, or on its way out."""
    is_over = job["metadata"].get("deletionTimestamp") or judge(job, [{}]).phase in {"failed", "succeeded"}
    return None if is_over else _number(job)


def _number(job: Manifest) -> int:
    return int(job["metadata"]["labels"].get(ATTEMPT, 0))


def _failed_attempts(handle: RemoteHandle) -> set[int]:
    """Return the attempts that have failed as the remote knows: the Jobs of those that are kept do not say so."""
    return {end.attempt for end in read_remote_run(_store(handle), handle.prefix).ends if has_failed(end)}


def _nothing_kept(run: RunRecord) -> Diagnostic:
    return Diagnostic(
        code="nothing-kept",
        summary="There is no failed pod to look into",
        detail=f"The pod of {run.address} ({run.fingerprint[:12]}, attempt {run.attempt}) does not run any more.",
        hint="Have failed pods kept, and let it fail again: `targets: {kubernetes: {keep_failed: 1h}}`.",
        address=run.address,
    )


def _is_made(handle: RemoteHandle) -> bool:
    with explained():
        return _store(handle).size(RunKeys(handle.prefix).result) is not None


def _store(handle: RemoteHandle) -> Store:
    return open_remote(Remote(url=handle.store, config=handle.config))


def _handle(run: RunRecord) -> RemoteHandle:
    if run.remote is None:
        raise MlstackError(
            Diagnostic(
                code="run-without-handle",
                summary="It is not known where this run is",
                detail=f"The record of {run.address} ({run.fingerprint[:12]}) names no cluster.",
                hint="Use the version of mlstack that recorded it, or a newer one.",
                address=run.address,
            )
        )
    return run.remote
