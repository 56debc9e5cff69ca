"""How text may look at one output: colours by meaning, symbols with ASCII stand-ins, the width in columns."""

import os
import shutil
from collections.abc import Mapping
from typing import Literal, TextIO

import msgspec

Tone = Literal["add", "change", "remove", "run", "error", "warning", "good", "quiet", "strong", "place"]

_CODES: dict[Tone, str] = {
    "add": "32",
    "change": "33",
    "remove": "31",
    "run": "36",
    "error": "1;31",
    "warning": "1;33",
    "good": "1;32",
    "quiet": "2",
    "strong": "1",
    "place": "34",
}
DEFAULT_WIDTH = 80

_ASCII = {
    "▶": ">",
    "◀": "<",
    "»": ">>",
    "■": "x",
    "→": "->",
    "←": "<-",
    "✓": "ok",
    "✗": "x",
    "≈": "~",
    "○": "o",
    "│": "|",
    "─": "-",
    "╷": "|",
    "╵": "|",
    "\u00d7": "x",
    "…": "...",
    "▲": "up",
    "▼": "down",
    "·": "-",
    "•": "*",
    "⏵": ">",
}


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """What one output can show. `width` is in columns; `terminal` says that a person looks at it now."""

    color: bool = False
    unicode: bool = True
    width: int = DEFAULT_WIDTH
    terminal: bool = False

    def paint(self, text: str, tone: Tone | None) -> str:
        """Colour `text` by its meaning, where colours are wanted."""
        if not self.color or tone is None or not text:
            return text
        return f"\x1b[{_CODES[tone]}m{text}\x1b[0m"

    def symbol(self, symbol: str) -> str:
        """Return `symbol`, or its ASCII stand-in where the output cannot show it."""
        return symbol if self.unicode else _ASCII.get(symbol, symbol)


def style_for(stream: TextIO | None, *, color: str = "auto", environ: Mapping[str, str] | None = None) -> Style:
    """Find out what `stream` can show. `color` "auto" heeds `NO_COLOR` and `TERM=dumb`."""
    variables = os.environ if environ is None else environ
    terminal = stream is not None and not stream.closed and stream.isatty()
    dumb = variables.get("TERM") == "dumb"
    wanted = terminal and not dumb and not variables.get("NO_COLOR") if color == "auto" else color == "always"
    return Style(
        color=bool(wanted), unicode=_shows_unicode(stream), width=_width(stream), terminal=terminal and not dumb
    )


def _shows_unicode(stream: TextIO | None) -> bool:
    try:
        "▶→│…\u00d7✓✗".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _width(stream: TextIO | None) -> int:
    if os.environ.get("COLUMNS", "").isdigit():
        return max(20, int(os.environ["COLUMNS"]))
    try:
        width = os.get_terminal_size(stream.fileno()).columns if stream is not None else 0
    except (OSError, ValueError, AttributeError):
        width = 0
    return width or shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
