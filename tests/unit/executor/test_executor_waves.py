"""Waves: steps that are ready together are one update of their stack, and each learns what became of its own."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event as StopFlag

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.local.endpoint_process import wait_until
from mlstack.drivers.stacks import Object, Provider, StackName, Tell, Unit, UnitReading, UnitResult
from mlstack.executor import waves as waves_module
from mlstack.executor.walk import NotApprovedError
from mlstack.executor.waves import GATHER, Waves
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, Kind

PROVIDER = Provider(name="fake", version="1", key="fake")


def unit(name: str, value: str = "new", stack: StackName = "serving") -> Unit:
    made = Object(key="thing", type="fake:index:Thing", inputs={"value": value})
    return Unit(address=Address(f"endpoints.{name}"), stack=stack, provider=PROVIDER, objects=(made,))


class FakeEngine:
    """Stacks in memory; what it is told to fail fails by itself."""

    def __init__(self, fails: Iterable[str] = ()) -> None:
        self.holds: dict[StackName, dict[Address, Unit]] = {"platform": {}, "serving": {}}
        self.waves: list[tuple[StackName, tuple[Address, ...]]] = []
        self.idle: list[set[str]] = []
        self.fails = set(fails)
        self.breaks: MlstackError | None = None
        self.at_work = threading.Lock()

    def check(self) -> Sequence[Diagnostic]:
        return ()

    def preview(
        self,
        stack: StackName,
        units: Sequence[Unit],
        *,
        refresh: bool,
        stop: StopFlag | None = None,
        idle: Collection[str] = (),
    ) -> Mapping[Address, UnitReading]:
        del stop, idle
        assert not refresh
        wanted = {each.address: each for each in units}
        return {
            address: UnitReading(parts=(part(address),))
            for address in wanted.keys() | self.holds[stack].keys()
            if wanted.get(address) != self.holds[stack].get(address)
        }

    def up(
        self, stack: StackName, units: Sequence[Unit], *, tell: Tell, stop: StopFlag, idle: Collection[str] = ()
    ) -> Mapping[Address, UnitResult]:
        del stop
        self.idle.append(set(idle))
        assert self.at_work.acquire(blocking=False), "a stack is updated by one at a time"
        try:
            if self.breaks is not None:
                raise self.breaks
            touched = tuple(sorted(self.preview(stack, units, refresh=False)))
            self.waves.append((stack, touched))
            wanted = {each.address: each for each in units}
            for address in touched:
                tell(address, "updating")
            results = {address: self._result(stack, address, wanted.get(address)) for address in touched}
        finally:
            self.at_work.release()
        return results

    def _result(self, stack: StackName, address: Address, wanted: Unit | None) -> UnitResult:
        if wanted is not None and wanted.objects[0].inputs["value"] in self.fails:
            return UnitResult(problem=Diagnostic(code="fake", summary=f"{address} did not get ready"))
        if wanted is None:
            self.holds[stack].pop(address, None)
        else:
            self.holds[stack][address] = wanted
        return UnitResult()

    def recorded(self, stack: StackName) -> Mapping[Address, Unit]:
        return self.holds[stack]


def part(address: Address) -> Change:
    return Change(address=Address(f"{address}#thing"), kind=Kind.ENDPOINT, action=Action.CREATE, reasons=())


def any_parts(_reading: UnitReading) -> None:
    return


def waves_on(engine: FakeEngine, *recorded: Unit) -> Waves:
    for each in recorded:
        engine.holds[each.stack][each.address] = each
    return Waves(lambda: engine, {each.address: each for each in recorded}, stop=StopFlag())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way is waited for until it is there, however slow this machine is."""
    monkeypatch.setattr(waves_module, "LONGEST", 300.0)


@pytest.mark.usefixtures("patient")
def test_what_is_ready_together_is_one_wave_and_a_failure_is_its_own() -> None:
    engine = FakeEngine(fails={"bad"})
    waves = waves_on(engine, unit("before", "old"))
    wanted = [unit("bad", "bad"), *(unit(f"e{number}") for number in range(9))]
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool, ExitStack() as ready:
        for each in wanted:
            ready.enter_context(waves.coming(each.address, "serving"))
        results = list(pool.map(lambda each: waves.bring(each, approve=any_parts), wanted))
    assert [result.problem is None for result in results] == [False, *([True] * 9)]
    assert len(engine.waves) == 1
    assert engine.holds["serving"].keys() == {"endpoints.before", *(f"endpoints.e{number}" for number in range(9))}


@pytest.mark.usefixtures("patient")
def test_a_wave_waits_for_what_is_on_its_way() -> None:
    engine = FakeEngine()
    waves = waves_on(engine)
    begun, prepared = threading.Event(), threading.Event()

    def late() -> UnitResult:
        with waves.coming(Address("endpoints.late"), "serving"):
            begun.set()
            prepared.wait(60)
            return waves.bring(unit("late"), approve=any_parts)

    with ThreadPoolExecutor() as pool:
        second = pool.submit(late)
        begun.wait(60)
        first = pool.submit(waves.bring, unit("first"), approve=any_parts)
        assert wait_until(lambda: bool(waves._wishes.get("serving")), seconds=60)
        threading.Timer(GATHER * 3, prepared.set).start()
        assert [first.result().problem, second.result().problem] == [None, None]
    assert engine.waves == [("serving", ("endpoints.first", "endpoints.late"))]


