"""Reading the logs of a run while it is written and afterwards, across parts and attempts.

`log.txt` holds what the stage printed and nothing else, as its bytes came, secrets masked. When an output was so long
that its middle was dropped, the text returned here says so at that place.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlstack.drivers.local.run_folder import LOG, earlier_attempts, log_parts, running_pid

TAIL_BYTES = 64 * 1024
LOOK_EVERY = 0.2
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")


def tail_of(folder: Path, *, lines: int = 20, number: int | None = None) -> tuple[str, ...]:
    """Return the last lines of the newest attempt's log, or of attempt `number`; none when there is no log."""
    for file in reversed(_files(folder, number)):
        found = _shown_lines(_last_bytes(file))
        if found:
            return found[-lines:]
    return ()


def read_log(folder: Path, *, number: int | None = None) -> Iterator[bytes]:
    """Return the whole log of an attempt in chunks; where its middle was dropped, a line says so."""
    expected = 0
    for file in _files(folder, number):
        part = _part_number(file)
        if part != expected:
            yield b"\n[mlstack: the log grew too long; a part of it was dropped here]\n"
        expected = part + 1
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(65536):
                    yield chunk
        except FileNotFoundError:
            continue  # it was just dropped


def follow_log(folder: Path, *, lines: int | None = None, stop: Callable[[], bool] = lambda: False) -> Iterator[bytes]:
    """Return a log as it grows, until the run is over or `stop` says so; on a new attempt it goes on with that one.

    `lines` limits what is shown of what was there before.
    """
    follower = _Follower(folder, skip_to_last=lines)
    while True:
        over = running_pid(folder) is None
        yield from follower.read()
        if over or stop():
            yield from follower.read()
            return
        time.sleep(LOOK_EVERY)


class LogTail:
    """The newest line of a log that is being written, looked at now and then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[str, int] = ("", 0)
        self._line = ""

    def newest(self) -> str | None:
        """Return the last line that says something, if it changed since the last call."""
        files = _files(self._folder, None)
        if not files:
            return None
        try:
            seen = files[-1].name, files[-1].stat().st_size
        except OSError:
            return None
        if seen == self._seen:
            return None
        self._seen = seen
        lines = _shown_lines(_last_bytes(files[-1], limit=4096))
        if not lines or lines[-1] == self._line:
            return None
        self._line = lines[-1]
        return self._line


class _Follower:
    def __init__(self, folder: Path, *, skip_to_last: int | None) -> None:
        self._folder = folder
        self._stream = -1
        self._inode = 0
        self._part = 0
        self._skip = skip_to_last

    def read(self) -> Iterator[bytes]:
        while True:
            if self._stream >= 0:
                while chunk := os.read(self._stream, 65536):
                    yield chunk
            if not self._next():
                return

    def _next(self) -> bool:
        """Go on with the next part, or with the log of a new attempt; False when there is none."""
        files = _files(self._folder, None)
        if not files:
            return False
        if self._stream < 0 or self._head_inode(files[0]) != self._inode:
            return self._open(files[0], head=True)
        later = [file for file in files if _part_number(file) > self._part]
        return self._open(later[0], head=False) if later else False

    def _open(self, file: Path, *, head: bool) -> bool:
        try:
            stream = os.open(file, os.O_RDONLY)
        except OSError:
            return False
        if self._stream >= 0:
            os.close(self._stream)
        self._stream, self._part = stream, _part_number(file)
        if head:
            self._inode = os.fstat(stream).st_ino
            if self._skip is not None:
                size = os.fstat(stream).st_size
                os.lseek(stream, size - _length_of_last(_last_bytes(file), self._skip), os.SEEK_SET)
                self._skip = None
        return True

    def _head_inode(self, file: Path) -> int:
        try:
            return file.stat().st_ino
        except OSError:
            return self._inode

    def __del__(self) -> None:
        if self._stream >= 0:
            os.close(self._stream)


def attempts(folder: Path) -> list[int | None]:
    """Return what can be read, oldest first: the numbers of earlier attempts, then None for the newest."""
    newest: list[int | None] = [None] if (folder / LOG).exists() else []
    return [*earlier_attempts(folder), *newest]


def _files(folder: Path, number: int | None) -> list[Path]:
    head = folder / (LOG if number is None else f"log.{number}.txt")
    return [*([head] if head.exists() else []), *log_parts(folder, number)]


def _part_number(file: Path) -> int:
    found = re.search(r"\.part(\d+)\.txt$", file.name)
    return int(found[1]) if found is not None else 0


def _last_bytes(file: Path, *, limit: int = TAIL_BYTES) -> bytes:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - limit))
            return stream.read(limit)
    except OSError:
        return b""


def _shown_lines(data: bytes) -> tuple[str, ...]:
    """Return the lines as a terminal would leave them: of a progress bar what was written last, nothing that steers."""
    found = []
    for line in data.decode("utf-8", "replace").split("\n"):
        writings = [_CONTROL.sub("", writing).rstrip() for writing in line.split("\r")]
        said = [writing for writing in writings if writing]
        if said:
            found.append(said[-1])
    return tuple(found)


def _length_of_last(data: bytes, lines: int) -> int:
    position = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        position = data.rfind(b"\n", 0, position)
        if position < 0:
            return len(data)
    return len(data) - position - 1 if lines else 0
