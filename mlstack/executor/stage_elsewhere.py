"""One run of one stage elsewhere: claim, submit or follow, retry by cause, take the result over.

Nothing of it needs this machine: inputs come from the remote by hash and outputs stay there. Whoever claims the run
next, from wherever, finds it by its record.
"""

from collections.abc import Callable
from hashlib import sha256

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.base import RunResult
from mlstack.drivers.elsewhere import RemoteOrder, RemoteResult, SupportsRemoteRun
from mlstack.drivers.remote_run.order import held_inputs
from mlstack.drivers.retry import Tries
from mlstack.executor.claims import claim_run
from mlstack.executor.recording import Computed
from mlstack.executor.stage_run import inputs_changed, stage_failed
from mlstack.executor.walk import LeftRunningError, NotBegunError, StepError
from mlstack.executor.work import Work
from mlstack.graph.change import Action
from mlstack.graph.graph import EntryKey, LockEntry
from mlstack.spec.spec import Model, Stage
from mlstack.state.state import RunRecord


def run_elsewhere(work: Work, stage: Stage, key: EntryKey, fingerprint: str) -> LockEntry:
    """Carry a stage to its result elsewhere, and take that over.

    Raises `StepError` with the end of the log, `LeftRunningError` when it goes on without us.
    """
    runner = work.hands.remote_runner(stage)
    assert runner is not None  # noqa: S101 - asked before
    claim, is_inherited = claim_run(work, stage, fingerprint)
    is_followed = is_inherited and claim.remote is not None and _is_worth_following(work, claim)
    how: Computed = "follow" if is_followed else "run"
    order = _order(work, stage, key, claim)
    if not is_followed:
        found = _made_before(work, runner, order)
        if found is not None:
            work.store.update_run(msgspec.structs.replace(claim, status="cancelled", ended_at=work.now()))
            return found
        _check_code(work, order)
    claim = _Attempts(work, runner, order, claim).carry_out(is_followed=is_followed)
    return _collect(work, runner, order, claim, how=how)


def bring_result(work: Work, stage: Stage, entry: LockEntry) -> None:
    """Make the workspace hold a result: of a stage that runs elsewhere only what Git keeps, the rest when asked."""
    wanted = entry.digests()
    if work.hands.remote_runner(stage) is not None:
        in_git = {out.path for out in stage.outs if not out.cache}
        wanted = {path: digest for path, digest in wanted.items() if path in in_git}
    work.hands.results.bring(wanted, say=work.say(stage.address))


def _is_worth_following(work: Work, claim: RunRecord) -> bool:
    runner = work.hands.remote_runner_of(claim)
    if runner is None:
        return False
    outcome = runner.outcome(claim)
    return outcome.goes_on or outcome.ended_well


def _order(work: Work, stage: Stage, key: EntryKey, claim: RunRecord) -> RemoteOrder:
    image, runner = work.image_of(stage.address), work.runner_image_of(stage.address)
    if image is None or runner is None:
        raise StepError(_no_image(work, stage))
    # Somebody who wants a run although it is done gets one of his own; whoever takes his claim over finds the same.
    again = ""
    if stage.always or work.views[stage.address].forced:
        again = sha256(f"{claim.claimed_at} {claim.apply_id}".encode()).hexdigest()[:8]
    return work.hands.remote_order(stage, key, image=image, runner=runner, again=again)


def _made_before(work: Work, runner: SupportsRemoteRun, order: RemoteOrder) -> LockEntry | None:
    """Take a result over that is in the remote although nobody here knew: of another clone, of a killed apply."""
    if order.again:
        return None
    found = runner.result(runner.handle_of(order), order.key)
    if found is None:
        return None
    address = order.stage.address
    work.refine(work.planned[address], Action.RESTORE, "its result is in the remote")
    return _adopt(work, order.stage, found)


