"""What the server and the model write: kept within a bound, secrets masked."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

SHORTEST = 4
"""Values of fewer characters are not masked: `1` or `no` would be masked everywhere."""


class MaskedStream(io.TextIOBase):
    """A text stream that writes `***` for each of `values`. Covers Python's own output, not what C libraries write."""

    def __init__(self, stream: TextIO, values: Iterable[str]) -> None:
        self._stream = stream
        lines = {line for value in values for line in (value, *value.splitlines())}
        self._values = sorted((line for line in lines if len(line) >= SHORTEST), key=len, reverse=True)

    def write(self, text: str) -> int:
        """Write one piece of text."""
        masked = text
        for value in self._values:
            masked = masked.replace(value, "***")
        self._stream.write(masked)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._stream.flush()

    def fileno(self) -> int:
        """Return the descriptor, for faulthandler and the like."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True


def mask_output(values: Iterable[str]) -> None:
    """Mask `values` in everything that Python writes from now on."""
    known = [value for value in values if value]
    if known:
        sys.stdout = MaskedStream(sys.stdout, known)
        sys.stderr = MaskedStream(sys.stderr, known)


def rotate_log(path: Path, *, limit: int) -> None:
    """Start a new log when this one is larger than `limit` bytes, keeping one older; descriptors 1 and 2 follow."""
    try:
        if path.stat().st_size <= limit:
            return
        path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:  # a full disk, or a folder that is gone: serving goes on
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
