"""What is done at each kind of address. A step ends with its result observed and in the journal."""

from collections.abc import Iterable
from typing import NoReturn

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Driver, StepContext
from mlstack.drivers.shared import served_contents, why_shared
from mlstack.drivers.stacks import UNIT, StackDriver
from mlstack.executor.stack_steps import make_in_stack, remove_from_stack
from mlstack.executor.stage_elsewhere import bring_result, run_elsewhere
from mlstack.executor.stage_run import run_stage
from mlstack.executor.walk import Finished, StepError
from mlstack.executor.work import Outcome, Work
from mlstack.graph.change import Action, Change, Reason
from mlstack.graph.graph import EntryKey, LockEntry
from mlstack.graph.outputs import fill_endpoint, fill_stage
from mlstack.planner.models import judge
from mlstack.planner.plan import Step
from mlstack.planner.resources import diff_resource
from mlstack.planner.stages import Decision, is_run_for
from mlstack.spec.address import Kind
from mlstack.spec.spec import Dataset, Endpoint, Image, Model, Pool, Stage
from mlstack.state.state import Record, RunRecord

_GRACE = 10.0


def carry_out(work: Work, step: Step) -> Finished:
    """Carry out one step. Raises `MlstackError` when it fails."""
    with work.tenure.at_work(work.say(step.address)):
        return _carry_out(work, work.planned[step.address])


def _carry_out(work: Work, change: Change) -> Finished:
    work.others.check(change)
    work.journal("step-started", change)
    try:
        outcome = _by_kind(work, change)
    except MlstackError as error:
        try:
            work.journal("step-failed", change, Outcome(detail=error.brief[:500]))
        except MlstackError as unrecorded:  # a full disk, a store that does not answer: mostly why it failed, too
            new = [each for each in unrecorded.diagnostics if each not in error.diagnostics]
            raise MlstackError(*error.diagnostics, *new, exit_code=error.exit_code) from error
        raise
    work.journal("step-done", change, outcome)
    if outcome.record is not None:
        work.learn_record(outcome.record)
    if outcome.lock_entry is not None:
        # After the journal: a kill in between loses nothing, the next command lays the entry over `dvc.lock`.
        gone = (change.previous_address,) if change.previous_address is not None else ()
        work.hands.results.record({change.address: outcome.lock_entry}, forget=gone)
        work.learn(change.address, outcome.lock_entry)
    return Finished(action=work.done_as(change), detail=outcome.detail)


def _by_kind(work: Work, change: Change) -> Outcome:
    if change.action is Action.DELETE:
        return _delete(work, change)
    if change.action is Action.FORGET and change.kind is not Kind.STAGE:
        return _forget(work, change)
    resource = work.graph.resources.get(change.address)
    match change.kind:
        case Kind.DATASET if isinstance(resource, Dataset):
            return _dataset(work, change, resource)
        case Kind.STAGE if isinstance(resource, Stage):
            return _stage(work, change, resource)
        case Kind.STAGE:
            return _undeclared_stage(work, change)
        case Kind.MODEL if isinstance(resource, Model):
            return _model(work, change, resource)
        case Kind.IMAGE if isinstance(resource, Image):
            return _image(work, change, resource)
        case Kind.POOL | Kind.ENDPOINT if isinstance(resource, Pool | Endpoint):
            return _standing(work, change, resource)
        case _:
            message = f"{change.address}: no step for {change.action} of {change.kind}"
            raise AssertionError(message)


# ---------------------------------------------------------------------------------------------------- data and stages


def _dataset(work: Work, change: Change, dataset: Dataset) -> Outcome:
    detail = "tracked by Git"
    if dataset.address in work.graph.datasets:
        digest = work.hands.results.add_dataset(dataset, say=work.say(change.address))
        work.recording.added(dataset, digest, at=work.now())
        work.learn_digest(dataset.path, digest)
        detail = digest.md5[:12]
    if change.before is not None:
        work.hands.forget_dataset(change.address, str(change.before["path"]))
    return Outcome(detail=detail)


def _stage(work: Work, change: Change, stage: Stage) -> Outcome:
    if work.plan.scope.destroy:
        _cancel_superseded(work, change)
        return Outcome(detail="cancelled")
    decision = _refined(work, change)
    _cancel_superseded(work, change)
    key, entry = decision.key, decision.entry
    if key is None or decision.fingerprint is None:
        _more_unknown(change)
    match decision.action:
        case Action.NO_OP | Action.UPDATE:
            return Outcome(lock_entry=entry, detail="unchanged" if decision.action is Action.NO_OP else "redefined")
        case Action.ACCEPT:
            view = work.views[change.address]
            if entry is not None:
                work.recording.accepted(change.address, entry, view.acceptance, before=view.reading.recorded)
            return Outcome(lock_entry=entry, detail="accepted")
        case Action.MOVE:
            return Outcome(lock_entry=entry, detail=f"was {change.previous_address}")
        case Action.CANCEL:
            return Outcome(lock_entry=entry, detail="cancelled")
        case Action.RESTORE if entry is not None:
            bring_result(work, stage, entry)
            metrics = work.hands.metrics_of(change.address, entry)
            work.recording.found(change.address, entry, at=work.now(), metrics=metrics)
            _publish(work, stage, entry)
            return Outcome(lock_entry=entry, detail="restored")
        case _:
            run = run_stage if work.hands.remote_runner(stage) is None else run_elsewhere
            made = run(work, fill_stage(stage, key), key, decision.fingerprint)
            _publish(work, stage, made)
            return Outcome(lock_entry=made)


