"""Steps of what is made in stacks: described, brought by a wave, seen to be there, recorded; or taken back."""

from collections.abc import Mapping
from functools import partial

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import StepContext
from mlstack.drivers.existing import is_taken_in, with_existing
from mlstack.drivers.shared_objects import is_shared, shared_name
from mlstack.drivers.stack_programs import (
    as_known,
    comes_beside,
    known_images,
    recorded_unit,
    renamed,
    with_kept,
    with_unit,
)
from mlstack.drivers.stacks import (
    UNCONFIRMED,
    UNREACHED,
    UNSCALED,
    StackDriver,
    StackName,
    Unit,
    UnitReading,
    UnseenError,
)
from mlstack.executor.as_shown import is_as_shown
from mlstack.executor.walk import StepError
from mlstack.executor.work import Outcome, Work
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Endpoint, Pool
from mlstack.state.state import Record


def make_in_stack(
    work: Work, change: Change, resource: Endpoint | Pool, driver: StackDriver, *, record: Record | None
) -> Outcome:
    """Bring a resource into its stack and see that it is as it should be."""
    desired = with_kept(
        driver,
        driver.desired(resource, work.graph, work.versions()),
        record,
        forced=change.address in work.plan.scope.replace,
    )
    unit = driver.unit(resource, work.graph, desired, images=known_images(work.graph, work.records))
    before = recorded_unit(record) if record is not None else None
    unit = as_known(with_existing(unit, work.graph.spec, before), work.waves.held())
    is_beside = comes_beside(driver, unit, before, resource, work.graph)
    previous = None if is_beside else change.previous_address
    unit = renamed(unit, previous)
    brought = _expanded(unit, record, change, _shown(work, change))
    if brought is not unit:
        work.expanded[change.address] = (driver, unit)
    context = _context(work, change, resource, record)
    with work.waves.coming(unit.address, unit.stack):
        driver.prepare(unit, context)
        result = work.waves.bring(brought, approve=partial(_approve, work, change), previous=previous)
    if result.problem is not None:
        raise _taken_back(work, driver, unit, result.problem, context, previous)
    try:
        facts = driver.settle(unit, result, context)
    except UnseenError:
        raise
    except MlstackError as error:
        raise _taken_back(work, driver, unit, error.diagnostics[0], context, previous) from error
    made = Record(
        address=change.address,
        driver=driver.name,
        version=record.version + 1 if record is not None else 1,
        attributes={**desired, **facts},
        needs=work.graph.needs.get(change.address, ()),
        protect=resource.protect,
    )
    work.waves.settled(brought)
    # What a pool leaves behind stays until nothing stands on it (`contract`).
    if change.previous_address is not None and record is not None and change.kind is Kind.ENDPOINT:
        former = msgspec.structs.replace(record, address=change.previous_address)
        _end_former(work, change, former, driver, unit.stack if is_beside else None, context)
    return Outcome(record=with_unit(made, brought), detail=_what_came_of(made))


def _what_came_of(made: Record) -> str:
    known, labels = made.attributes, {UNCONFIRMED: "not confirmed: ", UNSCALED: ""}
    said = (known.get("url"), *(f"{label}{known[name]}" for name, label in labels.items() if known.get(name)))
    return "; ".join(str(each) for each in said if each)


def remove_from_stack(work: Work, change: Change, record: Record | None) -> None:
    """Take a resource out of its stack; what is gone already succeeds. `record` is None where none was written."""
    stack: StackName = "platform" if change.kind is Kind.POOL else "serving"
    ends = msgspec.structs.replace(change, action=Action.DELETE)  # of an endpoint that moves to another target, too
    result = work.waves.remove(change.address, stack, approve=partial(_approve, work, ends))
    if result.problem is not None:
        raise MlstackError(result.problem)
    if record is not None:
        driver = work.hands.driver_named(record.driver)
        assert isinstance(driver, StackDriver)  # noqa: S101 - it wrote a record with a unit
        driver.removed(record, _context(work, change, None, record))


def _end_former(
    work: Work, change: Change, former: Record, driver: StackDriver, stack: StackName | None, context: StepContext
) -> None:
    """Let go of what had the name before: its objects, where they stayed in `stack` until now, and its Secrets."""
    if stack is not None:
        context.say(f"it is ready: {former.address} goes")
        result = work.waves.remove(former.address, stack, approve=partial(_approve, work, change))
        if result.problem is not None:
            raise MlstackError(result.problem)
    driver.removed(former, context)


