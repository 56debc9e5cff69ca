"""Tables for people: aligned, no wider than the terminal, with wide characters counted as two columns."""

from collections.abc import Sequence
from typing import NamedTuple

from mlstack.render.columns import columns, cut, pad, wrap
from mlstack.render.escape import plain
from mlstack.render.style import Style, Tone

_GAP = "  "
_NARROWEST = 6
_WRAPPED = 20  # a column narrower than that is cut


class Cell(NamedTuple):
    """A cell with a colour by its meaning."""

    text: str
    tone: Tone | None = None


class Column(NamedTuple):
    """A heading; `right` aligns numbers. `keep` columns are cut last, when the table is too wide.

    A last column that may `wrap` goes on below itself instead of being cut, unless next to nothing is left for it.
    """

    title: str
    right: bool = False
    keep: bool = False
    wrap: bool = False


def render_table(heads: Sequence[str | Column], rows: Sequence[Sequence[str | Cell]], *, style: Style) -> str:
    """Return the table; ends in a newline. Cell texts may be foreign: they are made safe here.

    The widest columns are cut first, on a terminal only: a pipe gets every character.
    """
    titles = [_column(head) for head in heads]
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(columns(row[index].text) for row in [_title_row(titles), *cells]) for index in range(len(titles))]
    if style.terminal:
        _fit(widths, titles, style.width)
    lines = [
        _line(line, titles, widths, style)
        for row in [_title_row(titles), *cells]
        for line in (_wrapped(row, widths) if titles[-1].wrap and style.terminal else [row])
    ]
    return "\n".join(lines) + "\n"


def _wrapped(row: Sequence[Cell], widths: Sequence[int]) -> Sequence[Sequence[Cell]]:
    """Return a row as several, of which the further ones only go on in the last column."""
    *others, last = row
    if columns(last.text) <= widths[-1] or widths[-1] < _WRAPPED:
        return [row]
    first, *rest = wrap(last.text, widths[-1])
    return [[*others, Cell(first, last.tone)], *([*(Cell("") for _ in others), Cell(each, last.tone)] for each in rest)]


def markdown_table(heads: Sequence[str | Column], rows: Sequence[Sequence[str | Cell]]) -> str:
    """Return the table as Markdown; ends in a newline."""
    from mlstack.render.fence import prose

    titles = [_column(head) for head in heads]
    lines = [
        "| " + " | ".join(prose(head.title) for head in titles) + " |",
        "|" + "|".join("---:" if head.right else "---" for head in titles) + "|",
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


def _column(head: str | Column) -> Column:
    return Column(head) if isinstance(head, str) else head


def _title_row(titles: Sequence[Column]) -> list[Cell]:
    return [Cell(title.title, "strong") for title in titles]


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


def _line(row: Sequence[Cell], heads: Sequence[Column], widths: Sequence[int], style: Style) -> str:
    parts = []
    dots = style.symbol("…")
    for cell, head, width in zip(row, heads, widths, strict=True):
        text = cut(cell.text, width, ellipsis=dots)
        parts.append(pad(style.paint(text, cell.tone), width, right=head.right))
    return _GAP.join(parts).rstrip()
