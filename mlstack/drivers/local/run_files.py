"""What the process around a stage writes into the run's folder: the log and the result.

Imported by `launch`, so only what costs nothing at start is imported here.
"""
# pathlib and contextlib take longer to import than this program has time:
# ruff: noqa: PTH105, PTH108

import os

from mlstack.runner.command import Output
from mlstack.runner.masking import StreamMasker

RESERVED = 4096  # bytes of a result file, held from the start, so that a full disk does not cost the result


class Log(Output):
    """The log of one attempt: the first `head` bytes in `log.txt`, then parts, of which the last two are kept.

    A log that cannot be written (full disk) never stops the stage: what is lost is counted, and the result says it.
    """

    def __init__(self, folder: str, masker: StreamMasker, *, head: int, part: int) -> None:
        self._folder = folder
        self._masker = masker
        self._part_size = part
        self._room = head
        self._number = 0
        self.written = 0
        self.lost = 0
        self.problem = ""
        self._fd = self._open("log.txt")

    def write(self, data: bytes) -> None:
        """Mask and write one chunk of output."""
        self._store(self._masker.feed(data))

    def close(self) -> None:
        """Write what was kept back."""
        self._store(self._masker.finish())
        if self._fd >= 0:
            os.close(self._fd)

    def _open(self, name: str) -> int:
        try:
            return os.open(f"{self._folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            self.problem = os.strerror(error.errno or 0)
            return -1

    def _store(self, data: bytes) -> None:
        while data:
            if self._room <= 0:
                self._next_part()
            piece = data[: self._room]
            try:
                done = os.write(self._fd, piece) if self._fd >= 0 else 0
            except OSError as error:
                self.problem = os.strerror(error.errno or 0)
                done = 0
            if done == 0:
                self.lost += len(data)
                return
            self.written += done
            self._room -= done
            data = data[done:]

    def _next_part(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._number += 1
        self._room = self._part_size
        try:
            os.unlink(f"{self._folder}/log.part{self._number - 2}.txt")
        except FileNotFoundError:
            pass
        except OSError as error:
            self.problem = os.strerror(error.errno or 0)
        self._fd = self._open(f"log.part{self._number}.txt")


class ResultFile:
    """`result.json`, whose space is taken at the start and which appears whole or not at all."""

    def __init__(self, folder: str) -> None:
        self._final = f"{folder}/result.json"
        self._draft = f"{folder}/result.draft"
        self._fd = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(self._fd, b" " * RESERVED)

    def write(self, fields: dict[str, str | int | float | None]) -> None:
        """Write and publish it."""
        data = to_json(fields)
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.write(self._fd, data)
        os.ftruncate(self._fd, len(data))
        os.fsync(self._fd)
        os.replace(self._draft, self._final)


def to_json(fields: dict[str, str | int | float | None]) -> bytes:
    """Return a flat JSON object. Importing `json` would cost 5 ms."""
    parts = []
    for name, value in fields.items():
        if value is None:
            text = "null"
        elif isinstance(value, str):
            text = '"' + "".join(_escaped(character) for character in value) + '"'
        else:
            text = repr(value)
        parts.append(f'"{name}": {text}')
    return ("{" + ", ".join(parts) + "}\n").encode()


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if character <= "\uffff" else "?"
