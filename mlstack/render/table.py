"""Tables for people: aligned, no wider than the terminal, with wide characters counted as two columns."""

from collections.abc import Sequence
from typing import NamedTuple

from mlstack.render.columns import columns, cut, pad
from mlstack.render.escape import plain
from mlstack.render.style import Style, Tone

_GAP = "  "
_NARROWEST = 6


class Cell(NamedTuple):
    """A cell with a colour by its meaning."""

    text: str
    tone: Tone | None = None


class Column(NamedTuple):
    """A heading; `right` aligns numbers. `keep` columns are cut last, when the table is too wide."""

    title: str
    right: bool = False
    keep: bool = False


def render_table(heads: Sequence[Column], rows: Sequence[Sequence[str | Cell]], *, style: Style) -> str:
    """Return the table; ends in a newline. Cell texts may be foreign: they are made safe here.

    The widest columns are cut first, on a terminal only: a pipe gets every character.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(columns(head.title), *(columns(row[index].text) for row in cells)) if cells else columns(head.title)
        for index, head in enumerate(heads)
    ]
    if style.terminal:
        _fit(widths, heads, style.width)
    dots = style.symbol("…")
    lines = [_line([Cell(head.title, "strong") for head in heads], heads, widths, style, dots)]
    lines.extend(_line(row, heads, widths, style, dots) for row in cells)
    return "\n".join(lines) + "\n"


def markdown_table(heads: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> str:
    """Return the table as Markdown; ends in a newline."""
    from mlstack.render.fence import prose

    lines = [
        "| " + " | ".join(prose(head.title) for head in heads) + " |",
        "|" + "|".join("---:" if head.right else "---" for head in heads) + "|",
    ]
    lines.extend("| " + " | ".join(prose(_cell(value).text) for value in row) + " |" for row in rows)
    return "\n".join(lines) + "\n"


def render_pairs(pairs: Sequence[tuple[str, str]], *, style: Style, indent: int = 0) -> str:
    """Return `name  value` lines with the values aligned; a value of several lines hangs. Ends in a newline."""
    width = max((columns(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        first, *rest = value.split("\n")
        lines.append(f"{' ' * indent}{style.paint(pad(name, width), 'quiet')}  {plain(first)}".rstrip())
        lines.extend(f"{' ' * (indent + width + 2)}{plain(line)}".rstrip() for line in rest)
    return "\n".join(lines) + "\n" if lines else ""


def _cell(value: str | Cell) -> Cell:
    return Cell(plain(value)) if isinstance(value, str) else Cell(plain(value.text), value.tone)


def _fit(widths: list[int], heads: Sequence[Column], room: int) -> None:
    """Narrow the widest columns until the line fits."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    while excess > 0:
        able = [i for i, w in enumerate(widths) if w > _NARROWEST and not heads[i].keep]
        able = able or [i for i, w in enumerate(widths) if w > _NARROWEST]
        if not able:
            return
        widest = max(able, key=lambda index: widths[index])
        others = [widths[index] for index in able if index != widest]
        step = min(excess, max(1, widths[widest] - max([_NARROWEST, *others])))
        widths[widest] -= step
        excess -= step


def _line(row: Sequence[Cell], heads: Sequence[Column], widths: Sequence[int], style: Style, dots: str) -> str:
    parts = []
    for cell, head, width in zip(row, heads, widths, strict=True):
        text = cut(cell.text, width, ellipsis=dots)
        parts.append(pad(style.paint(text, cell.tone), width, right=head.right))
    return _GAP.join(parts).rstrip()
