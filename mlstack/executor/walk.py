"""Walks steps in parallel: a step begins when those it needs are done.

What follows a failure is not started; everything independent of it still is. The walk decides nothing about what a step
does and reports only through `on_event`, which is called from one thread at a time.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.executor.events import Event, Interrupted, StepDone, StepFailed, StepLeft, StepSkipped, StepStarted
from mlstack.executor.interrupt import Interrupt
from mlstack.graph.change import Action
from mlstack.planner.plan import Step
from mlstack.spec.address import Address
from mlstack.state.state import StepResult


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a step ended well; `action` is what was done where this is not what was planned, `detail` is for people."""

    action: Action | None = None
    detail: str = ""


class StepError(MlstackError):
    """A step failed, with the end of its log where it has one."""

    def __init__(self, diagnostic: Diagnostic, *, log_tail: tuple[str, ...] = (), log: str | None = None) -> None:
        super().__init__(diagnostic)
        self.log_tail = log_tail
        self.log = log


class NotBegunError(MlstackError):
    """A step was told to stop while it still waited for its turn: nothing was done."""


class LeftRunningError(MlstackError):
    """What a step has started goes on elsewhere: nobody waits for it here any more, and it is no failure."""


class NotApprovedError(MlstackError):
    """What is known now asks for more than was approved: nothing was done, and it is to be planned anew."""


CarryOut = Callable[[Step], Finished]
Ended = SimpleQueue[tuple[Address, StepResult | BaseException] | bool]
"""How steps ended, and (as a bool: stop now?) that the person interrupts."""


