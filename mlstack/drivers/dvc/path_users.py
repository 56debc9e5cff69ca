"""DVC's list of who reads and writes which path at this moment (`.dvc/tmp/rwlock`), read and written as DVC does.

DVC holds the repository's lock for moments only; for as long as a stage runs, this list is what keeps two programs out
of one output. Entries of processes that are gone count for nothing and are removed by whoever meets them.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlstack import decoding

FILE, GUARD = "rwlock", "rwlock.lock"


class User(msgspec.Struct, frozen=True):
    """A process and the command line that DVC shows for it."""

    pid: int
    cmd: str


class _List(msgspec.Struct):
    write: dict[str, User | None] = {}
    read: dict[str, list[User]] = {}


class PathUsers:
    """The list of one DVC project. Safe for threads; `guard` takes DVC's lock around a change and returns its release.

    Paths are absolute, with links in the project's own path resolved, as DVC writes them.
    """

    def __init__(self, folder: Path, guard: Callable[[], Callable[[], None]]) -> None:
        self._path = folder / FILE
        self._guard = guard
        self._mutex = threading.Lock()
        self._ours: set[str] = set()

    def user_of(self, paths: Sequence[str]) -> tuple[str, User] | None:
        """Return path and live process of somebody else who reads or writes one of these paths."""
        return self._blocking(self._load(), read=(), write=paths)

    def enter(self, cmd: str, *, read: Sequence[str], write: Sequence[str]) -> tuple[str, User] | None:
        """Put this process on the list under `cmd`, which is its own for as long as it is there.

        Returns path and process, with nothing changed, when somebody else writes what would be read, or uses what would
        be written. An entry that a process before us left under the same `cmd` is taken over. Raises `OSError`.
        """
        with self._mutex:
            release = self._guard()
            try:
                users = self._load()
                blocking = self._blocking(users, read=read, write=write, but=cmd)
                if blocking is not None:
                    return blocking
                ours = User(os.getpid(), cmd)
                _remove(users, lambda user: user.cmd == cmd or not _is_alive(user.pid))
                for path in write:
                    users.write[path] = ours
                for path in read:
                    users.read.setdefault(path, []).append(ours)
                self._store(users)
            finally:
                release()
            self._ours.add(cmd)
        return None

    def add_process(self, cmd: str, pid: int, paths: Sequence[str]) -> None:
        """Let the entry under `cmd` stand for as long as `pid` lives, too: it goes on writing if this process dies."""
        with self._mutex:
            release = self._guard()
            try:
                users = self._load()
                for path in paths:
                    # The list knows one writer of a path and many readers: as a reader it keeps writers away as well.
                    users.read.setdefault(path, []).append(User(pid, cmd))
                self._store(users)
            finally:
                release()

    def leave(self, cmd: str) -> None:
        """Take off the list what stands under `cmd`. Raises `OSError`."""
        with self._mutex:
            release = self._guard()
            try:
                users = self._load()
                _remove(users, lambda user: user.cmd == cmd)
                self._store(users)
            finally:
                release()
                self._ours.discard(cmd)

    # ------------------------------------------------------------------------------------------------ inside

    def _blocking(
        self, users: _List, *, read: Sequence[str], write: Sequence[str], but: str = ""
    ) -> tuple[str, User] | None:
        listed = [(path, user, (*read, *write)) for path, user in users.write.items() if user is not None]
        listed += [(path, user, tuple(write)) for path, found in users.read.items() for user in found]
        for path, user, wanted in listed:
            if user.pid == os.getpid() or user.cmd == but or user.cmd in self._ours:
                continue
            if any(_overlap(path, ours) for ours in wanted) and _is_alive(user.pid):
                return path, user
        return None

    def _load(self) -> _List:
        """Read the list. One that cannot be read (DVC was killed while it wrote) says nothing, and is written anew."""
        try:
            return decoding.decode(self._path.read_bytes(), _List)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return _List()

    def _store(self, users: _List) -> None:
        """Write the list whole: DVC refuses every command over one that is cut off."""
        content: dict[str, Any] = {}
        if users.write:
            content["write"] = users.write
        if users.read:
            content["read"] = users.read
        temporary = self._path.with_name(f"{FILE}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(content))
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _remove(users: _List, is_over: Callable[[User], bool]) -> None:
    users.write = {path: user for path, user in users.write.items() if user is not None and not is_over(user)}
    read = {path: [user for user in found if not is_over(user)] for path, found in users.read.items()}
    users.read = {path: found for path, found in read.items() if found}


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