def _publish(work: Work, stage: Stage, entry: LockEntry) -> None:
    """Push before the lock: should the commit of `dvc.lock` be lost, the next plan restores, and runs nothing."""
    if work.graph.spec.results == "on-merge" and not stage.always:
        work.hands.results.publish_result(stage.address, entry, say=work.say(stage.address))


def _undeclared_stage(work: Work, change: Change) -> Outcome:
    _cancel(work, change, work.running.get(change.address, ()))
    if change.action is Action.CANCEL:
        return Outcome(detail="cancelled")
    work.hands.results.record({}, forget=(change.address,))
    return Outcome(detail="forgotten; its bytes stay in the cache")


def _refined(work: Work, change: Change) -> Decision:
    """Decide again with what is known by now: an upstream stage may have given what it gave before."""
    decision = work.decide(change.address)
    if decision.action in (Action.RUN, Action.FOLLOW) and decision.key is not None:
        cached = None if work.views[change.address].forced else _lookup(work, change, decision.key)
        if cached is not None and not work.views[change.address].stage.always:
            decision = msgspec.structs.replace(decision, action=Action.RESTORE, entry=cached)
    because = "its inputs turned out to be unchanged" if decision.action is Action.NO_OP else _words(decision.reasons)
    work.refine(change, decision.action, because)
    return decision


def _lookup(work: Work, change: Change, key: EntryKey) -> LockEntry | None:
    # A plan that knew the key has looked already; what has come since belongs to somebody else's apply.
    return work.hands.results.lookup(change.address, key)


def _words(reasons: tuple[Reason, ...]) -> str:
    return ", ".join(f"{reason.code.value} {reason.subject}".strip() for reason in reasons)


def _more_unknown(change: Change) -> NoReturn:
    raise StepError(
        Diagnostic(
            code="input-unknown",
            summary="An input of the stage is not known",
            detail="What it needs was neither recorded nor made by this apply.",
            hint="Leave out --target or --exclude, so that what it needs is made too.",
            address=change.address,
        )
    )


def _cancel_superseded(work: Work, change: Change) -> None:
    """Cancel runs for other inputs than the stage has now: they write to the same outputs. To destroy: every run."""
    view = work.views[change.address]
    wanted = None if work.plan.scope.destroy else work.decide(change.address).fingerprint
    _cancel(work, change, [run for run in view.runs if not is_run_for(view, run, wanted)])


def _cancel(work: Work, change: Change, runs: Iterable[RunRecord]) -> None:
    view = work.views.get(change.address)
    grace = view.stage.checkpoint.grace if view is not None and view.stage.checkpoint else _GRACE
    for run in runs:
        (work.hands.remote_runner_of(run) or work.hands.runner_of(run)).cancel(run, grace=grace)
        claim = msgspec.structs.replace(run, status="cancelled", ended_at=work.now())
        work.store.update_run(claim)


# ------------------------------------------------------------------------------------------- models and endpoints


def _model(work: Work, change: Change, model: Model) -> Outcome:
    results = judge(model, work.metrics())
    missed = tuple(result.sentence() for result in results if not result.met)
    if missed:
        raise StepError(
            Diagnostic(
                code="gate-not-met",
                summary="A gate of the model is not met",
                detail=f"{'; '.join(missed)}.",
                hint="The model is recorded, but nothing that needs it goes on. Make it better, or move the gate.",
                address=change.address,
            )
        )
    version = work.version_of(model)
    work.learn_version(model.address, version)
    return Outcome(detail=f"version {version[:12]}")


def _standing(work: Work, change: Change, resource: Pool | Endpoint) -> Outcome:
    return _pool(work, change, resource) if isinstance(resource, Pool) else _endpoint(work, change, resource)


def _pool(work: Work, change: Change, pool: Pool) -> Outcome:
    driver = work.hands.stack_driver(pool)
    assert driver is not None  # noqa: S101 - pools of this machine have no rows that do something
    record = work.records.get(change.previous_address or change.address)
    return make_in_stack(work, change, pool, driver, record=record)


