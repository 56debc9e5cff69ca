"""One run of one stage: claim, start or follow, retry by cause, commit.

A run is found by its fingerprint, so that two appliers never run one thing twice, and a run whose applier died is
followed or collected by the next one.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOrder, RunResult, SupportsRun
from mlstack.drivers.open_runs import OPEN, in_tree, is_owner_alive, result_of, run_goes_on
from mlstack.drivers.retry import Tries
from mlstack.executor.claims import claim_run
from mlstack.executor.recording import Computed
from mlstack.executor.walk import NotBegunError, StepError
from mlstack.executor.work import Work
from mlstack.graph.change import Action
from mlstack.graph.graph import EntryKey, LockEntry, StageInputs
from mlstack.spec.spec import Stage
from mlstack.state.identity import host_name
from mlstack.state.runs import RunCancelledError
from mlstack.state.state import RunRecord


def run_stage(work: Work, stage: Stage, key: EntryKey, fingerprint: str) -> LockEntry:
    """Carry a stage to its result on this machine and put that into the cache.

    Raises `StepError` with the end of the log, `NotBegunError` when told to stop before its turn came.
    """
    with ExitStack() as around:
        with ExitStack() as share:
            variables = _admitted(work, stage)
            if variables is None:
                raise NotBegunError(_interrupted(stage))
            share.callback(work.hands.admission.leave, stage)
            tell_process = around.enter_context(
                work.hands.results.occupied(
                    stage.address,
                    run=fingerprint[:12],
                    say=work.say(stage.address),
                    stop=work.interrupt.draining.is_set,
                )
            )
            if tell_process is None:
                raise NotBegunError(_interrupted(stage))
            made = _made_meanwhile(work, stage, key)
            if made is not None:
                return made
            claim, is_inherited = claim_run(work, stage, fingerprint)
            if is_inherited and _is_collectable(work, claim):
                claim = _follow(work, stage, claim, tell_process)
            else:
                _end_orphans(work, claim, is_inherited=is_inherited)
                _bring_inputs(work, stage, key)
                work.hands.results.prepare(stage.address)
                claim = _attempts(work, stage, claim, variables, tell_process)
        entry = _collect(work, stage, key, claim)
    metrics = work.hands.metrics_of(stage.address, entry)
    how: Computed = "follow" if is_inherited else "run"
    work.recording.ran(stage.address, entry, at=work.now(), metrics=metrics, how=how)
    return entry


def _made_meanwhile(work: Work, stage: Stage, key: EntryKey) -> LockEntry | None:
    """Return the result that a `dvc repro` of the user has made while this stage waited, and bring it."""
    if stage.always or work.views[stage.address].forced:
        return None
    entry = work.hands.results.lookup(stage.address, key)
    if entry is not None:
        work.refine(work.planned[stage.address], Action.RESTORE, "its result was made meanwhile")
        work.hands.results.bring(entry.digests(), say=work.say(stage.address))
    return entry


def _collect(work: Work, stage: Stage, key: EntryKey, claim: RunRecord) -> LockEntry:
    """Put a result into the cache. One that is there and cannot be kept (a full disk) is left to the next apply."""
    is_lost = True
    try:
        _check_inputs(work, stage, key)
        is_lost = not all((work.root / out.path).exists() for out in work.graph.stages[stage.address].outs)
        entry = work.hands.results.commit(stage.address, key)
    except MlstackError as error:
        if is_lost:
            work.store.update_run(
                msgspec.structs.replace(claim, status="failed", ended_at=work.now(), exit_code=0, detail=str(error))
            )
        raise
    work.store.update_run(msgspec.structs.replace(claim, status="done", ended_at=work.now(), exit_code=0))
    return entry


def _admitted(work: Work, stage: Stage) -> Mapping[str, str] | None:
    """Wait for room, and say so; None when told to stop."""
    waited: list[str] = []
    report = work.waits(stage.address)

    def on_wait(room: str) -> None:
        waited.append(room)
        report(room)

    with work.tenure.apart(work.say(stage.address)):
        variables = work.hands.admission.admit(stage, stop=work.interrupt.draining.is_set, on_wait=on_wait)
    if waited and variables is not None:
        report("")
    return variables


def _check_inputs(work: Work, stage: Stage, key: EntryKey) -> None:
    changed = work.hands.changed_inputs(key)
    if changed:
        raise StepError(inputs_changed(stage, changed))


# ---------------------------------------------------------------------------------------------------- claim


def _is_collectable(work: Work, claim: RunRecord) -> bool:
    """Whether an inherited run still goes on, or ended well and its outputs were left alone since."""
    if run_goes_on(claim):
        return True
    result = result_of(claim)
    if result is None or result.exit_code != 0:
        return False
    outs = work.graph.stages[claim.address].outs
    return all(_untouched(work.root / out.path, since=result.ended) for out in outs)


def _end_orphans(work: Work, claim: RunRecord, *, is_inherited: bool) -> None:
    """End what is left of runs of this stage whose applier and whose own process were killed.

    Nobody can say how such a command ends, so its result is worth nothing; and it writes to the same outputs.
    """
    if is_inherited and claim.host == host_name():
        work.hands.runner_of(claim).cancel(claim, grace=0.0)
    for run in (in_tree(run, work.root) for run in work.store.runs(claim.address)):
        is_open = run.status in OPEN and run.host == host_name() and run.fingerprint != claim.fingerprint
        if is_open and not is_owner_alive(run) and not run_goes_on(run):
            work.hands.runner_of(run).cancel(run, grace=0.0)
            work.store.update_run(msgspec.structs.replace(run, status="cancelled", ended_at=work.now()))


def _untouched(path: Path, *, since: float) -> bool:
    try:
        newest = max(
            (os.lstat(Path(folder) / name).st_mtime for folder, _, names in os.walk(path) for name in names),
            default=os.lstat(path).st_mtime,
        )
    except OSError:
        return False
    return newest <= since


# ---------------------------------------------------------------------------------------------------- run


def _attempts(
    work: Work, stage: Stage, claim: RunRecord, variables: Mapping[str, str], tell_process: Callable[[int], None]
) -> RunRecord:
    """Run until it succeeds or the retry rules are used up."""
    tries, attempt = Tries(stage.retry), 1
    while True:
        say = work.say(stage.address)
        image = work.image_of(stage.address)
        order = work.hands.order(stage, claim.fingerprint, attempt=attempt, extra=variables, say=say, image=image)
        runner = work.hands.runner(stage)
        pid, started = runner.start(order)
        claim = msgspec.structs.replace(
            claim, status="running", pid=pid, started=started, folder=str(order.folder), attempt=attempt
        )
        try:
            work.store.update_run(claim)
        except RunCancelledError:  # right before it began: whoever did so found nothing to end
            runner.cancel(claim, grace=0.0)
            raise
        tell_process(pid)
        with work.tenure.apart(say):
            result = runner.wait(order, claim, say=say, stop=work.interrupt.now)
        if result.cause is None:
            return claim
        again = not work.interrupt.draining.is_set() and tries.again(result.cause)
        if not again:
            _give_up(work, stage, claim, order, result)
        attempt += 1
        say(f"{result.detail or result.cause}; attempt {attempt} begins")
        work.hands.results.prepare(stage.address)


def _follow(work: Work, stage: Stage, claim: RunRecord, tell_process: Callable[[int], None]) -> RunRecord:
    """Wait for a run that another applier started."""
    order = work.hands.order_of(stage, claim)
    runner: SupportsRun = work.hands.runner_of(claim)  # its pool may have got another target since
    if claim.pid is not None and claim.host == host_name():
        tell_process(claim.pid)
    say = work.say(stage.address)
    with work.tenure.apart(say):
        result = runner.wait(order, claim, say=say, stop=work.interrupt.now)
    if result.cause is not None:
        _give_up(work, stage, claim, order, result)
    return claim


def _give_up(work: Work, stage: Stage, claim: RunRecord, order: RunOrder, result: RunResult) -> None:
    cancelled = result.cause == "cancelled"
    work.store.update_run(
        msgspec.structs.replace(
            claim,
            status="cancelled" if cancelled else "failed",
            ended_at=work.now(),
            exit_code=result.exit_code,
            detail=result.detail,
        )
    )
    log = str(order.folder / "log.txt")
    if cancelled:
        raise StepError(_interrupted(stage), log_tail=result.log_tail, log=log)
    raise StepError(stage_failed(stage, result, claim.attempt), log_tail=result.log_tail, log=log)


def _bring_inputs(work: Work, stage: Stage, key: EntryKey) -> None:
    """Make the workspace hold what the stage reads, and see that it does."""
    inputs: StageInputs = work.graph.stages[stage.address]
    produced = {dep.path for dep in inputs.deps if dep.producer is not None and dep.digest is None}
    wanted = {dep.path: dep.digest for dep in key.deps if dep.path in produced}
    work.hands.results.bring(wanted, say=work.say(stage.address))
    _check_inputs(work, stage, key)


# ---------------------------------------------------------------------------------------------------- words


def stage_failed(stage: Stage, result: RunResult, attempt: int) -> Diagnostic:
    """Say that a stage failed, and how."""
    how = {
        "timeout": "It ran longer than `timeout.run` allows.",
        "hang": "It was silent for longer than `timeout.hang` allows.",
        "out-of-memory": "It ran out of memory.",
        "preempted": "Its place was taken away.",
        "node-lost": "Its node was lost.",
        "no-capacity": "There was no room for it.",
        "image-pull": "Its image could not be pulled.",
    }.get(result.cause or "", f"Its command ended with exit code {result.exit_code}.")
    tries = f" (attempt {attempt})" if attempt > 1 else ""
    detail = f"{result.detail or how}{tries}"
    if result.cause == "image-pull":
        return Diagnostic(
            code="image-not-pulled",
            summary="A node cannot pull an image",
            detail=f"{stage.address} did not begin: {detail}",
            hint="See that nodes reach the registry, and may read there: `image_pull_secret` names a Secret with a "
            "login.",
            address=stage.address,
        )
    return Diagnostic(
        code="stage-failed",
        summary="The stage failed",
        detail=detail,
        hint="Its outputs are not recorded. The whole log:",
        command=f"mlstack logs {stage.address}",
        address=stage.address,
    )


def inputs_changed(stage: Stage, paths: tuple[str, ...]) -> Diagnostic:
    """Say that the workspace does not hold what was planned."""
    return Diagnostic(
        code="inputs-changed",
        summary="An input changed while the plan was carried out",
        detail=f"{', '.join(paths)}: the content is not the one that was planned, so the result is not recorded.",
        hint="Plan again. If the stage itself writes there: have it write to an output of its own.",
        command="mlstack plan",
        address=stage.address,
    )


def _interrupted(stage: Stage) -> Diagnostic:
    kept = "; its checkpoint is kept" if stage.checkpoint is not None else ""
    return Diagnostic(
        code="stage-interrupted",
        summary="The stage was stopped",
        detail=f"You asked to stop now. Nothing of this run is recorded{kept}.",
        hint="Apply again to run it.",
        command="mlstack apply",
        address=stage.address,
    )
