"""Columns, numbers, tables, foreign text, comparisons."""

from datetime import UTC, datetime, timedelta
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from mlstack.render.columns import columns, cut, pad, wrap
from mlstack.render.comparison import Comparison, Row, render_comparison, render_comparison_markdown
from mlstack.render.escape import output_line, plain, plain_lines
from mlstack.render.human import age, clock, counted, duration, number, size
from mlstack.render.program_output import ProgramOutput
from mlstack.render.style import Style, style_for
from mlstack.render.table import Cell, Column, markdown_table, render_pairs, render_table
from mlstack.render.values import show_pair, show_value

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (3599.9, "1h 00m"),
        (7800, "2h 10m"),
        (360_000, "4d 4h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_clock_sizes_counts_and_numbers() -> None:
    assert [clock(value) for value in (0, 7.9, 750, 3723)] == ["0:00", "0:07", "12:30", "1:02:03"]
    assert [size(value) for value in (0, 1023, 1024, 1536, 20 << 20, 1 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "20 MiB",
        "1024 TiB",
    ]
    assert [counted(1, "stage"), counted(2000, "stage"), counted(0, "entry", "entries")] == [
        "1 stage",
        "2,000 stages",
        "0 entries",
    ]
    assert [number(v) for v in (True, 3, 3.0, 0.1 + 0.2, 1.5e-7, float("nan"), float("inf"), 2**70)] == [
        "true",
        "3",
        "3",
        "0.3",
        "1.5e-07",
        "nan",
        "inf",
        str(2**70),
    ]


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=3), "just now"),
        (timedelta(seconds=50), "1 minute ago"),
        (timedelta(hours=3), "3 hours ago"),
        (timedelta(days=1.2), "1 day ago"),
        (timedelta(days=90), "3 months ago"),
        (timedelta(days=800), "2 years ago"),
    ],
)
def test_ages(ago: timedelta, text: str) -> None:
    assert age((NOW - ago).isoformat(), now=NOW) == text
    assert age((NOW - ago).replace(tzinfo=None).isoformat(), now=NOW) == text


def test_an_age_of_nonsense_is_the_nonsense() -> None:
    assert age("yesterday", now=NOW) == "yesterday"


def test_foreign_text_is_made_safe() -> None:
    assert plain("a\x1b[31m\tb\nc\x9b\u202e\ud800é名") == "a\\x1b[31m    b\\nc\\x9b\\u202e\\ud800é名"
    assert plain_lines("a\r\nb\x07") == ["a", "b\\x07"]
    assert output_line("10%\r\x1b[32m50%\x1b[0m\r\n") == "50%"


def test_columns_of_wide_and_combining_characters() -> None:
    assert columns("名前") == 4
    assert columns("e\u0301") == 1
    assert columns("\x1b[31mab\x1b[0m") == 2
    assert cut("名前です", 5) == "名前…"
    assert cut("abc", 3) == "abc"
    assert cut("abcdef", 1) == "…"
    assert cut("abcdef", 0) == ""
    assert pad("名", 4) == "名  "
    assert wrap("aa bb cc\ndd", 5) == ["aa bb", "cc", "dd"]
    assert wrap("a" * 20, 5) == ["a" * 20]


@pytest.mark.parametrize("width", [30, 60, 200])
def test_tables_fit_the_terminal(width: int) -> None:
    rows: list[tuple[str | Cell, ...]] = [
        ("stages.train", "x" * 100, Cell("ok", "good")),
        ("名前", "short", "日本語テキスト" * 5),
    ]
    text = render_table(
        (Column("ADDRESS", keep=True), "DETAIL", "HOW"), rows, style=Style(width=width, terminal=True, color=True)
    )
    assert all(columns(line) <= width for line in text.split("\n"))
    assert "stages.train" in text


def test_a_last_column_goes_on_below_itself() -> None:
    heads = ("ADDRESS", Column("BECAUSE", wrap=True))
    rows = [("stages.a", "it waits for a node with a GPU"), ("stages.b", "")]
    text = render_table(heads, rows, style=Style(width=34, terminal=True))
    assert text.splitlines()[1:] == ["stages.a  it waits for a node with", "          a GPU", "stages.b"]
    assert "…" in render_table(heads, rows, style=Style(width=24, terminal=True)), "too narrow: cut"
    assert render_table(heads, rows, style=Style(width=34)).splitlines()[1].endswith("with a GPU"), "a pipe gets all"


def test_tables_for_pipes_are_not_cut() -> None:
    text = render_table(("A", Column("B", right=True)), [("x" * 300, "1"), ("y", "22")], style=Style(width=40))
    lines = text.rstrip("\n").split("\n")
    assert lines[1].startswith("x" * 300)
    assert {len(line) for line in lines[1:]} == {304}
    assert render_table(("A", "B"), [], style=Style()) == "A  B\n"


