"""Where text goes: results to standard output, progress and diagnostics to standard error."""

import sys
from collections.abc import Sequence
from typing import Any, TextIO

import msgspec

from mlstack.cli.settings import Settings
from mlstack.diagnostics import Diagnostic
from mlstack.render.diagnostics_text import render_diagnostics


def say(text: str) -> None:
    """Write a result to standard output, with a newline at its end."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Write progress or a remark to standard error, with a newline at its end. A closed one is no failure."""
    try:
        _write(sys.stderr, text)
        if sys.stderr is not None:
            sys.stderr.flush()
    except BrokenPipeError:
        return


def say_json(document: Any) -> None:
    """Write one JSON document to standard output, indented."""
    say(json_text(document))


def say_json_line(document: Any) -> None:
    """Write one JSON object as one line, at once."""
    say(msgspec.json.encode(document).decode())
    if sys.stdout is not None:
        sys.stdout.flush()


def json_text(document: Any) -> str:
    """Return an indented JSON document."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def report(settings: Settings, diagnostics: Sequence[Diagnostic]) -> None:
    """Show diagnostics: as blocks on standard error, or as JSON on standard output when `--json` was asked for."""
    if not diagnostics:
        return
    if not settings.json:
        note(render_diagnostics(diagnostics, style=settings.err).rstrip("\n"))
        return
    if settings.stream:
        from mlstack.render.events_json import diagnostic_line

        for diagnostic in diagnostics:
            say_json_line(diagnostic_line(diagnostic))
        return
    from mlstack.render.diagnostics_json import diagnostics_document

    say_json(diagnostics_document(diagnostics))


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # started with this stream closed (`>&-`): nobody wants to see it
        return
    line = text if text.endswith("\n") else text + "\n"
    try:
        stream.write(line)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
