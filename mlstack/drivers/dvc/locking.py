"""DVC's own locks: never two programs in one cache or one output."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.path_users import GUARD, PathUsers, User
from mlstack.drivers.dvc.settings import DvcSettings

PATIENCE = 60.0
_PAUSE = 0.05


class RepositoryLock:
    """The lock that every `dvc` command takes (`.dvc/tmp/lock`, flock), and the list of paths that its runs use.

    Held for moments only. `patience` (seconds) is how long a `dvc` command of the user may keep us waiting.
    """

    def __init__(
        self, settings: DvcSettings, *, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._clock = clock
        self._mutex = threading.Lock()
        self._users = PathUsers(settings.folder / "tmp", lambda: self._acquire(clock() + patience, GUARD))

    @contextmanager
    def held(self, paths: Sequence[str] = ()) -> Iterator[None]:
        """Hold the lock; `paths` (absolute) must not be in use by a stage that DVC runs at this moment.

        Raises `MlstackError` when patience ends, naming the process that has it.
        """
        deadline = self._clock() + self._patience
        with self._mutex:
            release = self._acquire(deadline)
            try:
                while paths and (user := self._users.user_of(paths)) is not None:
                    release()
                    release = _nothing
                    if self._clock() > deadline:
                        raise MlstackError(_path_busy(*user))
                    time.sleep(_PAUSE)
                    release = self._acquire(deadline)
                yield
            finally:
                release()

    @contextmanager
    def occupied(
        self,
        cmd: str,
        *,
        read: Sequence[str],
        write: Sequence[str],
        on_wait: Callable[[str], None],
        stop: Callable[[], bool],
    ) -> Iterator[Callable[[int], None] | None]:
        """Be on the list of those who use these paths (absolute), so that no `dvc` command runs into a stage of ours.

        Yields what puts the process that does the work on the list as well; None when told to `stop` while waiting.
        `on_wait` is told once whom this waits for. Raises `MlstackError` when patience ends, naming that process.
        """
        deadline = self._clock() + self._patience
        told = False
        while (blocking := self._enter(cmd, read, write)) is not None:
            if stop():
                yield None
                return
            if self._clock() > deadline:
                raise MlstackError(_path_busy(*blocking))
            if not told:
                on_wait(f"waiting for process {blocking[1].pid} ({blocking[1].cmd}), which uses {blocking[0]}")
                told = True
            time.sleep(_PAUSE)
        try:
            yield lambda pid: self._add_process(cmd, pid, write)
        finally:
            with suppress(OSError, MlstackError):  # what is left counts for nothing once this process has ended
                self._users.leave(cmd)

    def _enter(self, cmd: str, read: Sequence[str], write: Sequence[str]) -> tuple[str, User] | None:
        try:
            return self._users.enter(cmd, read=read, write=write)
        except OSError as error:
            raise MlstackError(_no_folder(self._settings.folder / "tmp", error)) from error

    def _add_process(self, cmd: str, pid: int, paths: Sequence[str]) -> None:
        with suppress(OSError):  # a full disk; it is on the list with our own process
            self._users.add_process(cmd, pid, paths)

    def _acquire(self, deadline: float, name: str = "lock") -> Callable[[], None]:
        folder = self._settings.folder / "tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MlstackError(_no_folder(folder, error)) from error
        take = self._take_hardlink if self._settings.hardlink_lock else self._take
        while True:
            release = take(folder, name)
            if release is not None:
                return release
            if self._clock() > deadline:
                raise MlstackError(_busy(folder / name, self._patience))
            time.sleep(_PAUSE)

    def _take(self, folder: Path, name: str) -> Callable[[], None] | None:
        """Take it as `zc.lockfile` does, which DVC uses; None if somebody has it."""
        import fcntl

        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        content = f" {os.getpid()}\n".encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)

        def release() -> None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

        return release

    def _take_hardlink(self, folder: Path, name: str) -> Callable[[], None] | None:
        from dvc.lock import LockError, make_lock

        lock = make_lock(str(folder / name), tmp_dir=str(folder), hardlink_lock=True)
        try:
            lock.lock(timeout=1)
        except LockError:
            return None

        def release() -> None:
            lock.unlock()

        return release


def _nothing() -> None:
    """Release what is not held."""


def _holder(lock: Path) -> str:
    try:
        text = lock.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {text})" if text.isdigit() else ""


def _busy(lock: Path, patience: float) -> Diagnostic:
    return Diagnostic(
        code="dvc-busy",
        summary="A DVC command holds the repository's lock",
        detail=f"{lock}{_holder(lock)} was not released within {patience:.0f} s.",
        hint="Wait until that `dvc` command is done, then apply again; what is done stays done.",
    )


def _path_busy(path: str, user: User) -> Diagnostic:
    return Diagnostic(
        code="dvc-runs",
        summary="DVC runs a stage that uses the same files",
        detail=f"{path} is in use by process {user.pid}: {user.cmd}.",
        hint="Wait until it is done, then apply again; what is done stays done.",
    )


def _no_folder(folder: Path, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="dvc-folder-unwritable",
        summary="DVC's folder cannot be written",
        detail=f"{folder}: {error.strerror or error}.",
        hint="Make it writable; apply needs it for DVC's lock.",
    )
