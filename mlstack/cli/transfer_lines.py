"""How a transfer is shown: one live line on a terminal, a line now and then elsewhere. All on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlstack.cli.console import note
from mlstack.cli.settings import Settings
from mlstack.render.escape import plain

_EVERY = 10.0
_CLEAR = "\r\x1b[2K"


@contextmanager
def transfer_lines(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Give the function that lines of progress are handed to; it may be called from any thread."""
    if settings.err.terminal and not settings.ci:
        shown = False

        def live(line: str) -> None:
            nonlocal shown
            shown = True
            sys.stderr.write(f"{_CLEAR}{plain(line)} …")
            sys.stderr.flush()

        try:
            yield live
        finally:
            if shown:
                sys.stderr.write(_CLEAR)
                sys.stderr.flush()
        return
    said_at = time.monotonic()

    def lines(line: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= _EVERY:
            said_at = time.monotonic()
            note(plain(line))

    yield lines
