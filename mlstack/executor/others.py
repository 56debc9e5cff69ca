"""What other applies record while this one only waits for its runs, and has given the lock back."""

from typing import TYPE_CHECKING

from mlstack.drivers.stack_programs import recorded_unit
from mlstack.graph.change import Change
from mlstack.spec.address import Address
from mlstack.state.state import Record

if TYPE_CHECKING:
    from mlstack.executor.work import Work


class Others:
    """What one apply knows of others. `settle` and `renew` are called by its tenure while no step is at work."""

    def __init__(self, work: "Work") -> None:
        self._work = work
        self._settled: dict[Address, Record] = {}
        self._overtaken: set[Address] = set()

    def settle(self) -> bool:
        """Put everything that was done where it belongs, so that others can go on from there. Raises `MlstackError`.

        False while a pool holds what only this apply knows to be let go of.
        """
        work = self._work
        if work.expanded:
            return False
        work.hands.results.flush()
        work.store.compact()
        work.store.renew()  # as it is read back: a tuple that was written is a list then
        self._settled = work.recorded()
        return True

    def renew(self) -> None:
        """Take over what was recorded since `settle`. Raises `MlstackError`."""
        work = self._work
        work.store.renew()
        before, now = self._settled, work.recorded()
        changed = {address for address in before.keys() | now.keys() if before.get(address) != now.get(address)}
        for address in changed:
            if address in now:
                work.learn_record(now[address])
            else:
                work.forget_record(address)
        work.waves.renew({address: recorded_unit(now[address]) if address in now else None for address in changed})
        self._overtaken |= changed

    def check(self, change: Change) -> None:
        """Raise `NotApprovedError` if another apply has changed what a row, or what it needs, is about."""
        open_, seen = [change.address], set[Address]()
        while self._overtaken and open_:
            address = open_.pop()
            if address in self._overtaken:
                self._work.refuse(change, f"and another apply has changed {address} since")
            if address not in seen:
                seen.add(address)
                open_.extend(self._work.graph.needs.get(address, ()))
