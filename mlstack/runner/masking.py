"""Masks secret values in a stream of bytes, whatever the chunks it comes in.

Imports nothing, so that the process around a stage (`mlstack.drivers.local.launch`) starts in milliseconds with it.
What the patterns of a secret are (the value, its lines, its encodings) is decided in `secret_patterns`.
"""

from __future__ import annotations

MASK = b"***"


class StreamMasker:
    """Replaces every occurrence of any of `patterns` by `***`.

    Bytes that may be the beginning of an occurrence are kept back until it is known, never longer than the longest
    pattern; everything else is handed on at once, so that progress lines are not delayed.
    """

    def __init__(self, patterns: tuple[bytes, ...]) -> None:
        self._patterns = tuple(pattern for pattern in patterns if pattern)
        self._kept = b""
        self._covered = 0  # so many bytes at the front of `_kept` belong to a mask that was handed on already

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown after `data` came in."""
        if not self._patterns:
            return data
        buffer = self._kept + data
        return self._hand_on(buffer, self._undecided_from(buffer))

    def finish(self) -> bytes:
        """Return the rest at the end of the stream."""
        return self._hand_on(self._kept, len(self._kept))

    def _hand_on(self, buffer: bytes, cut: int) -> bytes:
        if cut == 0:
            self._kept = buffer
            return b""
        shown: list[bytes] = []
        position = 0
        for start, end in self._occurrences(buffer):
            if start >= cut:
                break
            shown.append(buffer[position:start])
            if start > 0 or not self._covered:
                shown.append(MASK)
            position = end
        shown.append(buffer[position:cut])
        self._kept = buffer[cut:]
        self._covered = max(0, position - cut)
        return b"".join(shown)

    def _occurrences(self, buffer: bytes) -> list[tuple[int, int]]:
        """Return the spans to mask, sorted, those that overlap joined."""
        spans = [(0, self._covered)] if self._covered else []
        for pattern in self._patterns:
            at = buffer.find(pattern)
            while at >= 0:
                spans.append((at, at + len(pattern)))
                at = buffer.find(pattern, at + 1)
        spans.sort()
        joined: list[tuple[int, int]] = []
        for start, end in spans:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def _undecided_from(self, buffer: bytes) -> int:
        """Return where the longest end of `buffer` begins that may be the start of an occurrence."""
        earliest = len(buffer)
        for pattern in self._patterns:
            at = buffer.find(pattern[:1], max(0, len(buffer) - len(pattern) + 1))
            while 0 <= at < earliest:
                if pattern.startswith(buffer[at:]):
                    earliest = at
                at = buffer.find(pattern[:1], at + 1)
        return earliest
