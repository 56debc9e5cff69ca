"""Ctrl-C: the first lets running steps finish and starts no more, the second stops now."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Flag
from types import FrameType

from mlstack.drivers.stacks import Stop

_LOST_GRACE = 6.0  # seconds for an update of a stack in flight when the lock is lost: others may begin one soon


class Interrupt:
    """Two flags that a person raises one after the other. `stacks` is up with the second, or when the lock is lost."""

    def __init__(self) -> None:
        self.draining = Flag()
        self.now = Flag()
        self.stacks = Stop()
        self._on_raise: Callable[[bool], None] | None = None
        self._asked = self._answered = 0
        self._is_answering = False

    def on_raise(self, tell: Callable[[bool], None]) -> None:
        """Have `tell(now)` called each time a flag is raised: in a signal handler, so it must not wait for anything."""
        self._on_raise = tell

    def raise_(self) -> None:
        """Raise the first flag, or the second when the first is up.

        A signal may come in the midst of another one's handler, which holds the lock of a flag that it is raising: it
        only leaves word, and the one that it came into goes on with it.
        """
        self._asked += 1
        if self._is_answering:
            return
        while self._answered < self._asked:
            self._is_answering = True
            self._answered += 1
            self._raise_next()
            self._is_answering = False  # before looking again: no word may be left in between

    def _raise_next(self) -> None:
        if self.draining.is_set():
            self.now.set()
            self.stacks.set()
        self.draining.set()
        if self._on_raise is not None:
            self._on_raise(self.now.is_set())

    def lose_lock(self) -> None:
        """End what must not go on beside another apply: updates of stacks. Runs may, and whoever waits for them."""
        self.stacks.grace = _LOST_GRACE
        self.stacks.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGINT and SIGTERM inside the block; must be entered in the main thread."""

        def hear(_number: int, _frame: FrameType | None) -> None:
            self.raise_()

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