def test_markdown_tables_and_pairs_are_safe() -> None:
    assert markdown_table(("A|B", Column("N", right=True)), [("a|b\n", "1")]) == (
        "| A\\|B | N |\n|---|---:|\n| a\\|b\\\\n | 1 |\n"
    )
    assert render_pairs([("a", "1\n2"), ("long", "\x1b")], style=Style()) == "a     1\n      2\nlong  \\x1b\n"


def test_values_are_short_but_differ() -> None:
    one, two = "ab" * 16, "ab" * 15 + "cd"
    assert show_value(one) == "abababab"
    assert show_pair(one, two) == (one, two)
    assert show_value({"uri": "env://TOKEN"}) == "secret env://TOKEN"
    assert show_value("x" * 50, width=10) == '"xxxxxxxx…'
    assert show_value("\x1b\ud800") == "'\\x1b\\ud800'"


# ---------------------------------------------------------------------------------------------------- outputs


def stream_of(encoding: str) -> Any:
    from io import BytesIO

    return TextIOWrapper(BytesIO(), encoding=encoding)


def test_style_of_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert style_for(stream_of("ascii"), environ={}).unicode is False
    assert style_for(stream_of("utf-8"), environ={}).unicode is True
    assert style_for(StringIO(), environ={}) == Style(unicode=False)
    assert style_for(None, environ={}).color is False
    assert style_for(StringIO(), color="always", environ={"NO_COLOR": "1"}).color is True
    monkeypatch.setenv("COLUMNS", "133")
    assert style_for(StringIO(), environ={}).width == 133


def test_style_of_a_terminal() -> None:
    class Tty(StringIO):
        def isatty(self) -> bool:
            return True

    assert style_for(Tty(), environ={}).color
    assert not style_for(Tty(), environ={"NO_COLOR": "1"}).color
    assert style_for(Tty(), environ={"NO_COLOR": ""}).color
    assert not style_for(Tty(), environ={"TERM": "dumb"}).color
    assert not style_for(Tty(), color="never", environ={}).color


def shown(chunks: list[bytes], *, color: bool = False) -> str:
    output = ProgramOutput(color=color)
    return "".join(output.feed(chunk) for chunk in chunks) + output.finish()


def test_program_output_keeps_lines_and_progress_bars() -> None:
    assert shown(["名前\t1\r2\n".encode()]) == "名前\t1\r2\n"
    assert shown([b"\xe5", b"\x90\x8d"]) == "名"
    assert shown([b"a\x1b[2J\x1b[1;1Hb\x1b]0;t", b"itle\x07c\x07"]) == "abc\\x07"
    assert shown([b"\x1b[31mred\x1b[0m"]) == "red"
    assert shown([b"\x1b[31mred"], color=True) == "\x1b[31mred\x1b[0m"
    assert shown([b"\x1b", b"[31mred\x1b["], color=True).startswith("\x1b[31mred")
    assert shown([b"\xff\xfe"]) == "\ufffd\ufffd"


# ---------------------------------------------------------------------------------------------------- compare

ROWS = (
    Row(section="metrics", address="stages.evaluate", name="rmse", before=0.7, after=0.5, goal="lower"),
    Row(section="metrics", address="stages.evaluate", name="r2", before=0.7, after=0.5, goal="higher"),
    Row(section="metrics", address="stages.evaluate", name="n", before=3, after=4),
    Row(section="metrics", address="stages.evaluate", name="same", before=1, after=1),
    Row(section="metrics", address="stages.evaluate", name="new", before=None, after=1.5),
    Row(section="metrics", address="stages.evaluate", name="nan", before=float("nan"), after=1.5),
    Row(section="params", address="stages.train", name="depth", before=6, after=8),
    Row(section="data", address="datasets.wine", name="", before="a" * 32, after=None),
    Row(section="models", address="models.wine", name="", before="a" * 32, after="b" * 32),
)


def test_comparison_says_better_and_worse() -> None:
    assert [row.better for row in ROWS[:4]] == [True, False, None, None]
    assert [row.delta for row in ROWS[4:6]] == [None, None]
    text = render_comparison(Comparison(base="1a2b3c4 Begin", rows=ROWS), style=Style())
    golden = Path(__file__).resolve().parents[2] / "golden" / "render" / "comparison.txt"
    assert text == golden.read_text(encoding="utf-8")
    assert render_comparison(Comparison(base="x", rows=ROWS), style=Style(unicode=False)).isascii()


def test_comparison_of_nothing() -> None:
    assert "Nothing differs" in render_comparison(Comparison(base="x", rows=()), style=Style())
    assert "Nothing differs" in render_comparison_markdown(Comparison(base="x", rows=()))


def test_comparison_as_markdown() -> None:
    text = render_comparison_markdown(Comparison(base="1a2b3c4 @all `x`", rows=ROWS))
    assert "| stages.evaluate | rmse | 0.7 | 0.5 | -0.2 | ▼ better |" in text
    assert "&#64;all" in text
