"""What apply, destroy and run share: the locks, the question, and carrying a plan out while a person watches."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from mlstack.cli.console import note, report
from mlstack.cli.plan import show_plan
from mlstack.cli.progress import event_renderer, json_copy
from mlstack.cli.project import Planned, Project
from mlstack.cli.settings import Settings
from mlstack.cli.strays import strays_told
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, raise_errors
from mlstack.drivers.preflight import missing_secrets, preflight
from mlstack.executor.apply import ApplyResult, Who, apply, entries_left_behind
from mlstack.executor.events import ApplyEnded, Event
from mlstack.executor.interrupt import Interrupt
from mlstack.executor.work import Session, Work
from mlstack.graph.lock import desired_lock, read_lock, write_lock
from mlstack.planner.plan import Plan
from mlstack.render.escape import plain
from mlstack.state.held_lock import ApplyLock, HeldLock
from mlstack.state.identity import ci_run, host_name, iso_time, new_id, person
from mlstack.state.protocols import StateStore
from mlstack.state.runs import prune_runs
from mlstack.state.store import open_store
from mlstack.state.workspace_lock import workspace_lock

DEFAULT_PARALLELISM = 10
_RUNS_KEPT = 10


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan is to be carried out; `because` is what the person says about it, for history and provenance.

    `approval` says how it was agreed to, for the history. `push` False: nothing goes to the remote.
    `is_detached`: runs elsewhere are not waited for.
    """

    operation: str
    parallelism: int = DEFAULT_PARALLELISM
    json_into: Path | None = None
    because: str = ""
    push: bool | None = None
    approval: str = ""
    is_detached: bool = False


@contextmanager
def locked(settings: Settings, project: Project, *, operation: str, lock_timeout: str) -> Iterator[HeldLock]:
    """Hold the working tree and the environment's lock. Raises `MlstackError` naming who has them."""
    timeout = read_timeout(lock_timeout)
    with workspace_lock(
        project.root,
        operation=operation,
        timeout=timeout,
        on_wait=lambda holder: note(f"Waiting for {plain(holder.operation) if holder else 'another command'} …"),
    ):
        lock = HeldLock(
            project.backend,
            operation=operation,
            environment=project.spec.environment,
            timeout=timeout,
            on_wait=lambda owner: note(f"Waiting for the lock that {plain(owner.who)} on {plain(owner.host)} holds …"),
        )
        if lock.note is not None:
            report(settings, (lock.note,))
        with lock:
            yield lock


def confirm(settings: Settings, question: str, *, yes: bool) -> None:
    """Ask; only the word `yes` counts. Raises `MlstackError` when there is nobody to ask, or the answer is another."""
    if yes:
        return
    if not settings.interactive:
        raise MlstackError(
            Diagnostic(
                code="nobody-to-ask",
                summary="There is nobody to ask",
                detail="Standard input is no terminal, so nothing was changed.",
                hint="Give --yes to go on without being asked, or hand over a saved plan.",
                command=f"mlstack {settings.command} --yes",
            )
        )
    note(f"\n{question}\n  Only yes will be accepted.\n")
    try:
        answer = input("  Enter a value: ")
    except EOFError:  # Ctrl-D
        answer = ""
        note("")
    if answer.strip() != "yes":
        raise MlstackError(
            Diagnostic(code="not-confirmed", summary="Cancelled", detail="Nothing was changed."),
        )


def carry_out(settings: Settings, project: Project, planned: Planned, *, lock: HeldLock, order: Order) -> int:
    """Carry out a plan that was shown and agreed to; return the exit code."""
    store = open_store(project.backend, project=project.spec.project, environment=project.spec.environment)
    interrupt, work = make_work(project, planned, store, order=order, recording=True, lock=lock)
    lock.on_loss = interrupt.lose_lock
    left = entries_left_behind(work, tuple(store.pending()))
    if left:
        work.hands.results.record(left)
        work.hands.results.flush()
    scope = planned.plan.scope
    if not (scope.destroy or scope.refresh_only):
        write_lock(project.root, desired_lock(project.graph, read_lock(project.root)))
    if not planned.plan.steps:
        store.compact()
        end_at_once(settings, planned.plan, json_into=order.json_into)
        return ExitCode.OK
    code = watch(settings, work, interrupt, order=order)
    prune_runs(project.backend, keep=_RUNS_KEPT)
    return code


