"""The output of a program on a terminal: its colours if wanted, its progress bars, nothing else that steers."""

import codecs
import re

from mlstack.render.escape import plain

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_SGR = re.compile(r"\x1b\[[0-9;]*m")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,256})?\Z")
_RESET = "\x1b[0m"


class ProgramOutput:
    """Turns chunks of bytes into text that is safe on a terminal; a chunk may end in the middle of a character."""

    def __init__(self, *, color: bool) -> None:
        self._color = color
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, chunk: bytes) -> str:
        """Return what can be shown of it now."""
        text = self._held + self._decoder.decode(chunk)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._safe(text[: len(text) - len(self._held)])

    def finish(self) -> str:
        """Return what was held back, with the colours set back."""
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return self._safe(text) + (_RESET if self._color else "")

    def _safe(self, text: str) -> str:
        parts: list[str] = []
        position = 0
        for found in _ANSI.finditer(text):
            parts.append(_lines(text[position : found.start()]))
            if self._color and _SGR.fullmatch(found[0]):
                parts.append(found[0])
            position = found.end()
        parts.append(_lines(text[position:]))
        return "".join(parts)


def _lines(text: str) -> str:
    """Make text safe, keeping line ends, tabs and carriage returns (progress bars)."""
    return "".join(part if part in "\n\r\t" else plain(part) for part in re.split(r"([\n\r\t])", text))
