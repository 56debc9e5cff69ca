"""Steps of what is made in stacks: described, brought by a wave, seen to be there, recorded; or taken back."""

from functools import partial

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import StepContext
from mlstack.drivers.stack_programs import known_images, recorded_unit, renamed, with_kept, with_unit
from mlstack.drivers.stacks import StackDriver, StackName, Unit, UnitReading
from mlstack.executor.walk import StepError
from mlstack.executor.work import Outcome, Work
from mlstack.graph.change import Action, Change
from mlstack.planner.build_plan import may_refine
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
    unit = renamed(unit, change.previous_address)
    brought = _expanded(unit, record)
    if brought is not unit:
        work.expanded[change.address] = (driver, unit)
    context = _context(work, change, resource, record)
    driver.prepare(unit, context)
    result = work.waves.bring(brought, approve=partial(_approve, work, change), previous=change.previous_address)
    if result.problem is not None:
        raise _taken_back(work, driver, unit, result.problem, context, change.previous_address)
    try:
        facts = driver.settle(unit, result, context)
    except MlstackError as error:
        raise _taken_back(work, driver, unit, error.diagnostics[0], context, change.previous_address) from error
    made = Record(
        address=change.address,
        driver=driver.name,
        version=record.version + 1 if record is not None else 1,
        attributes={**desired, **facts},
        needs=work.graph.needs.get(change.address, ()),
        protect=resource.protect,
    )
    work.waves.settled(brought)
    return Outcome(record=with_unit(made, brought), detail=str(facts.get("url", "")))


def remove_from_stack(work: Work, change: Change, record: Record | None) -> None:
    """Take a resource out of its stack; what is gone already succeeds. `record` is None where none was written."""
    stack: StackName = "platform" if change.kind is Kind.POOL else "serving"
    result = work.waves.remove(change.address, stack, approve=partial(_approve, work, change))
    if result.problem is not None:
        raise MlstackError(result.problem)
    if record is not None:
        driver = work.hands.driver_named(record.driver)
        assert isinstance(driver, StackDriver)  # noqa: S101 - it wrote a record with a unit
        driver.removed(record, _context(work, change, None, record))


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


def _expanded(unit: Unit, record: Record | None) -> Unit:
    """Return the unit with the objects of the recorded one that it has no more: endpoints may still stand on them."""
    before = recorded_unit(record) if record is not None and unit.stack == "platform" else None
    if before is None or before.provider != unit.provider:
        return unit
    keys = {each.key for each in unit.objects}
    left = tuple(each for each in before.objects if each.key not in keys)
    return msgspec.structs.replace(unit, objects=(*unit.objects, *left)) if left else unit


def _approve(work: Work, change: Change, reading: UnitReading) -> None:
    """Hold what a wave would do against the row. Raises `NotApprovedError` when it is more.

    A wave is previewed without asking the world again. So what the plan found to be gone is still there to it: it is
    to be updated, or deleted, and not made anew, or nothing.
    """
    planned = {part.address: part for part in change.parts}
    for part in reading.parts:
        before = planned.get(part.address)
        if change.action is Action.DELETE and part.action is Action.DELETE:
            continue
        if before is not None and _covers(before, part):
            continue
        if before is None and change.up_to is not None and part.action in (Action.CREATE, Action.UPDATE):
            continue  # what an `always` stage gives is known only now, and up to an update was approved
        work.refuse(change, f"what is known now asks to {part.action.value} {part.note or part.address}")


def _covers(planned: Change, actual: Change) -> bool:
    if planned.action is Action.CREATE and actual.action is Action.UPDATE:
        return True
    return may_refine(planned.action, actual.action) and _is_as_shown(planned, actual)


def _is_as_shown(planned: Change, actual: Change) -> bool:
    """Whether an object changes as the plan showed, where it could."""
    shown = {field.path: field for field in planned.fields}
    was_open = planned.action is not Action.UPDATE or any(field.unknown for field in planned.fields)
    for field in actual.fields:
        before = shown.get(field.path)
        if before is None and not was_open:
            return False
        if before is not None and not before.unknown and before.after != field.after:
            return False
    return True


def _taken_back(
    work: Work, driver: StackDriver, unit: Unit, problem: Diagnostic, context: StepContext, previous: Address | None
) -> MlstackError:
    """Say what went wrong, and have the stack hold again what it held before. Pools stay as far as they came."""
    trouble = driver.explain(unit, problem, context)
    if unit.stack == "serving":
        context.say("it did not get ready: going back to what was there before")
        back = work.waves.take_back(unit.address, unit.stack, previous=previous)
        if back.problem is not None:
            return MlstackError(trouble.diagnostic, back.problem)
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
