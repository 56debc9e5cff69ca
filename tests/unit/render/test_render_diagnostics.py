import pytest

from mlstack.diagnostics import Diagnostic, Position, Severity
from mlstack.render.diagnostics_json import diagnostic_object, diagnostics_document
from mlstack.render.diagnostics_text import count_line, render_diagnostic, render_diagnostics
from mlstack.render.style import Style

FAULT = Diagnostic(
    code="unknown-key",
    summary="Unknown key",
    detail='A stage has no key "ouputs".',
    hint='did you mean "outs"?',
    command="mlstack schema",
    address="stages.train",
    position=Position("mlstack.yaml", 12, 5, 11),
    source_line="    ouputs: {model: m.joblib}",
)


def test_block_has_place_caret_hint_and_command() -> None:
    assert render_diagnostic(FAULT, style=Style()) == (
        "error: Unknown key  [stages.train]\n"
        "  --> mlstack.yaml:12:5\n"
        "   │\n"
        "12 │     ouputs: {model: m.joblib}\n"
        "   │     ^^^^^^\n"
        '  A stage has no key "ouputs".\n'
        '  hint: did you mean "outs"?\n'
        "\n"
        "    mlstack schema\n"
    )


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_detail_is_wrapped_to_the_width(width: int) -> None:
    fault = Diagnostic(code="x", summary="X", detail="word " * 80, hint="hint " * 30)
    for line in render_diagnostic(fault, style=Style(width=width)).split("\n"):
        assert len(line) <= max(32, min(width, 120))


def test_caret_stands_below_wide_characters_and_tabs() -> None:
    fault = Diagnostic(code="x", summary="X", position=Position("f", 1, 6, 8), source_line="\t名前: ab # x", detail="")
    lines = render_diagnostic(fault, style=Style()).split("\n")
    assert lines[3].index("a") == lines[3].index("ab")
    prefix = "1 │ " + " " * 4 + "名前: "
    assert lines[3].startswith(prefix)
    columns = 4 + 4 + 4 + 2  # gutter, tab, two wide characters, colon and blank
    assert lines[4] == "  │ " + " " * (columns - 4) + "^^"


def test_long_source_line_shows_what_surrounds_the_mark() -> None:
    source = "a" * 500 + "WRONG" + "b" * 500
    fault = Diagnostic(code="x", summary="X", position=Position("f", 1, 501, 506), source_line=source)
    lines = render_diagnostic(fault, style=Style(width=80)).split("\n")
    start = lines[4].index("^")
    assert lines[3][start : start + 5] == "WRONG"
    assert lines[4].count("^") == 5
    assert len(lines[3]) <= 80


@pytest.mark.parametrize(("column", "end"), [(0, None), (1, 1), (999, None), (3, 2000), (5, 2)])
def test_positions_beyond_the_line_do_no_harm(column: int, end: int | None) -> None:
    fault = Diagnostic(code="x", summary="X", position=Position("f", 1, column, end), source_line="short\n")
    assert "^" in render_diagnostic(fault, style=Style())


def test_control_characters_are_escaped() -> None:
    evil = "a\x1b]0;x\x07b\u202e"
    fault = Diagnostic(
        code="x",
        summary=evil,
        detail=f"{evil}\nsecond line",
        hint=evil,
        command=evil,
        address=evil,
        position=Position(evil, 1, 1),
        source_line=evil,
    )
    text = render_diagnostic(fault, style=Style())
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\n  second line\n" in text


def test_warnings_come_before_errors_and_are_counted() -> None:
    warning = Diagnostic(code="w", summary="W", severity=Severity.WARNING)
    text = render_diagnostics([FAULT, warning], style=Style())
    assert text.index("warning: W") < text.index("error: Unknown key")
    assert count_line([FAULT, FAULT, warning]) == "2 errors, 1 warning"
    assert count_line([]) == ""


def test_ascii_outputs_get_ascii() -> None:
    assert render_diagnostic(FAULT, style=Style(unicode=False)).isascii()


def test_json_has_everything() -> None:
    found = diagnostic_object(FAULT)
    assert found["range"] == {
        "filename": "mlstack.yaml",
        "start": {"line": 12, "column": 5},
        "end": {"line": 12, "column": 11},
    }
    assert found["snippet"]["code"] == FAULT.source_line
    document = diagnostics_document([FAULT])
    assert (document["valid"], document["error_count"], document["warning_count"]) == (False, 1, 0)
    assert diagnostics_document([])["valid"]
