"""Make text from files, logs and other programs safe to show: no control characters reach a terminal."""

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2060-\u2064\u2066-\u2069\ufeff"  # bidi, invisible
    "\ud800-\udfff]"  # lone surrogates: file names that are not UTF-8
)


def plain(text: str) -> str:
    """Return `text` on one line, with control characters written as escapes and tabs as spaces.

    Colours, cursor movements, titles and bidirectional overrides in user-provided strings would otherwise let a file
    rewrite what the plan shows.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, text).replace("\t", "    ").replace("\n", "\\n")


def plain_lines(text: str) -> list[str]:
    """Return the lines of `text`, each made safe."""
    return [plain(line) for line in text.replace("\r\n", "\n").split("\n")]


def output_line(text: str) -> str:
    """Return a line of a program's output without its colours; what other controls there are is escaped.

    After a carriage return (progress bars) only the last part is kept, as a terminal would show it.
    """
    text = text.rstrip("\r\n").rpartition("\r")[2]
    return plain(_ANSI.sub("", text))


_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def _escaped(found: "re.Match[str]") -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
