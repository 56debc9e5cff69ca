"""When an apply holds the environment's lock: while a step is at work, and not while all only wait for runs.

Training takes days; an environment that nobody else may touch meanwhile would be of no use. So what was done is
recorded, the lock is given back, and whoever has something to record takes it again, and reads what others did.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from mlstack.diagnostics import MlstackError
from mlstack.state.held_lock import ApplyLock


class Tenure:
    """The lock over one walk; a context manager around it. Steps call it from threads of their own.

    `settle` makes whole what was recorded, right before the lock is given back, and says whether now is a time for
    that; `renew` reads what others recorded, right after it was taken again.
    """

    grace = 5.0
    """Seconds for which every step has to wait before the lock is given back: short runs are not worth two writes."""

    def __init__(
        self,
        lock: ApplyLock,
        *,
        settle: Callable[[], bool],
        renew: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._lock, self._settle, self._renew, self._stop = lock, settle, renew, stop
        self._at_work = 0
        self._waiting = 0
        self._is_away = False
        self._is_over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="mlstack-tenure", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def at_work(self, say: Callable[[str], None]) -> Iterator[None]:
        """Be a step that may write records inside the block. Raises `MlstackError` when the lock cannot be had."""
        self._begin(say)
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    @contextmanager
    def apart(self, say: Callable[[str], None]) -> Iterator[None]:
        """Only wait inside the block, and record nothing; must be entered at work, which it is again afterwards."""
        with self._changed:
            self._at_work -= 1
            self._waiting += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._at_work += 1  # also when the lock cannot be had: who entered at work leaves it
            self._return(say)

    def _begin(self, say: Callable[[str], None]) -> None:
        with self._changed:
            self._at_work += 1
        try:
            self._return(say)
        except BaseException:
            with self._changed:
                self._at_work -= 1
            raise

    def _return(self, say: Callable[[str], None]) -> None:
        with self._changed:  # the first that has something to do takes the lock for all; the others wait here
            if not self._is_away:
                return
            self._lock.take_again(
                on_wait=lambda owner: say(f"waits for the lock that {owner.who} on {owner.host} holds"),
                stop=self._stop,
            )
            self._renew()
            self._is_away = False

    def _watch(self) -> None:
        with self._changed:
            can_be_given_back = True
            while can_be_given_back and not self._is_over:
                if not self._is_idle():
                    self._changed.wait()
                elif not self._changed.wait_for(lambda: self._is_over or not self._is_idle(), timeout=self.grace):
                    can_be_given_back = self._give_back()

    def _is_idle(self) -> bool:
        return not self._is_away and self._at_work == 0 and self._waiting > 0

    def _give_back(self) -> bool:
        """Give the lock back; False when that cannot be. It is held on then: the end of the apply meets the same."""
        try:
            if not self._settle():
                return False
            self._is_away = self._lock.give_back()
        except MlstackError:
            return False
        return self._is_away
