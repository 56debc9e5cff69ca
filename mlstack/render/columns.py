"""Columns that text takes on a terminal: wide characters, combining marks, cutting and wrapping."""

import re
from unicodedata import category, east_asian_width

_SGR = re.compile(r"\x1b\[[0-9;]*m")


def columns(text: str) -> int:
    """Return how many columns `text` takes; our own colours take none."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    return sum(_columns_of(char) for char in _SGR.sub("", text))


def _columns_of(char: str) -> int:
    if char.isascii():
        return 1
    if category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def cut(text: str, width: int, *, ellipsis: str = "…") -> str:
    """Return the beginning of uncoloured `text` that fits `width` columns, with `ellipsis` if something was cut."""
    if columns(text) <= width:
        return text
    room = width - columns(ellipsis)
    if room <= 0:
        return ellipsis[: max(0, width)]
    taken = 0
    for index, char in enumerate(text):
        taken += _columns_of(char)
        if taken > room:
            return text[:index] + ellipsis
    return text


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Fill `text` (colours allowed) with spaces up to `width` columns; `right` aligns it to the right."""
    space = " " * max(0, width - columns(text))
    return space + text if right else text + space


def wrap(text: str, width: int) -> list[str]:
    """Break `text` between words into lines of at most `width` columns; a longer word stays whole on its own line."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and columns(line) + 1 + columns(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines
