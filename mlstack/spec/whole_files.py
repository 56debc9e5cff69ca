"""Writing files that are there whole or not at all, whatever is killed when.

What is not whole yet waits in `.mlstack/tmp`, where neither a person, nor Git, nor the digest of a folder meets what a
killed process has left; beside the file only where there is no such folder, or it is on another file system.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

_OWN, _WAITING = ".mlstack", "tmp"
_LEFTOVER_AGE = 3600.0  # seconds after which what waits belongs to nobody


def write_whole(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace a file durably: content under another name, fsync, rename, fsync of the folder.

    The mode of an existing file is kept unless `mode` is given; a device or pipe (`/dev/stdout`) is written into, never
    replaced. Raises `OSError`; the old content stays whole then.
    """
    with suppress(FileNotFoundError):
        there = path.stat().st_mode
        if not S_ISREG(there):
            path.write_bytes(content)
            return
        mode = there & 0o7777 if mode is None else mode
    places = [*waiting_folders(path.parent), path.parent]
    for folder in places:
        waiting = folder / waiting_name()
        try:
            _write(waiting, content, mode)
            waiting.replace(path)
            break
        except OSError as error:
            waiting.unlink(missing_ok=True)
            if error.errno != errno.EXDEV or folder is places[-1]:
                raise
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def waiting_name() -> str:
    """Return a name that nothing else has, for what is not whole yet; hidden, and plainly mlstack's own."""
    return f".{os.getpid()}-{os.urandom(4).hex()}.mlstack.tmp"


def waiting_folders(folder: Path) -> Iterator[Path]:
    """Give the folder in which what belongs into `folder` can wait, if the project that it is in has one of its own."""
    for above in (folder.absolute(), *folder.absolute().parents):
        own = above / _OWN
        if _is_own(own):
            waiting = own / _WAITING
            with suppress(OSError):
                waiting.mkdir(mode=0o700, exist_ok=True)
            if _is_own(waiting) and waiting.stat().st_dev == folder.stat().st_dev:
                yield waiting
            return


def make_cache_folder(folder: Path) -> None:
    """Make the folder of a cache; `.mlstack` above it is ignored by Git before anything is in it. Raises `OSError`."""
    own = folder.parent
    own.mkdir(mode=0o700, exist_ok=True)
    if own.name == _OWN:
        with suppress(FileExistsError), (own / ".gitignore").open("x", encoding="utf-8") as file:
            file.write("*\n")
    folder.mkdir(exist_ok=True)


def remove_leftovers(root: Path) -> None:
    """Remove what processes that were killed have left in the project at `root`. What cannot be removed stays."""
    from shutil import rmtree

    folder = root / _OWN / _WAITING
    if not _is_own(folder):
        return
    oldest = time.time() - _LEFTOVER_AGE
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_ctime >= oldest:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)  # noqa: PTH108


def _is_own(folder: Path) -> bool:
    """Whether it is a folder of this person: no link of a branch, and nothing that somebody else may write to."""
    try:
        status = folder.stat(follow_symlinks=False)
    except OSError:
        return False
    return folder.is_dir() and not folder.is_symlink() and status.st_uid == os.geteuid()


def _write(path: Path, content: bytes, mode: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
