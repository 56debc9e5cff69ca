"""The lock of an environment over one command, which gives it back while it only waits, and takes it again."""

import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.state.environment_lock import EnvironmentLock, acquire
from mlstack.state.protocols import Backend
from mlstack.state.state import LockRecord

OnWait = Callable[[LockRecord], None]


class ApplyLock(Protocol):
    """What carries out a plan needs of the environment's lock. Every method raises `MlstackError`."""

    def verify(self) -> None:
        """Make sure that it is held at this moment: asked before everything that is recorded."""
        ...

    def give_back(self) -> bool:
        """Let others have it; False for a lock that cannot be given back and stays held."""
        ...

    def take_again(self, *, on_wait: OnWait, stop: threading.Event) -> None:
        """Wait for it as long as it takes, or until told to stop."""
        ...


class NoLock:
    """For what records nothing: tries. Always held, never given back."""

    def verify(self) -> None:
        """Find it held."""

    def give_back(self) -> bool:
        """Keep it."""
        return False

    def take_again(self, *, on_wait: OnWait, stop: threading.Event) -> None:
        """Have it still."""


class HeldLock:
    """Satisfies `ApplyLock`; a context manager that releases what is held at its end."""

    def __init__(
        self, backend: Backend, *, operation: str, environment: str, timeout: float = 0.0, on_wait: OnWait | None = None
    ) -> None:
        self._backend, self._operation, self._environment = backend, operation, environment
        self.on_loss: Callable[[], None] = _nothing
        """Called from a thread when the lock is lost, or about to be: what is at work has to end."""
        self._lock: EnvironmentLock | None = acquire(
            backend,
            operation=operation,
            environment=environment,
            timeout=timeout,
            on_wait=on_wait,
        )
        self._lock.on_loss = self._lose
        self.note = self._lock.note

    def _lose(self) -> None:
        self.on_loss()

    def verify(self) -> None:
        """Make sure that the lock is held. Raises `MlstackError` when it is not: no further step may start."""
        if self._lock is None:
            raise MlstackError(_not_taken_again(self._environment))
        self._lock.verify()

    def give_back(self) -> bool:
        """Let others have the lock. When that fails it counts as held, and the next `verify` looks."""
        lock = self._lock
        if lock is None:
            return True
        lock.verify()
        try:
            lock.release()
        except MlstackError:
            self._lock = lock.again()
            raise
        self._lock = None
        return True

    def take_again(self, *, on_wait: OnWait, stop: threading.Event) -> None:
        """Wait for the lock as long as it takes; told to stop, try once."""

        def sleep(seconds: float) -> None:
            if stop.wait(seconds):
                raise MlstackError(_not_taken_again(self._environment))

        if self._lock is None:
            self._lock = acquire(
                self._backend,
                operation=self._operation,
                environment=self._environment,
                timeout=math.inf,
                on_wait=on_wait,
                sleep=sleep,
            )
            self._lock.on_loss = self._lose

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.__exit__(kind, error, traceback)


def _nothing() -> None:
    """Nobody is at work yet."""


def _not_taken_again(environment: str) -> Diagnostic:
    return Diagnostic(
        code="lock-not-taken-again",
        summary="Another command holds the lock of the environment",
        detail=f'The lock of environment "{environment}" was given back while runs were waited for, and was not to be '
        "had again before this command was told to stop. What was done before is recorded; runs go on.",
        hint="The next apply follows them, and takes their results.",
        command="mlstack apply",
    )