def _check_code(work: Work, order: RemoteOrder) -> None:
    """See that what travels with the code is what was planned; what travels by hash cannot be anything else."""
    held = held_inputs(order.stage, order.graph, root=order.root)
    plain = tuple(dep for dep in order.key.deps if dep.path not in held)
    changed = work.hands.changed_inputs(msgspec.structs.replace(order.key, deps=plain))
    if changed:
        raise StepError(inputs_changed(order.stage, changed))


class _Attempts:
    """The attempts at one run."""

    def __init__(self, work: Work, runner: SupportsRemoteRun, order: RemoteOrder, claim: RunRecord) -> None:
        self._work, self._runner, self._order, self._claim = work, runner, order, claim
        self._stage = order.stage
        self._say = work.say(order.stage.address)
        self._tries = Tries(order.stage.retry)

    def carry_out(self, *, is_followed: bool) -> RunRecord:
        """Run until it succeeds or the retry rules are used up; return the record of the attempt that did."""
        off_spot = False
        while True:
            if not is_followed:
                self._submit(off_spot=off_spot)
            is_followed = False
            runner = self._work.hands.remote_runner_of(self._claim) or self._runner  # its pool may have moved since
            result = self._wait(runner)
            if result is None:
                raise LeftRunningError(_left(self._stage, self._claim))
            self._see_whose_it_is()
            if result.cause is None:
                return self._claim
            if self._is_cancelled():
                self._give_up(msgspec.structs.replace(result, cause="cancelled", detail="it was cancelled"))
            if self._work.interrupt.draining.is_set() or not self._tries.again(result.cause):
                self._give_up(result)
            off_spot = self._tries.is_last(result.cause)
            self._say(f"{result.detail or result.cause}; another attempt begins")

    def _wait(self, runner: SupportsRemoteRun) -> RunResult | None:
        """Follow the attempt. Whoever may not look at it any more, or cannot, is told that it goes on."""
        with self._work.tenure.apart(self._say):
            try:
                return runner.wait(self._stage, self._claim, say=self._say, is_left=self._is_left())
            except MlstackError as error:
                goes_on = msgspec.structs.replace(_left(self._stage, self._claim), severity=Severity.WARNING)
                raise MlstackError(*error.diagnostics, goes_on, exit_code=error.exit_code) from error

    def _record(self) -> RunRecord | None:
        """Return what is recorded of the run by now."""
        runs = self._work.store.runs(self._stage.address)
        return next((run for run in runs if run.fingerprint == self._claim.fingerprint), None)

    def _is_cancelled(self) -> bool:
        """Whether somebody has called `mlstack cancel` meanwhile."""
        record = self._record()
        return record is not None and record.status == "cancelled"

    def _see_whose_it_is(self) -> None:
        """Leave the run to the apply that took it over while we did not hold the lock: on another machine, say."""
        record = self._record()
        if record is not None and record.apply_id != self._claim.apply_id:
            raise LeftRunningError(_followed(self._stage, record))

    def _is_left(self) -> Callable[[], bool]:
        work = self._work
        return lambda: work.is_detached or work.interrupt.now.is_set()

    def _submit(self, *, off_spot: bool) -> None:
        """Start the next attempt. The record says how to find it before it is there."""
        work, runner = self._work, self._runner
        if work.interrupt.draining.is_set():
            raise NotBegunError(_left(self._stage, self._claim))
        number = runner.next_attempt(self._order)
        order = msgspec.structs.replace(self._order, attempt=number, off_spot=off_spot)
        work.hands.results.provide(runner.missing_inputs(order), say=self._say)
        handle = runner.handle_of(order)
        self._claim = msgspec.structs.replace(self._claim, status="running", attempt=number, remote=handle)
        work.verify_lock()
        work.store.update_run(self._claim)
        try:
            runner.submit(order, handle, say=self._say)
        except MlstackError as error:
            if not self._may_be_there():
                self._end("failed", detail=error.brief)
            raise

    def _may_be_there(self) -> bool:
        """Whether what could not be submitted may go on all the same: the answer was lost, or nobody answers now.

        Then its record stays, and the next apply asks, and follows it instead of starting another one.
        """
        try:
            outcome = self._runner.outcome(self._claim)
        except MlstackError:
            return True
        return outcome.goes_on or outcome.ended_well

    def _give_up(self, result: RunResult) -> None:
        self._end("cancelled" if result.cause == "cancelled" else "failed", result.exit_code, result.detail)
        raise StepError(stage_failed(self._stage, result, self._claim.attempt), log_tail=result.log_tail)

    def _end(self, status: str, exit_code: int | None = None, detail: str = "") -> None:
        ended = {"status": status, "ended_at": self._work.now(), "exit_code": exit_code, "detail": detail[:500]}
        self._work.store.update_run(msgspec.structs.replace(self._claim, **ended))


