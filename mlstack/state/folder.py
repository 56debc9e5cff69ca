"""The backend on a folder of this machine (or one that several machines see): each key is a file.

What makes it durable and atomic:
1. Content is written to a file of its own under `.tmp/`, flushed to the disk, and only then gets its name: a name never
   stands for half of a content, whenever the process or the machine dies.
2. `create` names it with `link`, which fails if the name is taken: of many processes exactly one succeeds, with no lock
   and at a cost that does not depend on how many keys there are.
3. `replace` and `delete` compare and act under an operating-system lock that is held for a moment and dies with its
   process.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from mlstack.diagnostics import Diagnostic, MlstackError

T = TypeVar("T")
_TEMPORARY = ".tmp"
_MUTEX = ".mutex"
_LEFTOVER_AGE = 3600.0  # seconds after which a file in `.tmp` belongs to nobody
_MUTEX_PATIENCE = 30.0  # seconds; the lock is held for milliseconds unless a process was stopped right there
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class FolderBackend:
    """`Backend` on a folder. Nothing is created before the first write; reading needs no right to write.

    `prepare` is called once before the first write. Every failure of the system is raised as `MlstackError`, and the
    keys are then what they were.
    """

    def __init__(self, folder: Path, *, prepare: Callable[[], object] | None = None) -> None:
        self._folder = str(folder)
        self._prepare = prepare
        self._written = 0

    def location(self, key: str) -> str:
        """Return the path of the file that holds `key`; of the folder itself for ""."""
        return self._path(key) if key else self._folder

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, *_segments(key))  # noqa: PTH118 - hot path: pathlib costs ten times as much

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return content and tag, or None when there is no such key."""
        with _explained(path := self._path(key), writing=False):
            data = _read(path)
        return None if data is None else (data, _tag(data))

    def get_all(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Return what `get` returns for each key, in their order."""
        return [self.get(key) for key in keys]

    def create(self, key: str, data: bytes) -> str | None:
        """Create `key` durably and return its tag; None, with nothing written, when it exists already."""
        with _explained(path := self._path(key), writing=True), self._content(data) as temporary:
            if not self._name(temporary, path):
                return None
            try:
                _sync_folder_of(path)
            except OSError:
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - what is reported as failed must not be there
                raise
        return _tag(data)

    def _name(self, temporary: str, path: str) -> bool:
        """Give a complete file its name; False when the name is taken."""
        try:
            _into_folder(path, lambda: os.link(temporary, path))
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self._mutex():
                if os.path.lexists(path):
                    return False
                _into_folder(path, lambda: os.replace(temporary, path))  # noqa: PTH105
        return True

    def replace(self, key: str, data: bytes, *, tag: str | None) -> str | None:
        """Write `key` durably if its tag is still `tag` (None: whatever it is). None when somebody else was faster."""
        with _explained(path := self._path(key), writing=True), self._content(data) as temporary, self._mutex():
            if tag is not None and not _has_tag(path, tag):
                return None
            _into_folder(path, lambda: os.replace(temporary, path))  # noqa: PTH105
            _sync_folder_of(path)
        return _tag(data)

    def delete(self, key: str, *, tag: str | None = None) -> None:
        """Delete `key` if its tag is still `tag` (None: whatever it is); what is gone already is no error.

        Not flushed: a deleted key that a power failure brings back is one that every reader knows to be over.
        """
        with _explained(path := self._path(key), writing=True), suppress(FileNotFoundError, NotADirectoryError):
            if tag is None:
                os.unlink(path)  # noqa: PTH108
            elif os.path.lexists(path):
                with self._mutex():
                    if _has_tag(path, tag):
                        os.unlink(path)  # noqa: PTH108

    def keys(self, prefix: str) -> Sequence[str]:
        """Return all keys below `prefix` ("" or ending with "/"), sorted."""
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a prefix ends with a slash: {prefix!r}")
        with _explained(path := self.location(prefix.rstrip("/")), writing=False):
            return sorted(_walk(path, prefix))

    @contextmanager
    def _content(self, data: bytes) -> Iterator[str]:
        """Hold `data` in a temporary file, complete and on the disk; remove that name at the end."""
        folder = os.path.join(self._folder, _TEMPORARY)  # noqa: PTH118
        if self._written == 0:
            if self._prepare is not None:
                self._prepare()
            _remove_leftovers(folder)
        self._written += 1
        # The address of this object keeps two backends of one process apart, the process ID two processes.
        path = os.path.join(folder, f"{os.getpid()}-{id(self):x}-{self._written}-{os.urandom(3).hex()}")  # noqa: PTH118
        try:
            descriptor = _into_folder(path, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield path
        finally:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108

    @contextmanager
    def _mutex(self) -> Iterator[None]:
        """Keep all other processes and threads out for the moment of a compare-and-swap."""
        import fcntl

        path = os.path.join(self._folder, _MUTEX)  # noqa: PTH118
        descriptor = _into_folder(path, lambda: os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            give_up = time.monotonic() + _MUTEX_PATIENCE
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise MlstackError(_busy(path)) from None
                    time.sleep(0.002)
            yield
        finally:
            os.close(descriptor)  # closing ends the lock


def _segments(key: str) -> list[str]:
    segments = key.split("/")
    if not all(segments) or any(segment.startswith(".") for segment in segments):
        raise ValueError(f"not a key: {key!r}")
    return segments


def _tag(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def _has_tag(path: str, tag: str) -> bool:
    data = _read(path)
    return data is not None and _tag(data) == tag


def _read(path: str) -> bytes | None:
    try:
        # keys are plain files: a link in a folder that came with a branch could lead to anything
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", path)
        # One more byte than the size says: a file that grew is noticed by the loop.
        chunks = [os.read(descriptor, os.fstat(descriptor).st_size + 1)]
        while chunks[-1]:
            chunks.append(os.read(descriptor, 1 << 20))
    finally:
        os.close(descriptor)
    return chunks[0] if len(chunks) == 2 else b"".join(chunks)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _walk(path: str, prefix: str) -> Iterator[str]:
    try:
        found = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}"


def _into_folder(path: str, write: Callable[[], T]) -> T:
    """Do what makes `path`; only if its folder turns out to be missing, make that first."""
    try:
        return write()
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))  # noqa: PTH120
        return write()


def _make_folder(folder: str) -> None:
    if os.path.isdir(folder):  # noqa: PTH112
        return
    _make_folder(os.path.dirname(folder))  # noqa: PTH120
    with suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102
    _sync_folder_of(folder)


def _sync_folder_of(path: str) -> None:
    """Flush the folder that holds `path`, so that its name is there after a power failure."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: str) -> None:
    """Remove temporary files of processes that died in the middle of a write."""
    oldest = time.time() - _LEFTOVER_AGE
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with suppress(OSError):
                if entry.stat().st_mtime < oldest:
                    os.unlink(entry.path)  # noqa: PTH108


@contextmanager
def _explained(path: str, *, writing: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MlstackError(explain_os_error(error, path, writing=writing)) from error


def explain_os_error(error: OSError, path: str | Path, *, writing: bool) -> Diagnostic:
    """Say what the system refused while `path` was written or read."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return Diagnostic(
            code="disk-full",
            summary="There is no space left to write",
            detail=f"{path} could not be written: {reason}. What was recorded before is untouched.",
            hint="Make space and run the same command again: it goes on where this one stopped.",
        )
    if error.errno in _FORBIDDEN and writing:
        return Diagnostic(
            code="folder-read-only",
            summary="A folder that has to be written is read-only",
            detail=f"{path} could not be written: {reason}. What was recorded before is untouched.",
            hint="Give yourself the right to write there, or work in a copy of the project. "
            "`mlstack plan` needs no right to write.",
        )
    did = "written" if writing else "read"
    return Diagnostic(
        code="state-not-written" if writing else "state-not-readable",
        summary="What mlstack records could not be written" if writing else "What mlstack recorded could not be read",
        detail=f"{path} could not be {did}: {reason}.",
        hint="Check the path, its permissions and the disk, then run the same command again.",
    )


def _busy(path: str) -> Diagnostic:
    return Diagnostic(
        code="state-busy",
        summary="Another process is in the middle of a write",
        detail=f"{path} has been locked for {_MUTEX_PATIENCE:.0f} s, which normally takes milliseconds: a process that "
        "works on this state was probably stopped (Ctrl-Z) or its disk hangs.",
        hint="Continue or end that process, then run the same command again.",
    )
