"""The log of an attempt: masked, on standard output at once, and kept in the remote in parts.

The beginning and the end are kept; of a very long log the middle is not. A remote that does not answer never stops the
stage: what could not be kept is counted.
"""

from __future__ import annotations

import os
import threading

from .command import Output
from .layout import RunKeys
from .masking import StreamMasker
from .problems import Problem
from .store import Store

PART = 1 << 20
FIRST_PARTS = 32
LAST_PARTS = 32
LINE = 300  # bytes of the newest line that a heartbeat carries
SEEN = 65536  # bytes of a chunk that are looked through for it


class RunLog(Output):
    """Takes output from any thread; `upload` is called by one at a time."""

    def __init__(self, keys: RunKeys, attempt: str, masks: tuple[bytes, ...], *, echo: int = 1) -> None:
        self.lost = 0
        self._keys = keys
        self._attempt = attempt
        self._masks = masks
        self._stream = StreamMasker(masks)
        self._echo = echo
        self._lock = threading.RLock()
        self._uploading = threading.Lock()
        self._parts: dict[int, bytearray] = {0: bytearray()}  # those that are not in the remote as they are
        self._number = 0
        self._changed = False
        self._line = b""
        self._begun = b""

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return self._number + 1

    @property
    def newest_line(self) -> str:
        """The newest line that is not empty."""
        with self._lock:
            return (self._begun.strip() or self._line).decode(errors="replace").strip()

    def write(self, data: bytes) -> None:
        """Take one chunk of the command's output; empty at its end."""
        with self._lock:
            self._keep(self._stream.feed(data) if data else self._stream.finish())

    def say(self, text: str) -> None:
        """Write a line of the runner's own."""
        masker = StreamMasker(self._masks)
        line = f"mlstack: {text}\n".encode(errors="replace")
        with self._lock:
            self._keep(masker.feed(line) + masker.finish())

    def upload(self, store: Store) -> None:
        """Put into the remote what it does not have yet. Raises `Problem` (storage); what was not put is kept."""
        with self._uploading:  # else what a part was before could come after what it is now
            self._upload(store)

    def _upload(self, store: Store) -> None:
        with self._lock:
            waiting = {number: bytes(part) for number, part in self._parts.items()}
            if not self._changed:
                return
            self._changed = False
        try:
            for number, part in sorted(waiting.items()):
                store.put(self._keys.log_part(self._attempt, number), part)
                with self._lock:
                    if number < self._number and len(self._parts.get(number, b"")) == len(part):
                        del self._parts[number]  # it is full, and was when it was put
                store.delete(self._superfluous(number))
        except Problem:
            with self._lock:
                self._changed = True
            raise

    def _superfluous(self, number: int) -> list[str]:
        """Return the part of the middle that has to go when part `number` is there."""
        old = number - LAST_PARTS
        return [self._keys.log_part(self._attempt, old)] if old >= FIRST_PARTS else []

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._show(data)
        self._changed = True
        self._note_line(data[-SEEN:])
        while data:
            part = self._parts[self._number]
            room = PART - len(part)
            part += data[:room]
            data = data[room:]
            if data:
                self._number += 1
                self._parts[self._number] = bytearray()
                self._drop()

    def _note_line(self, data: bytes) -> None:
        """Remember the newest line; what a progress bar overwrites counts as lines."""
        *lines, begun = (self._begun + data).replace(b"\r", b"\n").split(b"\n")
        self._begun = begun[-LINE:]
        self._line = next((line[-LINE:] for line in reversed(lines) if line.strip()), self._line)

    def _drop(self) -> None:
        """Give up the oldest part of the middle that waits, so that memory stays bounded."""
        if len(self._parts) > FIRST_PARTS + LAST_PARTS:
            oldest = min(number for number in self._parts if number >= FIRST_PARTS)
            self.lost += len(self._parts.pop(oldest))

    def _show(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and self._echo >= 0:
                view = view[os.write(self._echo, view) :]
        except OSError:
            self._echo = -1  # nobody listens any more