def test_a_later_wave_names_what_settled_and_what_was_recorded_of_the_rest() -> None:
    engine = FakeEngine()
    waves = waves_on(engine, unit("kept", "old"), unit("goes", "old"))
    first = unit("first")
    waves.bring(first, approve=any_parts)
    waves.settled(first)
    assert waves.remove(Address("endpoints.goes"), "serving", approve=any_parts).problem is None
    assert engine.holds["serving"] == {"endpoints.first": first, "endpoints.kept": unit("kept", "old")}
    assert engine.waves[-1] == ("serving", ("endpoints.goes",))


def test_what_did_not_get_ready_goes_back_to_what_was_recorded() -> None:
    engine = FakeEngine()
    waves = waves_on(engine, unit("quality", "old"))
    waves.bring(unit("quality", "new"), approve=any_parts)
    waves.bring(unit("fresh", "new"), approve=any_parts)
    waves.take_back(Address("endpoints.quality"), "serving")
    waves.take_back(Address("endpoints.fresh"), "serving")
    assert engine.holds["serving"] == {"endpoints.quality": unit("quality", "old")}


def test_what_waits_to_get_ready_stays_while_another_wave_goes() -> None:
    engine = FakeEngine()
    waves = waves_on(engine, unit("quality", "old"))
    waves.bring(unit("quality", "new"), approve=any_parts)
    waves.bring(unit("later"), approve=any_parts)
    assert engine.waves == [("serving", ("endpoints.quality",)), ("serving", ("endpoints.later",))]
    waves.take_back(Address("endpoints.quality"), "serving")
    assert engine.holds["serving"] == {"endpoints.quality": unit("quality", "old"), "endpoints.later": unit("later")}


def test_what_is_renamed_takes_the_place_of_what_it_was() -> None:
    engine = FakeEngine()
    waves = waves_on(engine, unit("before", "old"))
    waves.bring(unit("after"), approve=any_parts, previous=Address("endpoints.before"))
    assert engine.holds["serving"] == {"endpoints.after": unit("after")}
    waves.settled(unit("after"))
    waves.bring(unit("later"), approve=any_parts)
    assert engine.holds["serving"].keys() == {"endpoints.after", "endpoints.later"}


def test_what_is_renamed_and_does_not_get_ready_goes_back_under_its_old_name() -> None:
    engine = FakeEngine()
    waves = waves_on(engine, unit("before", "old"))
    waves.bring(unit("after"), approve=any_parts, previous=Address("endpoints.before"))
    waves.take_back(Address("endpoints.after"), "serving", previous=Address("endpoints.before"))
    (back,) = engine.holds["serving"].values()
    assert back.address == "endpoints.before"
    assert back.objects[0].aliases == ("endpoints.after#thing",)


def test_more_than_approved_is_left_out_and_the_rest_goes_on() -> None:
    engine = FakeEngine()
    waves = waves_on(engine)

    def refuse(reading: UnitReading) -> None:
        assert reading.parts
        raise NotApprovedError(Diagnostic(code="more-than-approved", summary="More"))

    with ThreadPoolExecutor(max_workers=2) as pool:
        refused = pool.submit(waves.bring, unit("refused"), approve=refuse)
        fine = pool.submit(waves.bring, unit("fine"), approve=any_parts)
        assert fine.result().problem is None
        with pytest.raises(NotApprovedError):
            refused.result()
    assert engine.holds["serving"].keys() == {"endpoints.fine"}


def test_an_engine_that_breaks_fails_all_of_its_wave_and_not_the_next() -> None:
    engine = FakeEngine()
    engine.breaks = MlstackError(Diagnostic(code="fake", summary="No engine"))
    waves = waves_on(engine)
    with ThreadPoolExecutor(max_workers=3) as pool:
        futures = [pool.submit(waves.bring, unit(f"e{number}"), approve=any_parts) for number in range(3)]
        for future in futures:
            with pytest.raises(MlstackError, match="No engine"):
                future.result()
    engine.breaks = None
    assert waves.bring(unit("e0"), approve=any_parts).problem is None


def test_no_update_begins_without_the_lock() -> None:
    """It may have been lost since the step began: an earlier wave took long, and the store did not answer."""
    engine = FakeEngine()

    def lost() -> None:
        raise MlstackError(Diagnostic(code="lock-lost", summary="The lock was lost"))

    waves = Waves(lambda: engine, {}, stop=StopFlag(), verify=lost)
    with pytest.raises(MlstackError, match="lock was lost"):
        waves.bring(unit("e0"), approve=any_parts)
    assert not engine.holds["serving"]


def test_two_stacks_are_updated_side_by_side() -> None:
    engine = FakeEngine()
    engine.at_work = threading.Semaphore(2)  # type: ignore[assignment]
    waves = waves_on(engine)
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda each: waves.bring(each, approve=any_parts), [unit("a"), unit("b", stack="platform")]))
    assert {stack for stack, _ in engine.waves} == {"platform", "serving"}


def test_a_wave_leaves_alone_what_is_somewhere_else() -> None:
    engine = FakeEngine()
    elsewhere = unit("elsewhere", "old")
    elsewhere = msgspec.structs.replace(elsewhere, provider=msgspec.structs.replace(elsewhere.provider, key="far"))
    waves = waves_on(engine, unit("here", "old"), elsewhere)
    waves.bring(unit("here", "new"), approve=any_parts)
    assert engine.idle.pop() == {"far"}
    waves.remove(elsewhere.address, "serving", approve=any_parts)
    assert engine.idle.pop() == set(), "what was brought has not settled yet"


def test_what_is_taken_back_goes_whoever_made_it() -> None:
    engine = FakeEngine()
    waves = waves_on(engine, unit("there", "old"))
    waves.bring(unit("new"), approve=any_parts)
    waves.take_back(Address("endpoints.new"), "serving")
    assert engine.idle == [set(), set()]
    assert engine.holds["serving"].keys() == {"endpoints.there"}