class Walk:
    """One walk over the steps of a plan.

    Steps that `waits` names mostly wait for others of their kind: they do not count against the parallelism.
    `goes_on` says whether what a step waits for goes on without us.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        carry_out: CarryOut,
        *,
        on_event: Callable[[Event], None],
        interrupt: Interrupt,
        waits: Callable[[Step], bool] = lambda _step: False,
        goes_on: Callable[[Address], bool] = lambda _address: False,
    ) -> None:
        self.steps = {step.address: step for step in steps}
        self.results: dict[Address, StepResult] = {}
        self.fatal: BaseException | None = None
        self._to_plan_anew: set[Address] = set()
        self._open_needs = {step.address: sum(need in self.steps for need in step.needs) for step in steps}
        self._dependents: dict[Address, list[Address]] = {}
        for step in steps:
            for need in step.needs:
                self._dependents.setdefault(need, []).append(step.address)
        self._carry_out = carry_out
        self._on_event = on_event
        self._interrupt = interrupt
        self._waits, self._goes_on = waits, goes_on
        self._telling = Lock()

    def tell(self, event: Event) -> None:
        """Report an event; safe from every thread. An exception in the listener ends the walk, not the step."""
        with self._telling:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001 - raised again at the end: the work must not suffer
                self.fatal = self.fatal or error

    def run(self, *, parallelism: int) -> tuple[StepResult, ...]:
        """Carry out every step that can be; return one result a step, in the order of the plan.

        An exception that is not an `MlstackError` is a bug: running steps are waited for, nothing more is started, and
        it is in `fatal`.
        """
        done: Ended = SimpleQueue()
        running: set[Address] = set()
        # The signal handler only leaves word: whatever lock the interrupted thread holds, this cannot wait for it.
        self._interrupt.on_raise(done.put)
        waiting = sum(1 for step in self.steps.values() if self._waits(step))
        with (
            ThreadPoolExecutor(max_workers=max(1, parallelism), thread_name_prefix="step") as pool,
            ThreadPoolExecutor(max_workers=max(1, waiting), thread_name_prefix="wave") as waves,
        ):
            ready = [address for address, count in self._open_needs.items() if count == 0]
            while True:
                for address in ready:
                    step = self.steps[address]
                    (waves if self._waits(step) else pool).submit(self._guarded, step, done)
                running.update(ready)
                if not running:
                    break
                ended = done.get()
                if isinstance(ended, bool):
                    self.tell(Interrupted(now=ended, elsewhere=any(map(self._goes_on, running))))
                    ready = []
                    continue
                running.remove(ended[0])
                ready = self._collect(*ended)
        for address in self.steps:
            if address not in self.results:
                self._skip(address, self._why_stopping)
        return tuple(self.results[address] for address in self.steps)

    def _collect(self, address: Address, result: StepResult | BaseException) -> list[Address]:
        """Note how a step ended; return those that can begin now."""
        if isinstance(result, BaseException):
            self.fatal = self.fatal or result
            action = self.steps[address].action
            result = StepResult(address=address, action=action, outcome="failed", detail=repr(result))
        self.results[address] = result
        if result.outcome == "left":
            self._skip_dependents(address, f"{address} goes on elsewhere")
        elif result.outcome == "failed":
            self._skip_dependents(address, f"{address} failed")
        elif address in self._to_plan_anew:
            self._skip_dependents(address, f"{address} is to be planned anew")
        if result.outcome != "done" or self._stopping:
            return []
        ready = []
        for dependent in self._dependents.get(address, ()):
            self._open_needs[dependent] -= 1
            if self._open_needs[dependent] == 0:
                ready.append(dependent)
        return ready

    @property
    def _stopping(self) -> bool:
        return self._interrupt.draining.is_set() or self.fatal is not None

    @property
    def _why_stopping(self) -> str:
        return "interrupted before it began" if self.fatal is None else "an unexpected error came before it began"

    def _skip_dependents(self, of: Address, because: str) -> None:
        blocked = [of]
        while blocked:
            for address in self._dependents.get(blocked.pop(), ()):
                if address not in self.results:
                    self._skip(address, because)
                    blocked.append(address)

    def _guarded(self, step: Step, done: Ended) -> None:
        """Run one step on a worker thread; whatever happens is handed to the walking thread."""
        if self._stopping:
            self._skip(step.address, self._why_stopping)
            done.put((step.address, self.results[step.address]))
            return
        try:
            done.put((step.address, self._one(step)))
        except BaseException as error:  # noqa: BLE001 - raised again by the walking thread
            done.put((step.address, error))

    def _skip(self, address: Address, because: str) -> None:
        action = self.steps[address].action
        self.results[address] = StepResult(address=address, action=action, outcome="not-started", detail=because)
        self.tell(StepSkipped(address=address, action=action, because=because))

    def _left(self, step: Step, error: MlstackError) -> StepResult:
        detail = error.diagnostics[0].detail
        self.tell(StepLeft(address=step.address, action=step.action, detail=detail))
        return StepResult(address=step.address, action=step.action, outcome="left", detail=detail)

    def _one(self, step: Step) -> StepResult:
        began = time.monotonic()
        self.tell(StepStarted(address=step.address, action=step.action))
        try:
            finished = self._carry_out(step)
        except NotBegunError:
            self._skip(step.address, self._why_stopping)
            return self.results[step.address]
        except LeftRunningError as error:
            return self._left(step, error)
        except NotApprovedError as error:
            self._to_plan_anew.add(step.address)
            self._skip(step.address, "; ".join(diagnostic.detail for diagnostic in error.diagnostics))
            return self.results[step.address]
        except MlstackError as error:
            seconds = time.monotonic() - began
            tail, log = (error.log_tail, error.log) if isinstance(error, StepError) else ((), None)
            self.tell(
                StepFailed(
                    address=step.address,
                    action=step.action,
                    seconds=seconds,
                    diagnostics=tuple(error.diagnostics),
                    log_tail=tail,
                    log=log,
                )
            )
            return StepResult(
                address=step.address, action=step.action, outcome="failed", seconds=seconds, detail=error.brief
            )
        seconds = time.monotonic() - began
        action, detail = finished.action or step.action, finished.detail
        self.tell(StepDone(address=step.address, action=action, seconds=seconds, detail=detail))
        return StepResult(address=step.address, action=action, outcome="done", seconds=seconds, detail=detail)