def contract(work: Work) -> None:
    """Let go of what pools were kept on, now that nothing stands on it any more (expand, serve, contract).

    Raises `MlstackError`; what is left then is in the record, and the next plan shows it.
    """
    for address, (driver, unit) in sorted(work.expanded.items()):
        record, change = work.records[address], work.planned[address]
        result = work.waves.bring(unit, approve=partial(_approve, work, change))
        if result.problem is not None:
            raise MlstackError(result.problem)
        work.waves.settled(unit)
        settled = msgspec.structs.replace(with_unit(record, unit), version=record.version + 1)
        work.journal("step-done", change, Outcome(record=settled, detail=f"{driver.name}: nothing stands on it now"))
        work.learn_record(settled)


def _expanded(unit: Unit, record: Record | None, change: Change, shown: Mapping[Address, Change]) -> Unit:
    """Return the unit with what the plan (`shown`) removes of the recorded one: endpoints may still stand on it.

    What was removed outside is not made again for that.
    """
    before = recorded_unit(record) if record is not None and unit.stack == "platform" else None
    if before is None or before.provider != unit.provider:
        return unit
    going = {name for name, part in shown.items() if part.action is Action.DELETE}
    places = {change.address, change.previous_address}
    left = [
        each
        for each in renamed(before, change.previous_address).objects
        if going & ({shared_name(unit, each)} if each.shared else {Address(f"{place}#{each.key}") for place in places})
    ]
    return msgspec.structs.replace(unit, objects=(*unit.objects, *left)) if left else unit


def _shown(work: Work, change: Change) -> dict[Address, Change]:
    """Return what the plan shows of the objects of a row, and of those that rows have together."""
    everywhere = [part for row in work.planned.values() for part in row.parts if is_shared(part.address)]
    return {part.address: part for part in (*everywhere, *change.parts)}


def _approve(work: Work, change: Change, reading: UnitReading) -> None:
    """Hold what a wave would do against the row. Raises `NotApprovedError` when it is more.

    A wave is previewed without asking the world again. So what the plan found to be gone is still there to it: it is
    to be updated, or deleted, and not made anew, or nothing.
    """
    planned = _shown(work, change)
    if change.previous_address is not None:  # what stays behind goes under its new name, when nothing stands on it
        old = f"{change.previous_address}#"
        behind = {name: part for name, part in planned.items() if name.startswith(old)}
        planned = {Address(f"{change.address}#{name[len(old) :]}"): part for name, part in behind.items()} | planned
    for part in reading.parts:
        before = planned.get(part.address)
        if part.action is Action.MOVE or (change.action is Action.DELETE and part.action is Action.DELETE):
            continue  # another name in the stack does nothing to what is there
        if before is not None and is_as_shown(before, part):
            continue
        if before is not None and change.drift and (before.action, part.action) == (Action.CREATE, Action.REPLACE):
            continue  # of what was removed outside, there is nothing to replace
        if before is None and change.up_to is not None and part.action in (Action.CREATE, Action.UPDATE):
            continue  # what an `always` stage gives is known only now, and up to an update was approved
        work.refuse(change, f"what is known now asks to {part.action.value} {part.note or part.address}")


def _taken_back(
    work: Work, driver: StackDriver, unit: Unit, problem: Diagnostic, context: StepContext, previous: Address | None
) -> MlstackError:
    """Say what went wrong, and have the stack hold again what it held before. Pools stay as far as they came.

    So does what took in something that was there: nothing knows what it was, and to remove it would not bring it back.
    Who asked to stop now has it left as it is, for the next apply to look at: such an update would be stopped as well.
    So has who reached nothing: the stack's record says how far it came.
    """
    if context.stop.is_set() or problem.code == UNREACHED:
        return MlstackError(problem)
    trouble = driver.explain(unit, problem, context)
    if is_taken_in(unit):
        work.waves.settled(unit)
    elif unit.stack == "serving":
        context.say("it did not get ready: going back to what was there before")
        back = work.waves.take_back(unit.address, unit.stack, previous=previous)
        if back.problem is not None:
            return MlstackError(trouble.diagnostic, back.problem)
        try:
            driver.taken_back(unit, context)
        except MlstackError as error:
            return MlstackError(trouble.diagnostic, *error.diagnostics)
    return StepError(trouble.diagnostic, log_tail=trouble.log_tail)


def _context(work: Work, change: Change, resource: Endpoint | Pool | None, record: Record | None) -> StepContext:
    return StepContext(
        root=work.root,
        graph=work.graph,
        resource=resource,
        record=record,
        versions=work.versions(),
        say=work.say(change.address),
        stop=work.interrupt.now,
        image=work.image_of(change.address),
    )
