"""Which way the progress of an apply is shown: JSON, live lines, or plain lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from mlstack.cli.console import note, say_json_line
from mlstack.cli.settings import Settings
from mlstack.executor.events import Event


@contextmanager
def progress(settings: Settings) -> Iterator[Callable[[Event], None]]:
    """Give the function that events are handed to. JSON goes to standard output, the rest to standard error.

    A reader that left never stops the apply: what cannot be written any more is dropped.
    """
    if settings.json:
        from mlstack.render.events_json import JsonEvents

        yield JsonEvents(_never_broken(say_json_line))
    elif settings.err.terminal and not settings.ci:
        from mlstack.render.events_live import LiveProgress

        with LiveProgress(sys.stderr, style=settings.err, clock=monotonic) as live:
            yield live
    else:
        from mlstack.render.events_text import TextProgress

        yield TextProgress(
            lambda text: note(text.rstrip("\n")), style=settings.err, clock=monotonic, verbose=settings.verbose
        )


def _never_broken(write: Callable[[dict[str, object]], None]) -> Callable[[dict[str, object]], None]:
    broken = False

    def careful(line: dict[str, object]) -> None:
        nonlocal broken
        if not broken:
            try:
                write(line)
            except BrokenPipeError:
                broken = True

    return careful
