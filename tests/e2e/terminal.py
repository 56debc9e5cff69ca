"""A program on a terminal of its own, as a person has it in front of them."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ANSWERS_WITHIN = 120.0


class Terminal:
    """A pseudo-terminal, and the program that runs on it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        environment: Mapping[str, str],
        size: tuple[int, int] = (24, 80),
    ) -> None:
        self._ours, theirs = os.openpty()
        self._seen = ""
        self._set_size(*size)
        try:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
                preexec_fn=_take_terminal,  # noqa: PLW1509 - the terminal is taken in the new process
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def resize(self, *, rows: int, columns: int) -> None:
        """Give the window another size; the program is told."""
        self._set_size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def read_until(self, wanted: str) -> None:
        """Wait until a text appears after what was waited for before."""
        end = time.monotonic() + ANSWERS_WITHIN
        while wanted not in self._seen:
            assert time.monotonic() < end, f"{wanted!r} did not appear in {self._seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._seen += os.read(self._ours, 4096).decode(errors="replace")
        self._seen = self._seen.partition(wanted)[2]

    def wait(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        return self.process.wait(ANSWERS_WITHIN)


def _take_terminal() -> None:
    """Make it the controlling terminal of this process, so that Ctrl-C becomes a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
