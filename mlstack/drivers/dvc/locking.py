"""DVC's own locks: never two programs in one cache or one output."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
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

    @contextmanager
    def held(self, paths: Sequence[str] = ()) -> Iterator[None]:
        """Hold the lock; `paths` (absolute) must not be in use by a stage that DVC runs at this moment.

        Raises `MlstackError` when patience ends, naming the process that has it.
        """
        deadline = self._clock() + self._patience
        with self._mutex:
            release = self._acquire(deadline)
            try:
                while paths and (user := self._user_of(paths)) is not None:
                    release()
                    release = _nothing
                    if self._clock() > deadline:
                        raise MlstackError(_path_busy(*user))
                    time.sleep(_PAUSE)
                    release = self._acquire(deadline)
                yield
            finally:
                release()

    def _acquire(self, deadline: float) -> Callable[[], None]:
        folder = self._settings.folder / "tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MlstackError(_no_folder(folder, error)) from error
        take = self._take_hardlink if self._settings.hardlink_lock else self._take
        while True:
            release = take(folder)
            if release is not None:
                return release
            if self._clock() > deadline:
                raise MlstackError(_busy(folder / "lock", self._patience))
            time.sleep(_PAUSE)

    def _take(self, folder: Path) -> Callable[[], None] | None:
        """Take it as `zc.lockfile` does, which DVC uses; None if somebody has it."""
        import fcntl

        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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

    def _take_hardlink(self, folder: Path) -> Callable[[], None] | None:
        from dvc.lock import LockError, make_lock

        lock = make_lock(str(folder / "lock"), tmp_dir=str(folder), hardlink_lock=True)
        try:
            lock.lock(timeout=1)
        except LockError:
            return None

        def release() -> None:
            lock.unlock()

        return release

    def _user_of(self, paths: Sequence[str]) -> tuple[str, int, str] | None:
        """Return path, pid and command of a live process that has one of these paths in `.dvc/tmp/rwlock`."""
        try:
            users = msgspec.json.decode((self._settings.folder / "tmp" / "rwlock").read_bytes(), type=_RwLock)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        listed = [(path, [info]) for path, info in users.write.items() if info is not None]
        listed += list(users.read.items())
        for path, infos in listed:
            if not any(_overlap(path, ours) for ours in paths):
                continue
            for info in infos:
                if info.pid != os.getpid() and _is_alive(info.pid):
                    return path, info.pid, info.cmd
        return None


class _Info(msgspec.Struct):
    pid: int
    cmd: str


class _RwLock(msgspec.Struct):
    write: dict[str, _Info | None] = {}
    read: dict[str, list[_Info]] = {}


def _nothing() -> None:
    """Release what is not held."""


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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


def _path_busy(path: str, pid: int, cmd: str) -> Diagnostic:
    return Diagnostic(
        code="dvc-runs",
        summary="DVC runs a stage that uses the same files",
        detail=f"{path} is in use by process {pid}: {cmd}.",
        hint="Wait until it is done, then apply again; what is done stays done.",
    )


def _no_folder(folder: Path, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="dvc-folder-unwritable",
        summary="DVC's folder cannot be written",
        detail=f"{folder}: {error.strerror or error}.",
        hint="Make it writable; apply needs it for DVC's lock.",
    )
