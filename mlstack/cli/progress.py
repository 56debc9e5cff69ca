"""Which way an apply is shown while it runs, JSON, live lines or plain lines; and what is said at its end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import msgspec

from mlstack import __version__
from mlstack.cli.console import note, say, say_json_line
from mlstack.cli.settings import Settings
from mlstack.cli.write_file import open_text
from mlstack.executor.events import ApplyEnded, Event
from mlstack.planner.plan import Plan

OnEvent = Callable[[Event], None]


@contextmanager
def event_renderer(settings: Settings, plan: Plan) -> Iterator[OnEvent]:
    """Give the function that events are handed to; it may be called from any thread.

    With `--json`, the stream goes to standard output, the plan first. Otherwise progress goes to standard error, and
    the last line ("Apply complete! …") to standard output. A reader that left never stops the apply: what cannot be
    written any more is dropped.
    """
    if settings.json:
        from mlstack.render.events_json import JsonEvents

        events = JsonEvents(_never_broken(say_json_line))
        events.version(__version__)
        events.plan(plan)
        yield events
        return
    ended: list[ApplyEnded] = []
    try:
        with progress_renderer(settings) as show:

            def on_event(event: Event) -> None:
                if isinstance(event, ApplyEnded):
                    ended.append(event)
                show(event)

            yield on_event
    finally:  # also when the end could not be recorded: what was done is told, then what went wrong
        if ended:
            _say_result(settings, ended[-1])


@contextmanager
def json_copy(path: Path, plan: Plan) -> Iterator[OnEvent]:
    """Give the function that writes events into a file as `--json` would to standard output, for CI.

    Raises `MlstackError` when the file cannot be opened; what cannot be written later never stops the apply.
    """
    from mlstack.render.events_json import JsonEvents

    with open_text(path) as stream:

        def emit(line: dict[str, object]) -> None:
            stream.write(msgspec.json.encode(line).decode() + "\n")
            stream.flush()

        events = JsonEvents(_never_broken(emit))
        events.version(__version__)
        events.plan(plan)
        yield events


@contextmanager
def progress_renderer(settings: Settings) -> Iterator[OnEvent]:
    """Give the function that shows events on standard error alone: live on a terminal, else a line each."""
    if settings.err.terminal and not settings.ci:
        from mlstack.render.events_live import LiveProgress

        with LiveProgress(sys.stderr, style=settings.err, clock=monotonic) as live:
            yield live
    else:
        from mlstack.render.events_text import TextProgress

        yield TextProgress(note, style=settings.err, clock=monotonic, verbose=settings.verbose)


def _say_result(settings: Settings, ended: ApplyEnded) -> None:
    from mlstack.render.events_text import render_result

    verb = settings.command.capitalize()
    again = f"mlstack {settings.command}"
    if ended.outcome == "done":
        say("\n" + render_result(ended, style=settings.out, verb=verb, again=again))
    else:
        note("\n" + render_result(ended, style=settings.err, verb=verb, again=again))


def _never_broken(write: Callable[[dict[str, object]], None]) -> Callable[[dict[str, object]], None]:
    broken = False

    def careful(line: dict[str, object]) -> None:
        nonlocal broken
        if not broken:
            try:
                write(line)
            except OSError:  # its reader left, or the disk is full
                broken = True

    return careful