def _collect(
    work: Work, runner: SupportsRemoteRun, order: RemoteOrder, claim: RunRecord, *, how: Computed
) -> LockEntry:
    """Take the result over. One that cannot be (a full disk) is left to the next apply, which finds it."""
    from mlstack.drivers.remote_run.traces import keep_traces

    stage = order.stage
    assert claim.remote is not None  # noqa: S101 - it was submitted
    found = runner.result(claim.remote, order.key)
    if found is None:
        ended = {"status": "failed", "ended_at": work.now(), "detail": "its result is not in the remote"}
        work.store.update_run(msgspec.structs.replace(claim, **ended))
        raise StepError(_no_result(stage, claim))
    entry = _adopt(work, stage, found)
    keep_traces(stage, claim, work.hands.order_of(stage, claim).folder, resources=order.resources, image=order.image)
    metrics = work.hands.metrics_of(stage.address, entry)
    work.recording.ran(stage.address, entry, at=work.now(), metrics=metrics, how=how)
    work.store.update_run(msgspec.structs.replace(claim, status="done", ended_at=work.now(), exit_code=0))
    return entry


def _adopt(work: Work, stage: Stage, found: RemoteResult) -> LockEntry:
    say = work.say(stage.address)
    entry = work.hands.results.adopt(stage.address, found, say=say)
    if work.graph.spec.signing is not None:  # a signature is made of the bytes
        models = {model.out for model in work.graph.spec.of(Model).values() if model.stage == stage.address}
        signed = {path: digest for path, digest in entry.digests().items() if path in models}
        work.hands.results.obtain(signed, say=say)
    return entry


# ---------------------------------------------------------------------------------------------------- words


def _left(stage: Stage, claim: RunRecord) -> Diagnostic:
    where = claim.remote.place.get("job", "") if claim.remote is not None else ""
    return Diagnostic(
        code="run-goes-on",
        summary="The run goes on without mlstack",
        detail=f"{where or claim.fingerprint[:12]} carries it out; the next apply follows it and takes its result.",
        hint="To see what it writes:",
        command=f"mlstack logs -f {stage.address}",
        address=stage.address,
    )


def _followed(stage: Stage, theirs: RunRecord) -> Diagnostic:
    return Diagnostic(
        code="run-followed-elsewhere",
        summary="Another apply follows the run now",
        detail=f"apply {theirs.apply_id} on {theirs.host} took it over, and takes its result.",
        hint="Apply again when that is done: the result will be restored.",
        command="mlstack status",
        address=stage.address,
    )


def _no_image(work: Work, stage: Stage) -> Diagnostic:
    images = [work.graph.image_of.get(stage.address), work.graph.runner_of.get(stage.address)]
    return Diagnostic(
        code="image-not-recorded",
        summary="An image that the run needs is not known",
        detail=f"{', '.join(sorted(each for each in images if each))}: not recorded in this environment.",
        hint="Leave out --target or --exclude, so that what it needs is made too.",
        address=stage.address,
    )


def _no_result(stage: Stage, claim: RunRecord) -> Diagnostic:
    return Diagnostic(
        code="result-not-in-remote",
        summary="The run has ended, and its result is not in the remote",
        detail=f"Of {claim.fingerprint[:12]} there is no result, or some of its outputs are gone.",
        hint="See that nothing else cleans the remote up, and apply again.",
        command=f"mlstack logs {stage.address}",
        address=stage.address,
    )
