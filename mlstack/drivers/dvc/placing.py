"""Putting objects of the cache into the workspace, by the kinds of links that DVC is configured for."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree

from mlstack.spec.whole_files import waiting_folders, waiting_name

_CLONE = 0x40049409  # FICLONE of Linux: a copy that shares its blocks (btrfs, xfs)
_CHUNK = 1 << 20
_NO_SUCH_LINK = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS, errno.EINVAL, errno.EMLINK}


class Placer:
    """Places objects. A kind of link that does not work here is not tried again; copying always is the last resort."""

    def __init__(self, root: Path, links: tuple[str, ...]) -> None:
        self._root = root
        self._waiting: list[str] | None = None
        self._links = [*(link for link in links if link in _KINDS), "copy"]
        self._folders: set[str] = set()

    def place(self, source: str, target: str, *, executable: bool = False) -> None:
        """Put the object `source` at `target`. Raises `OSError`.

        The file appears whole or not at all; a file that was at `target` is replaced.
        """
        folder = target.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            self._folders.add(folder)
        for place in (*self._waiting_folders(), folder):
            temporary = f"{place}/{waiting_name()}"
            try:
                link = self._link(source, temporary)
                if executable and link in {"copy", "reflink"}:  # a link would change the object itself
                    os.chmod(temporary, os.stat(temporary).st_mode | 0o100)  # noqa: PTH101, PTH116
                os.replace(temporary, target)  # noqa: PTH105
            except OSError as error:
                _discard(temporary)
                if error.errno != errno.EXDEV or place == folder:
                    raise
            else:
                return

    def place_folder(self, target: str, files: Sequence[tuple[str, str]]) -> None:
        """Put a folder at `target`, where nothing is: whole or not at all. `files` are names in it, with their objects.

        Where it cannot wait elsewhere until it is whole, it grows at its place. Raises `OSError`.
        """
        for place in self._waiting_folders():
            temporary = f"{place}/{waiting_name()}"
            try:
                for folder in sorted({f"{temporary}/{name}".rpartition("/")[0] for name, _ in files}):
                    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
                for name, source in files:
                    self._link(source, f"{temporary}/{name}")
                os.makedirs(target.rpartition("/")[0], exist_ok=True)  # noqa: PTH103
                os.rename(temporary, target)  # noqa: PTH104
            except OSError as error:
                rmtree(temporary, ignore_errors=True)
                if error.errno != errno.EXDEV:
                    raise
            else:
                return
        for name, source in files:
            self.place(source, f"{target}/{name}")

    def _waiting_folders(self) -> list[str]:
        if self._waiting is None:
            self._waiting = [str(folder) for folder in waiting_folders(self._root)]
        return self._waiting

    def forget_folders(self) -> None:
        """Look again whether folders are there: some were removed."""
        self._folders.clear()

    def _link(self, source: str, temporary: str) -> str:
        while True:
            link = self._links[0]
            try:
                _KINDS[link](source, temporary)
            except OSError as error:
                if link == "copy" or error.errno not in _NO_SUCH_LINK:
                    raise
                _discard(temporary)
                del self._links[0]
            else:
                return link


def clone(source: int, target: int) -> bool:
    """Make the open file `target` share the blocks of `source`, where the file system can."""
    try:
        import fcntl

        fcntl.ioctl(target, _CLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _reflink(source: str, temporary: str) -> None:
    with open(source, "rb") as reading, open(temporary, "xb") as writing:  # noqa: PTH123
        if not clone(reading.fileno(), writing.fileno()):
            raise OSError(errno.ENOTSUP, "no reflinks here")


def _copy(source: str, temporary: str) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            while chunk := os.read(reading, _CHUNK):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(writing, view) :]
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _discard(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return


_KINDS: dict[str, Callable[[str, str], None]] = {
    "symlink": os.symlink,
    "hardlink": os.link,
    "reflink": _reflink,
    "copy": _copy,
}
