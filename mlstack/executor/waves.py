"""Updates of stacks in waves: steps that are ready together are one update of their stack, and wait for it together.

Each wave names its whole stack: what is ready as it should be, everything else as it was recorded. So one thing that
fails takes nothing along, and what is not its turn yet is left alone.
"""

import time
from collections.abc import Callable, Mapping
from threading import Condition
from threading import Event as StopFlag

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.stack_programs import renamed
from mlstack.drivers.stacks import StackEngine, StackName, Tell, Unit, UnitReading, UnitResult
from mlstack.spec.address import Address

GATHER = 0.25
"""Seconds without another step before a wave begins: a step's thread takes a moment to get here."""

Approve = Callable[[UnitReading], None]
"""Told what a wave would do at an address, right before it does; raises when that is more than was approved."""


class _Wish(msgspec.Struct):
    """What one step wants of its stack: this unit, or nothing any more (None). `previous` is its address before."""

    address: Address
    unit: Unit | None
    approve: Approve
    previous: Address | None = None
    outcome: UnitResult | BaseException | None = None


class Waves:
    """The stacks of one apply. Steps call it from threads of their own."""

    def __init__(self, engine: Callable[[], StackEngine], recorded: Mapping[Address, Unit], *, stop: StopFlag) -> None:
        self._make_engine, self._stop = engine, stop
        self._engine: StackEngine | None = None
        self._held = dict(recorded)
        self._brought: dict[Address, _Wish] = {}  # carried out, and not settled yet
        self._wishes: dict[StackName, list[_Wish]] = {}
        self._at_work: set[StackName] = set()
        self._changed = Condition()
        self._tell: Tell = lambda _address, _line: None

    def tell_with(self, tell: Tell) -> None:
        """Report progress through this function."""
        self._tell = tell

    def bring(self, unit: Unit, *, approve: Approve, previous: Address | None = None) -> UnitResult:
        """Have the stack hold this unit, instead of the one at `previous`; returns when its wave is over.

        Raises what went wrong with the whole wave.
        """
        return self._wait(unit.stack, _Wish(address=unit.address, unit=unit, approve=approve, previous=previous))

    def remove(self, address: Address, stack: StackName, *, approve: Approve) -> UnitResult:
        """Have the stack hold nothing of this address any more."""
        return self._wait(stack, _Wish(address=address, unit=None, approve=approve))

    def take_back(self, address: Address, stack: StackName, *, previous: Address | None = None) -> UnitResult:
        """Have the stack hold what is recorded for this address, or nothing: what was brought did not get ready.

        What came from the address `previous` goes back there.
        """
        with self._changed:
            self._brought.pop(address, None)
            before = self._held.get(previous or address)
        if previous is not None and before is not None:
            unit = renamed(before, address)
            return self._wait(stack, _Wish(address=previous, unit=unit, approve=_whatever_it_takes, previous=address))
        return self._wait(stack, _Wish(address=address, unit=before, approve=_whatever_it_takes))

    def settled(self, unit: Unit) -> None:
        """Note that a unit is as it should be: from now on it is what later waves name for its address."""
        with self._changed:
            if (wish := self._brought.pop(unit.address, None)) is not None and wish.previous is not None:
                self._held.pop(wish.previous, None)
            self._held[unit.address] = unit

    def _wait(self, stack: StackName, wish: _Wish) -> UnitResult:
        with self._changed:
            self._wishes.setdefault(stack, []).append(wish)
            self._changed.notify_all()
            while wish.outcome is None and stack in self._at_work:
                self._changed.wait()
            if wish.outcome is None:
                self._at_work.add(stack)
        if wish.outcome is None:
            self._lead(stack)
        if isinstance(wish.outcome, BaseException):
            raise wish.outcome
        assert wish.outcome is not None  # noqa: S101 - whoever leads gives every wish of the wave its outcome
        return wish.outcome

    def _lead(self, stack: StackName) -> None:
        """Carry out one wave for all that wait for it."""
        wave: list[_Wish] = []
        try:
            wave = self._gather(stack)
            self._carry_out(stack, wave)
        except BaseException as error:
            for wish in wave:
                wish.outcome = wish.outcome or error
            raise
        finally:
            with self._changed:
                self._at_work.discard(stack)
                self._changed.notify_all()

    def _gather(self, stack: StackName) -> list[_Wish]:
        with self._changed:
            count = 0
            while count != len(self._wishes[stack]):
                count = len(self._wishes[stack])
                until = time.monotonic() + GATHER
                while time.monotonic() < until and count == len(self._wishes[stack]):
                    self._changed.wait(timeout=max(0.0, until - time.monotonic()))
            wave, self._wishes[stack] = self._wishes[stack], []
        return wave

    def _carry_out(self, stack: StackName, wave: list[_Wish]) -> None:
        if self._engine is None:
            self._engine = self._make_engine()
        wave = self._approved(stack, wave, self._engine)
        if not wave:
            return
        results = self._engine.up(stack, self._program(stack, wave), tell=self._tell, stop=self._stop)
        with self._changed:
            for wish in wave:
                wish.outcome = results.get(wish.address, UnitResult())
                if wish.outcome.problem is not None:
                    continue
                if wish.unit is None:
                    self._held.pop(wish.address, None)
                else:
                    self._brought[wish.address] = wish

    def _approved(self, stack: StackName, wave: list[_Wish], engine: StackEngine) -> list[_Wish]:
        """Preview once more with what is known now, and leave out what would be more than was approved."""
        program = self._program(stack, wave)
        try:
            readings = engine.preview(stack, program, refresh=False)
        except MlstackError:  # a provider that looks finds nothing to update of what was removed outside
            readings = engine.preview(stack, program, refresh=True)
        left = []
        for wish in wave:
            try:
                wish.approve(readings.get(wish.address, UnitReading()))
            except MlstackError as error:
                wish.outcome = error
            else:
                left.append(wish)
        return left

    def _program(self, stack: StackName, wave: list[_Wish]) -> list[Unit]:
        with self._changed:
            units = {address: unit for address, unit in self._held.items() if unit.stack == stack}
            brought = [wish for wish in self._brought.values() if wish.unit is not None and wish.unit.stack == stack]
        for wish in (*brought, *wave):
            if wish.previous is not None:
                units.pop(wish.previous, None)
            if wish.unit is None:
                units.pop(wish.address, None)
            else:
                units[wish.address] = wish.unit
        return [units[address] for address in sorted(units)]


def _whatever_it_takes(_reading: UnitReading) -> None:
    """What was there before was approved when it was made."""
