"""The walk: order, parallelism, failures, interrupts, and bugs in what it calls."""

import subprocess
import sys
from threading import Barrier, Event

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.executor import events
from mlstack.executor.interrupt import Interrupt
from mlstack.executor.walk import Finished, NotApprovedError, Walk
from mlstack.graph.change import Action
from mlstack.planner.plan import Step
from mlstack.spec.address import Address


def steps(**needs: str) -> list[Step]:
    return [
        Step(address=Address(name), action=Action.RUN, needs=tuple(map(Address, wanted.split())))
        for name, wanted in needs.items()
    ]


class Told(list[events.Event]):
    def of(self, kind: type[events.StepSkipped] | type[events.StepFailed]) -> list[str]:
        return [event.address for event in self if isinstance(event, kind)]


def failing(*names: str):  # type: ignore[no-untyped-def]
    def carry_out(step: Step) -> Finished:
        if step.address in names:
            raise MlstackError(Diagnostic(code="x", summary="It fails"))
        return Finished(detail="ok")

    return carry_out


def outcomes(walk: Walk, parallelism: int = 2) -> dict[str, str]:
    return {result.address: result.outcome for result in walk.run(parallelism=parallelism)}


def test_failure_stops_what_needs_it_and_nothing_else() -> None:
    told = Told()
    walk = Walk(steps(a="", b="a", c="b", d="", e="d c"), failing("b"), on_event=told.append, interrupt=Interrupt())
    assert outcomes(walk) == {"a": "done", "b": "failed", "c": "not-started", "d": "done", "e": "not-started"}
    assert sorted(told.of(events.StepSkipped)) == ["c", "e"]
    assert told.of(events.StepFailed) == ["b"]


def test_what_is_to_be_planned_anew_has_not_failed() -> None:
    def carry_out(step: Step) -> Finished:
        if step.address == "b":
            raise NotApprovedError(Diagnostic(code="x", summary="More", detail="to be planned anew: run, not restore"))
        return Finished()

    told = Told()
    walk = Walk(steps(a="", b="a", c="b", d="a"), carry_out, on_event=told.append, interrupt=Interrupt())
    assert outcomes(walk) == {"a": "done", "b": "not-started", "c": "not-started", "d": "done"}
    assert told.of(events.StepFailed) == []
    assert walk.results[Address("b")].detail == "to be planned anew: run, not restore"
    assert walk.results[Address("c")].detail == "b is to be planned anew"


def test_needs_without_a_step_are_done_already() -> None:
    assert outcomes(Walk(steps(a="gone", b="a"), failing(), on_event=Told().append, interrupt=Interrupt())) == {
        "a": "done",
        "b": "done",
    }


def test_independent_steps_run_at_the_same_time() -> None:
    together = Barrier(3, timeout=120)

    def carry_out(step: Step) -> Finished:
        del step
        together.wait()
        return Finished()

    walk = Walk(steps(a="", b="", c=""), carry_out, on_event=Told().append, interrupt=Interrupt())
    assert set(outcomes(walk, parallelism=3).values()) == {"done"}


@pytest.mark.parametrize("elsewhere", ["a", "b"])
def test_interrupt_lets_running_steps_end_and_starts_no_more(elsewhere: str) -> None:
    """That runs go on without us is said only while one does: what runs here is stopped by the next."""
    told, interrupt = Told(), Interrupt()

    def carry_out(step: Step) -> Finished:
        assert step.address == "a"
        interrupt.raise_()
        interrupt.raise_()
        return Finished()

    three = steps(a="", b="a", c="b")
    walk = Walk(three, carry_out, on_event=told.append, interrupt=interrupt, goes_on=elsewhere.__eq__)
    assert outcomes(walk) == {"a": "done", "b": "not-started", "c": "not-started"}
    heard = [event for event in told if isinstance(event, events.Interrupted)]
    assert [(event.now, event.elsewhere) for event in heard] == [(False, elsewhere == "a"), (True, elsewhere == "a")]
    assert told.of(events.StepSkipped) == ["b", "c"], "in the order of the plan"


def test_interrupt_does_not_wait_for_a_listener_that_is_busy() -> None:
    """The signal may hit the thread that is reporting at this moment."""
    interrupt, raised = Interrupt(), Event()

    def listen(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and not raised.is_set():
            raised.set()
            interrupt.raise_()

    walk = Walk(steps(a="", b="a"), failing(), on_event=listen, interrupt=interrupt)
    assert outcomes(walk) == {"a": "done", "b": "not-started"}


TWO_AT_ONCE = """
import signal, threading
from mlstack.executor.interrupt import Interrupt

def notify_all(condition):  # the lock of the first flag is held
    threading.Condition.notify_all = before
    signal.raise_signal(signal.SIGTERM)
    before(condition)

interrupt, before = Interrupt(), threading.Condition.notify_all
with interrupt.on_signals():
    threading.Condition.notify_all = notify_all
    signal.raise_signal(signal.SIGINT)
print(interrupt.draining.is_set(), interrupt.now.is_set(), interrupt.stacks.is_set())
"""


def test_a_signal_in_the_midst_of_another_waits_for_nothing() -> None:
    command = [sys.executable, "-c", TWO_AT_ONCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["True"] * 3, done.stderr


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(3)])
def test_a_bug_in_a_step_ends_the_walk_with_every_result(error: BaseException) -> None:
    def carry_out(step: Step) -> Finished:
        if step.address == "a":
            raise error
        return Finished()

    walk = Walk(steps(a="", b="a", c="a b"), carry_out, on_event=Told().append, interrupt=Interrupt())
    assert outcomes(walk) == {"a": "failed", "b": "not-started", "c": "not-started"}
    assert walk.fatal is error


def test_a_bug_in_the_listener_does_not_hurt_the_step() -> None:
    def listen(event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            raise ZeroDivisionError

    walk = Walk(steps(a="", b="a"), failing(), on_event=listen, interrupt=Interrupt())
    assert outcomes(walk) == {"a": "done", "b": "not-started"}
    assert isinstance(walk.fatal, ZeroDivisionError)


def test_many_steps_in_linear_time() -> None:
    wide = {f"s{number}": "" for number in range(1500)} | {"end": " ".join(f"s{number}" for number in range(1500))}
    calls: list[str] = []

    def carry_out(step: Step) -> Finished:
        calls.append(step.address)
        return Finished()

    walk = Walk(steps(**wide), carry_out, on_event=lambda _event: None, interrupt=Interrupt())
    assert set(outcomes(walk).values()) == {"done"}
    assert calls[-1] == "end"
    assert len(calls) == 1501
