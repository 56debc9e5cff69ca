"""Carries out a plan from the first journal line to the history record."""

from collections.abc import Callable

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.executor.events import ApplyEnded, ApplyStarted, Event
from mlstack.executor.stack_steps import contract
from mlstack.executor.steps import carry_out
from mlstack.executor.walk import Walk
from mlstack.executor.work import Work
from mlstack.graph.change import Action
from mlstack.graph.graph import LockEntry
from mlstack.planner.plan import Step
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.state.state import ApplyOutcome, Entry, HistoryRecord, State, StepResult

_GIVING_RESULTS = (Action.RUN, Action.FOLLOW, Action.RESTORE, Action.ACCEPT)


class ApplyResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an apply ended: one result a step, in the order of the plan."""

    outcome: ApplyOutcome
    results: tuple[StepResult, ...]
    written: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    def of(self, outcome: str) -> tuple[StepResult, ...]:
        """Return the results with one outcome."""
        return tuple(result for result in self.results if result.outcome == outcome)


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Who applies, for the history."""

    name: str
    host: str
    operation: str = "apply"
    because: str = ""
    approval: str = ""


def apply(work: Work, *, parallelism: int, who: Who, on_event: Callable[[Event], None]) -> ApplyResult:
    """Carry out the plan in `work`. The caller holds the workspace lock, and the environment's lock at the beginning.

    Whatever happens in a step, the journal, `dvc.lock` and the history are written; an exception that is a bug is
    raised after that. Raises `MlstackError` when they cannot be written (a full disk, a lost lock): what was done is in
    the journal, and the next command goes on from there.
    """
    giving = (change for change in work.plan.changes if change.action in _GIVING_RESULTS or change.may_run)
    work.recording.begin([change.address for change in giving])
    before = work.store.state()
    started_at = work.now()
    work.store.append(
        Entry(
            at=started_at, apply_id=work.apply_id, event="apply-started", plan_digest=work.plan.digest, detail=who.name
        )
    )
    written = _write_definitions(work)
    walk = Walk(
        work.plan.steps,
        lambda step: carry_out(work, step),
        on_event=on_event,
        interrupt=work.interrupt,
        waits=lambda step: work.is_in_stack(step.address) or work.is_elsewhere(step.address),
        goes_on=work.is_elsewhere,
    )
    work.tell = walk.tell
    work.waves.tell_with(lambda address, line: work.say(address)(line))
    walk.tell(ApplyStarted(apply_id=work.apply_id, steps=len(work.plan.steps)))
    with work.tenure:
        results = walk.run(parallelism=parallelism)
    outcome = _outcome(results, interrupted=work.interrupt.draining.is_set())
    problems: tuple[Diagnostic, ...] = ()
    if outcome == "done":
        try:
            contract(work)
        except MlstackError as error:
            outcome, problems = "failed", error.diagnostics
    try:
        _close(work, who, results, outcome, started_at=started_at, before=before)
    except MlstackError:
        outcome = "failed"  # whatever became of the steps: nothing counts as applied that is not recorded as such
        raise
    finally:
        walk.tell(ApplyEnded(outcome=outcome, results=results))
    if walk.fatal is not None:
        raise walk.fatal
    notices = (*work.hands.results.notices, *problems)
    return ApplyResult(outcome=outcome, results=results, written=written, diagnostics=notices)


def _write_definitions(work: Work) -> tuple[str, ...]:
    """Write `dvc.yaml` and its company when a stage is touched: what is moved or forgotten there, and nothing else."""
    touched = {step.address for step in work.plan.steps if _changes_definitions(step)}
    if not touched:
        return ()
    moved = {
        address: (view.moved_from, view.reading.recorded)
        for address, view in work.views.items()
        if view.moved_from is not None and view.reading.recorded is not None
    }
    return tuple(
        work.hands.results.write_definitions(
            moved={address: entry for address, (_, entry) in moved.items()},
            forget=touched | {source for source, _ in moved.values()},
        )
    )


def _changes_definitions(step: Step) -> bool:
    return kind_of(step.address) is Kind.STAGE and step.action is not Action.CANCEL


def _close(
    work: Work,
    who: Who,
    results: tuple[StepResult, ...],
    outcome: ApplyOutcome,
    *,
    started_at: str,
    before: State | None,
) -> None:
    """Put what was done where it belongs, and the whole into the history."""
    work.hands.results.flush()
    work.verify_lock()
    work.store.append(Entry(at=work.now(), apply_id=work.apply_id, event="apply-ended", detail=outcome))
    work.store.compact()
    _add_history(work, who, results, outcome, started_at=started_at, before=before)


def _add_history(
    work: Work,
    who: Who,
    results: tuple[StepResult, ...],
    outcome: ApplyOutcome,
    *,
    started_at: str,
    before: State | None,
) -> None:
    plan, after = work.plan, work.store.state()
    work.store.add_history(
        HistoryRecord(
            id=work.apply_id,
            operation=who.operation,
            who=who.name,
            host=who.host,
            started_at=started_at,
            ended_at=work.now(),
            outcome=outcome,
            commit=plan.commit,
            dirty=plan.dirty,
            plan_digest=plan.digest,
            serial_before=before.serial if before else 0,
            serial_after=after.serial if after else 0,
            mlstack_version=plan.mlstack_version,
            steps=results,
            versions={Address(name): version for name, version in work.versions().items()},
            because=who.because,
            approval=who.approval,
        )
    )


def _outcome(results: tuple[StepResult, ...], *, interrupted: bool) -> ApplyOutcome:
    if any(result.outcome == "failed" for result in results):
        return "interrupted" if interrupted else "failed"
    if any(result.outcome == "left" for result in results):
        return "interrupted" if interrupted else "left"
    if any(result.outcome == "not-started" for result in results):
        return "interrupted" if interrupted else "failed"
    return "done"


def entries_left_behind(work: Work, pending: tuple[Entry, ...]) -> dict[Address, LockEntry]:
    """Return the lines of `dvc.lock` that a killed apply had in its journal and may not have written.

    Only those that planning took for the recorded ones: after a `git checkout` the others belong to another commit.
    """
    left: dict[Address, LockEntry] = {}
    for entry in pending:
        if entry.lock_entry is None or entry.address is None or entry.address not in work.views:
            continue
        lock_entry = decoding.convert(entry.lock_entry, LockEntry)
        if lock_entry == work.views[entry.address].reading.recorded:
            left[entry.address] = lock_entry
    return left
