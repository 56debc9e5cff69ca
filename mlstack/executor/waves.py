"""Updates of stacks in waves: steps that are ready together are one update of their stack, and wait for it together.

Each wave names its whole stack: what is ready as it should be, everything else as it was recorded. So one thing that
fails takes nothing along, and what is not its turn yet is left alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition
from threading import Event as StopFlag

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.shared_objects import folded, gathered, holder_of, result_of, told_of_holders
from mlstack.drivers.stack_programs import renamed
from mlstack.drivers.stacks import StackEngine, StackName, Tell, Unit, UnitReading, UnitResult
from mlstack.spec.address import Address

GATHER = 0.25
"""Seconds without another step before a wave begins: a step's thread takes a moment to get here."""

LONGEST = 15.0
"""Seconds for which a wave at most waits for steps that are on their way: every wave asks for the whole stack."""

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
    """The stacks of one apply. Steps call it from threads of their own. `verify` raises unless the lock is held."""

    def __init__(
        self,
        engine: Callable[[], StackEngine],
        recorded: Mapping[Address, Unit],
        *,
        stop: StopFlag,
        verify: Callable[[], None] = lambda: None,
    ) -> None:
        self._make_engine, self._stop, self._verify = engine, stop, verify
        self._engine: StackEngine | None = None
        self._held = dict(recorded)
        self._brought: dict[Address, _Wish] = {}  # carried out, and not settled yet
        self._wishes: dict[StackName, list[_Wish]] = {}
        self._at_work: set[StackName] = set()
        self._coming: dict[StackName, set[Address]] = {}
        self._changed = Condition()
        self._tell: Tell = lambda _address, _line: None

    def tell_with(self, tell: Tell) -> None:
        """Report progress through this function."""
        self._tell = tell

    def renew(self, changed: Mapping[Address, Unit | None]) -> None:
        """Take over what others have recorded while this apply waited (None: nothing any more)."""
        with self._changed:
            self._engine = None  # what it read of the stacks is old
            for address, unit in changed.items():
                self._brought.pop(address, None)
                if unit is None:
                    self._held.pop(address, None)
                else:
                    self._held[address] = unit

    def held(self) -> list[Unit]:
        """Return what the stacks hold."""
        with self._changed:
            return list(self._held.values())

    @contextmanager
    def coming(self, address: Address, stack: StackName) -> Iterator[None]:
        """Tell that a step gets ready to bring something, and does so in this block: a wave waits for it, a while."""
        with self._changed:
            self._coming.setdefault(stack, set()).add(address)
        try:
            yield
        finally:
            self._came(address, stack)

    def _came(self, address: Address, stack: StackName) -> None:
        with self._changed:
            self._coming.get(stack, set()).discard(address)
            self._changed.notify_all()

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
            self._came(wish.address, stack)
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
            self._changed.wait_for(lambda: not self._coming.get(stack), timeout=LONGEST)
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
        program, concerned = self._program(stack, wave), self._concerned(wave)

        def tell(address: Address, line: str) -> None:
            self._tell(holder_of(address, concerned), line)

        self._verify()
        idle = self._idle(program, wave)
        results = self._engine.up(stack, program, tell=tell, stop=self._stop, idle=idle)
        with self._changed:
            for wish in wave:
                wish.outcome = result_of(results, wish.unit or self._held.get(wish.address), wish.address)
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
            with told_of_holders(self._concerned(wave)):
                readings = engine.preview(stack, program, refresh=True, idle=self._idle(program, wave))
        readings = folded(readings, self._concerned(wave))
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
        return gathered(units, newer={wish.address for wish in (*brought, *wave)})

    def _idle(self, program: list[Unit], wave: list[_Wish]) -> set[str]:
        """Return the providers that a wave does nothing to: they need not answer.

        None where something goes that is not recorded: a new unit that is taken back, what a killed apply left.
        """
        with self._changed:
            if any(wish.unit is None and wish.address not in self._held for wish in wave):
                return set()
            names = {name for wish in wave for name in (wish.address, wish.previous) if name is not None}
            there = [self._held[name] for name in names if name in self._held]
            there += [each.unit for each in self._brought.values() if each.unit is not None]
        there += [wish.unit for wish in wave if wish.unit is not None]
        return {unit.provider.key for unit in program} - {unit.provider.key for unit in there}

    def _concerned(self, wave: list[_Wish]) -> list[Unit]:
        """Return the units of a wave, those that are to come before those that are to go."""
        with self._changed:
            before = [self._held[wish.address] for wish in wave if wish.address in self._held]
        return [*(wish.unit for wish in wave if wish.unit is not None), *before]


def _whatever_it_takes(_reading: UnitReading) -> None:
    """What was there before was approved when it was made."""
