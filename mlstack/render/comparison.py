"""Two versions beside each other: metrics with differences and arrows, parameters, data, models."""

from collections.abc import Iterable
from math import isfinite
from typing import Any, Literal

import msgspec

from mlstack.render.fence import prose
from mlstack.render.human import number
from mlstack.render.style import Style, Tone
from mlstack.render.table import Cell, Column, markdown_table, render_table
from mlstack.render.values import show_pair, show_value

_TITLES = {"metrics": "Metrics", "params": "Parameters", "data": "Data", "models": "Models"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on both sides; None where it is not there. `goal`: which way a metric is better, if that is known."""

    section: str
    address: str
    name: str
    before: Any = None
    after: Any = None
    goal: Literal["higher", "lower"] | None = None

    @property
    def delta(self) -> float | None:
        """`after` less `before` for two finite numbers."""
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (self.before, self.after)):
            return None
        found = float(self.after) - float(self.before)
        return found if isfinite(found) else None

    @property
    def better(self) -> bool | None:
        """Whether it became better; None when nobody said which way is better, or nothing changed."""
        if self.goal is None or not self.delta:
            return None
        return (self.delta > 0) == (self.goal == "higher")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`base` describes the commit; the rows are in the order of their sections."""

    base: str
    rows: tuple[Row, ...]


def render_comparison(comparison: Comparison, *, style: Style) -> str:
    """Return one table for each section; ends in a newline."""
    parts = [f"Working tree compared with {comparison.base}\n"]
    for section, title in _TITLES.items():
        rows = [row for row in comparison.rows if row.section == section]
        if rows:
            table = render_table(_heads(section), [list(_cells(row, style)) for row in rows], style=style)
            parts.append(f"{style.paint(title, 'strong')}\n{table}")
    if len(parts) == 1:
        parts.append("Nothing differs: same metrics, parameters, data and models.\n")
    return "\n".join(parts)


def render_comparison_markdown(comparison: Comparison) -> str:
    """Return the same as Markdown; ends in a newline."""
    parts = [f"Compared with {prose(comparison.base)}\n"]
    for section, title in _TITLES.items():
        rows = [row for row in comparison.rows if row.section == section]
        if rows:
            table = markdown_table(_heads(section), [list(_cells(row, Style())) for row in rows])
            parts.append(f"**{title}**\n\n{table}")
    if len(parts) == 1:
        parts.append("Nothing differs.\n")
    return "\n".join(parts)


def _heads(section: str) -> list[str | Column]:
    address = Column("ADDRESS", keep=True)
    if section == "metrics":
        right = [Column(title, right=True) for title in ("BEFORE", "NOW", "DIFFERENCE")]
        return [address, Column("METRIC", keep=True), *right, ""]
    if section == "params":
        return [address, Column("PARAMETER", keep=True), "BEFORE", "NOW"]
    return [address, "BEFORE", "NOW"]


def _cells(row: Row, style: Style) -> Iterable[str | Cell]:
    yield row.address
    if row.section in ("metrics", "params"):
        yield row.name
    if row.section == "metrics":
        yield _number(row.before)
        yield _number(row.after)
        yield from _difference(row, style)
    else:
        before, after = show_pair(row.before, row.after) if row.before != row.after else (show_value(row.before),) * 2
        yield Cell(before, "quiet")
        yield after


def _number(value: Any) -> str:
    return "-" if value is None else number(value) if isinstance(value, int | float) else show_value(value)


def _difference(row: Row, style: Style) -> Iterable[str | Cell]:
    if row.delta is None:
        yield ""
        yield "new" if row.before is None else "gone" if row.after is None else ""
        return
    tone: Tone | None = None if row.better is None else "add" if row.better else "remove"
    sign = "+" if row.delta > 0 else ""
    yield Cell(f"{sign}{number(row.delta)}" if row.delta else "0", tone)
    arrow = style.symbol("▲" if row.delta > 0 else "▼") if row.delta else "="
    word = {True: " better", False: " worse", None: ""}[row.better]
    yield Cell(f"{arrow}{word}", tone)
