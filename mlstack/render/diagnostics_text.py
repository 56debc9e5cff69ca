"""Diagnostics as people read them: what, where, why, and the way out.

error: Unknown key
  --> mlstack.yaml:12:5
   |
12 |     ouputs: {model: m.joblib}
   |     ^^^^^^ did you mean "outs"?
"""

from collections.abc import Iterable, Sequence

from mlstack.diagnostics import Diagnostic, Position, Severity
from mlstack.render.columns import columns, cut, wrap
from mlstack.render.escape import plain, plain_lines
from mlstack.render.human import counted
from mlstack.render.style import Style, Tone

_WIDEST = 120
_MIN_TEXT = 30


def render_diagnostics(diagnostics: Sequence[Diagnostic], *, style: Style) -> str:
    """Return all diagnostics as blocks, warnings first, so that errors stand next to the prompt."""
    ordered = sorted(diagnostics, key=lambda d: d.severity is Severity.ERROR)
    return "".join(render_diagnostic(diagnostic, style=style) + "\n" for diagnostic in ordered)


def render_diagnostic(diagnostic: Diagnostic, *, style: Style) -> str:
    """Return one block of lines; ends in a newline."""
    tone = _tone(diagnostic)
    head = style.paint(f"{diagnostic.severity.value}:", tone) + " " + style.paint(plain(diagnostic.summary), "strong")
    if diagnostic.address:
        head += style.paint(f"  [{plain(diagnostic.address)}]", "quiet")
    lines = [head, *_place(diagnostic, style)]
    width = max(_MIN_TEXT, min(style.width, _WIDEST) - 2)
    for text, prefix in ((diagnostic.detail, ""), (diagnostic.hint, "hint: ")):
        lines.extend(_wrapped(text, prefix, width))
    if diagnostic.command:
        lines.extend(["", *(f"    {style.paint(line, 'strong')}" for line in plain_lines(diagnostic.command))])
    return "\n".join(lines) + "\n"


def _tone(diagnostic: Diagnostic) -> Tone:
    return "error" if diagnostic.severity is Severity.ERROR else "warning"


def _wrapped(text: str, prefix: str, width: int) -> Iterable[str]:
    if not text:
        return
    first = True
    for line in plain_lines(text):
        indent = line[: len(line) - len(line.lstrip())]
        for part in wrap(line.strip(), width - len(indent) - len(prefix)):
            lead = prefix if first else " " * len(prefix)
            yield f"  {lead}{indent}{part}".rstrip()
            first = False


def _place(diagnostic: Diagnostic, style: Style) -> list[str]:
    position, source_line = diagnostic.position, diagnostic.source_line
    if position is None:
        return []
    gutter = len(str(position.line)) if source_line is not None else 1
    lines = [f"{' ' * gutter}{style.paint('-->', 'place')} {plain(str(position))}"]
    if source_line is None:
        return lines
    bar = style.paint(style.symbol("│"), "place")
    source, start, length = _excerpt(
        source_line, position, max(_MIN_TEXT, min(style.width, _WIDEST) - gutter - 4), style
    )
    tone = _tone(diagnostic)
    lines.append(f"{' ' * gutter} {bar}")
    lines.append(f"{style.paint(str(position.line), 'place')} {bar} {source}")
    lines.append(f"{' ' * gutter} {bar} {' ' * start}{style.paint('^' * length, tone)}")
    return lines


def _excerpt(source_line: str, position: Position, room: int, style: Style) -> tuple[str, int, int]:
    """Return the source line as shown, the column of the caret in it and the length of the mark, in columns."""
    raw = source_line.rstrip("\r\n")
    begin = min(max(position.column - 1, 0), len(raw))
    end = position.end_column
    stop = begin + 1 if end is None else max(begin + 1, min(end - 1, len(raw)))
    before, marked, after = plain(raw[:begin]), plain(raw[begin:stop]), plain(raw[stop:])
    dots = style.symbol("…")
    if columns(before) > room * 2 // 3:  # a long line: show what surrounds the mark
        keep = room // 3
        before = dots + before[-keep:]
    shown = cut(before + marked + after, room, ellipsis=dots)
    length = max(1, min(columns(marked), room - columns(before)))
    return shown, columns(before), length


def count_line(diagnostics: Sequence[Diagnostic]) -> str:
    """Return `2 errors, 1 warning`; an empty string when there is none."""
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in diagnostics)
    warnings = len(diagnostics) - errors
    parts = [counted(errors, "error")] if errors else []
    if warnings:
        parts.append(counted(warnings, "warning"))
    return ", ".join(parts)
