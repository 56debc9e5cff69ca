"""The lock of the working tree: one command at a time writes outputs, `dvc.yaml` and `dvc.lock` in this checkout.

It is a lock of the operating system, so it ends with its process, however that dies. It says nothing about other
checkouts: the lock of the environment does.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.whole_files import remove_leftovers
from mlstack.state.environment_folder import OWN_FOLDER, ensure_own_folder
from mlstack.state.folder import explain_os_error
from mlstack.state.identity import Clock, iso_time, person

_LOCK = "workspace.lock"
_HOLDER = "workspace.holder.json"


class WorkspaceHolder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the working tree, for messages only: the lock itself is the system's."""

    operation: str
    who: str
    pid: int
    since: str


@contextmanager
def workspace_lock(
    root: Path,
    *,
    operation: str,
    timeout: float = 0.0,
    on_wait: Callable[[WorkspaceHolder | None], None] | None = None,
    clock: Clock = time.time,
) -> Iterator[None]:
    """Hold the working tree at `root`, waiting up to `timeout` seconds; `on_wait` is told once whom it waits for.

    Not re-entrant. Raises `MlstackError`: `workspace-locked` with who holds it, or why the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    path = ensure_own_folder(root) / _LOCK
    # A lock taken by one thread is released by whichever runs the clean-up.
    lock = FileLock(path, thread_local=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if timeout > 0:
                if on_wait is not None:
                    on_wait(workspace_holder(root))
                lock.acquire(timeout=timeout)
            else:
                raise
    except Timeout as error:
        raise MlstackError(_held(root, workspace_holder(root))) from error
    except OSError as error:
        raise MlstackError(explain_os_error(error, path, writing=True)) from error
    try:
        remove_leftovers(root)
        _write_holder(root, operation, clock())
        yield
    finally:
        with suppress(OSError):
            _holder_path(root).unlink(missing_ok=True)
        lock.release()


def workspace_holder(root: Path) -> WorkspaceHolder | None:
    """Return who says to have the working tree. Only to be trusted while the lock is refused."""
    try:
        return decoding.decode(_holder_path(root).read_bytes(), WorkspaceHolder)
    except (OSError, msgspec.DecodeError):
        return None


def _write_holder(root: Path, operation: str, now: float) -> None:
    holder = WorkspaceHolder(operation=operation, who=person(), pid=os.getpid(), since=iso_time(now))
    with suppress(OSError):  # a message less, on a disk that is full
        _holder_path(root).write_bytes(msgspec.json.encode(holder))


def _holder_path(root: Path) -> Path:
    return root / OWN_FOLDER / _HOLDER


def _held(root: Path, holder: WorkspaceHolder | None) -> Diagnostic:
    who = (
        "Another mlstack process"
        if holder is None
        else f"`{holder.operation}` by {holder.who} (process {holder.pid}), since {holder.since},"
    )
    return Diagnostic(
        code="workspace-locked",
        summary="The working tree is in use",
        detail=f"{who} works in {root}.",
        hint="Wait until it is done (`--lock-timeout 10m` waits by itself), or use another clone. "
        "The lock ends with that process; there is nothing to unlock.",
    )