def watch(settings: Settings, work: Work, interrupt: Interrupt, *, order: Order) -> int:
    """Carry out the work and show its events as they come."""
    who = Who(
        name=person(), host=host_name(), operation=order.operation, because=order.because, approval=order.approval
    )
    with ExitStack() as around:
        show = around.enter_context(event_renderer(settings, work.plan))
        copy = around.enter_context(json_copy(order.json_into, work.plan)) if order.json_into else None

        def on_event(event: Event) -> None:
            if copy is not None:
                copy(event)
            show(event)

        around.enter_context(strays_told(settings, work.plan, work.graph, root=work.root))
        around.enter_context(interrupt.on_signals())
        result = apply(work, parallelism=order.parallelism, who=who, on_event=on_event)
    report(settings, result.diagnostics)
    return exit_code_of(result)


def end_at_once(settings: Settings, plan: Plan, *, json_into: Path | None = None) -> None:
    """Give readers of JSON a whole stream also when there is nothing to do; people were told already."""
    with ExitStack() as around:
        readers = [around.enter_context(event_renderer(settings, plan))] if settings.json else []
        readers += [around.enter_context(json_copy(json_into, plan))] if json_into is not None else []
        for show in readers:
            show(ApplyEnded(outcome="done", results=()))


def exit_code_of(result: ApplyResult) -> int:
    """Turn the result into an exit code."""
    if result.outcome == "interrupted":
        return ExitCode.INTERRUPTED
    if result.outcome == "left":
        return ExitCode.GOES_ON
    return ExitCode.OK if result.outcome == "done" else ExitCode.ERROR


def refuse_errored(planned: Planned) -> None:
    """Raise with everything that is wrong with a plan that must not be applied."""
    if planned.plan.errored:
        raise MlstackError(*planned.plan.diagnostics)


def refuse_unready(settings: Settings, project: Project, planned: Planned) -> None:
    """Raise with all that the steps need and that is not there: before anybody is asked, and anything changed."""
    pending = {step.address for step in planned.plan.steps}
    records = planned.prior.resources if planned.prior is not None else {}
    changes = [change for change in planned.plan.changes if change.address in pending]
    problems = missing_secrets(changes, project.graph, root=project.root) + preflight(
        changes, project.graph, records, root=project.root
    )
    raise_errors(problems)
    report(settings, problems)


def show_before(settings: Settings, planned: Planned) -> None:
    """Show the plan that is about to be carried out; with `--json`, events follow on standard output instead."""
    if settings.json:
        return
    show_plan(settings, planned.plan)


def make_work(
    project: Project,
    planned: Planned,
    store: StateStore,
    *,
    order: Order,
    recording: bool,
    lock: ApplyLock,
) -> tuple[Interrupt, Work]:
    """Prepare to carry out a plan. With `recording` False neither `dvc.yaml` nor `dvc.lock` is written."""
    from mlstack.drivers.hands import LocalHands
    from mlstack.provenance.record import Command, Recorder

    interrupt, apply_id = Interrupt(), new_id()
    command = Command(
        operation=order.operation,
        who=person(),
        host=host_name(),
        apply_id=apply_id,
        commit=planned.plan.commit,
        dirty=planned.plan.dirty,
        plan_digest=planned.plan.digest,
        because=order.because,
        ci_run=ci_run(),
    )
    session = Session(
        root=project.root,
        apply_id=apply_id,
        now=lambda: iso_time(time.time()),
        lock=lock,
        interrupt=interrupt,
        metrics=planned.readings.metrics,
        is_detached=order.is_detached,
        recording=Recorder(project.graph, root=project.root, command=command),
    )
    publishing = order.push is not False
    hands = LocalHands(project.graph, root=project.root, recording=recording, publishing=publishing)
    return interrupt, Work(planned.plan, planned.diffed, project.graph, store, hands=hands, session=session)


def read_timeout(duration: str) -> float:
    """Return the seconds of a `--lock-timeout`; zero is not to wait at all."""
    if duration in ("0", "0s"):
        return 0.0
    from mlstack.spec.quantity import WrongError, read_duration

    try:
        return read_duration(duration)
    except WrongError as error:
        raise MlstackError(
            Diagnostic(
                code="usage",
                summary="The command line is not understood",
                detail=f"--lock-timeout: {error}",
            ),
            exit_code=ExitCode.USAGE,
        ) from error