def _endpoint(work: Work, change: Change, endpoint: Endpoint) -> Outcome:
    record = work.records.get(change.previous_address or change.address)
    if record is not None and change.previous_address is not None:
        record = msgspec.structs.replace(record, address=change.address)
    endpoint = _filled(work, endpoint)
    stacked = work.hands.stack_driver(endpoint)
    if stacked is not None:
        return _endpoint_in_stack(work, change, endpoint, stacked, record)
    driver = work.hands.driver(endpoint)
    maker = driver if record is None else work.hands.driver_named(record.driver)
    actual = diff_resource(
        change.address,
        desired=driver.desired(endpoint, work.graph, work.versions()),
        record=record,
        observation=maker.read(endpoint, record),
        forced=change.action is Action.REPLACE,
    )
    if actual.action is Action.NO_OP and change.action is Action.MOVE:
        return Outcome(record=record, detail=f"was {change.previous_address}")
    if actual.action is Action.NO_OP and record is not None and record.protect is not endpoint.protect:
        kept = msgspec.structs.replace(record, protect=endpoint.protect, version=record.version + 1)
        return Outcome(record=kept, detail="protected" if kept.protect else "not protected any more")
    if actual.action is Action.NO_OP:
        work.refine(change, Action.NO_OP, "what it needs turned out to be the same")
        return Outcome(record=record, detail="unchanged")
    if not (change.action is Action.CREATE or actual.action is Action.CREATE):
        work.refine(change, actual.action, _words(actual.reasons))
    _have_models(work, change, endpoint)
    made = _make_endpoint(work, actual, endpoint, record, driver)
    version = record.version + 1 if record is not None else 1
    needs = work.graph.needs.get(change.address, ())
    made = msgspec.structs.replace(made, version=version, needs=needs, protect=endpoint.protect)
    return Outcome(record=made, detail=str(made.attributes.get("url", "")))


def _endpoint_in_stack(
    work: Work, change: Change, endpoint: Endpoint, driver: StackDriver, record: Record | None
) -> Outcome:
    """Pods fetch models by hash, so these have to be in the remote. What another driver made ends when it is ready."""
    say = work.say(change.address)
    work.hands.results.publish(served_contents(endpoint, work.graph, work.versions()), say=say)
    is_own = record is None or record.driver == driver.name
    outcome = make_in_stack(work, change, endpoint, driver, record=record if is_own else None)
    if record is not None and not is_own:
        _end(work, change, record)
    return outcome


def _make_endpoint(work: Work, change: Change, endpoint: Endpoint, record: Record | None, driver: Driver) -> Record:
    """Have the driver make it. What another driver has made before (of another target) ends when the new one is up."""
    is_own = record is None or record.driver == driver.name
    context = StepContext(
        root=work.root,
        graph=work.graph,
        resource=endpoint,
        record=record if is_own else None,
        versions=work.versions(),
        say=work.say(change.address),
        stop=work.interrupt.now,
        foreign=None if is_own else record,
        image=work.image_of(change.address),
    )
    if record is not None and not is_own:
        context.end_foreign = lambda: _end(work, change, record)
    made = driver.apply(change, context)
    context.end_foreign()  # what is gone already is no problem
    return made


def _image(work: Work, change: Change, image: Image) -> Outcome:
    record = work.records.get(change.address)
    context = StepContext(
        root=work.root,
        graph=work.graph,
        resource=image,
        record=record,
        versions={},
        say=work.say(change.address),
        stop=work.interrupt.now,
    )
    made = work.hands.driver(image).apply(change, context)
    made = msgspec.structs.replace(made, version=record.version + 1 if record is not None else 1)
    return Outcome(record=made, detail=str(made.attributes.get("reference", "")))


def _filled(work: Work, endpoint: Endpoint) -> Endpoint:
    """Put in what other resources give, which is all known by now."""
    filled = fill_endpoint(endpoint, work.graph, work.outputs())
    missing = sorted({output.name for each in filled.computed.values() for output in each.outputs})
    if missing:
        raise StepError(
            Diagnostic(
                code="output-unknown",
                summary="A value that the endpoint needs is not known",
                detail=f"{', '.join(missing)}: what gives it was neither recorded nor made by this apply.",
                hint="Leave out --target or --exclude, so that what it needs is made too.",
                address=endpoint.address,
            )
        )
    return filled


def _have_models(work: Work, change: Change, endpoint: Endpoint) -> None:
    """Have what the endpoint serves on this machine, and in the remote if others rely on the environment."""
    served = served_contents(endpoint, work.graph, work.versions())
    say = work.say(change.address)
    work.hands.results.obtain(served, say=say)
    if why_shared(work.graph):
        work.hands.results.publish(served, say=say)


def _forget(work: Work, change: Change) -> Outcome:
    if change.kind is not Kind.DATASET:
        return Outcome(removed=True)
    work.hands.forget_dataset(change.address, str((change.before or {}).get("path", "")))
    return Outcome(detail="its data stays where it is")


def _delete(work: Work, change: Change) -> Outcome:
    record = work.records.get(change.address)
    if record is None and not change.parts:
        return Outcome(removed=True, detail="already gone")
    _end(work, change, record)
    return Outcome(removed=True)


def _end(work: Work, change: Change, record: Record | None) -> None:
    """End what a record stands for, whoever made it; without one, what a killed apply has left in a stack."""
    if record is None or UNIT in record.attributes:
        remove_from_stack(work, change, record)
        return
    context = StepContext(
        root=work.root,
        graph=work.graph,
        resource=None,
        record=record,
        versions={},
        say=work.say(change.address),
        stop=work.interrupt.now,
    )
    work.hands.driver_named(record.driver).delete(record, context)
