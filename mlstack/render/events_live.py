"""The progress of an apply on a terminal: lines that stay above, one live line per running step below.

A small painter of our own: it moves up over what it painted last, writes it anew and clears the rest. Lines are cut to
the width, so they never wrap; there are as many as fit; the cursor comes back whatever happens.
"""

import atexit
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

import msgspec

from mlstack.executor.events import (
    ApplyStarted,
    Event,
    StepDone,
    StepFailed,
    StepLeft,
    StepProgress,
    StepSkipped,
    StepStarted,
    StepWaiting,
)
from mlstack.graph.change import Action
from mlstack.render.columns import columns, cut
from mlstack.render.escape import output_line, plain
from mlstack.render.events_text import event_lines
from mlstack.render.human import clock as clock_text
from mlstack.render.style import Style
from mlstack.render.words import ACTIONS
from mlstack.spec.address import Address

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CLEAR_BELOW = "\x1b[J"
_CLEAR_REST = "\x1b[K"
_PERIOD = 0.2
_MOST_LINES = 15


class _Running(msgspec.Struct):
    action: Action
    since: float
    line: str = ""
    waits_for: str = ""


class LiveProgress:
    """A painter for one terminal; use it as a context manager. Events may come from any thread.

    `size` gives columns and lines of the terminal and is asked at every repaint. With `ticking=False` nothing is
    repainted between events (for tests).
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        style: Style,
        clock: Callable[[], float],
        size: Callable[[], tuple[int, int]] | None = None,
        ticking: bool = True,
    ) -> None:
        self._stream = stream
        self._style = style
        self._clock = clock
        self._size = size or (lambda: _terminal_size(stream))
        self._running: dict[Address, _Running] = {}
        self._painted: list[int] = []
        self._steps = 0
        self._ended = 0
        self._broken = False
        self._painted_at = 0.0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True) if ticking else None

    def __enter__(self) -> Self:
        """Hide the cursor and begin to paint."""
        atexit.register(self.close)
        self._put(_HIDE)
        if self._ticker is not None:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the live lines and give the cursor back."""
        self.close()

    def close(self) -> None:
        """Remove the live lines and give the cursor back. May be called more than once."""
        if self._stop.is_set():
            return
        self._stop.set()
        with self._lock:
            self._running.clear()
            self._put(self._erased() + _SHOW)
        if self._ticker is not None and self._ticker is not threading.current_thread():
            self._ticker.join(timeout=1)
        atexit.unregister(self.close)

    def __call__(self, event: Event) -> None:
        """Take one event and repaint."""
        with self._lock:
            lasting = self._take(event)
            if self._stop.is_set():
                self._put("".join(line + "\n" for line in lasting))
            elif lasting or self._clock() - self._painted_at >= _PERIOD:
                self._repaint(lasting)

    # ------------------------------------------------------------------------------------------------ events

    def _take(self, event: Event) -> list[str]:
        """Note what is running now; return the lines that stay."""
        match event:
            case ApplyStarted():
                self._steps = event.steps
                return []
            case StepStarted():
                self._running[event.address] = _Running(action=event.action, since=self._clock())
                return []
            case StepProgress():
                if event.address in self._running:
                    self._running[event.address].line = output_line(event.line)
                return []
            case StepWaiting():
                if event.address in self._running:
                    step = self._running[event.address]
                    step.waits_for, step.since = event.room, self._clock()
                return []
            case StepDone() | StepFailed() | StepSkipped() | StepLeft():
                self._running.pop(event.address, None)
                self._ended += 1
        return list(event_lines(event, style=self._style))

    # ------------------------------------------------------------------------------------------------ painting

    def _tick(self) -> None:
        while not self._stop.wait(_PERIOD):
            with self._lock:
                if not self._stop.is_set():
                    self._repaint([])

    def _repaint(self, lasting: list[str]) -> None:
        self._painted_at = self._clock()
        width, height = self._size()
        lines = self._live_lines(width, height)
        text = self._erased() + "".join(line + "\n" for line in lasting)
        text += "".join(f"{line}{_CLEAR_REST}\n" for line in lines)
        self._painted = [columns(line) for line in lines]
        self._put(text + _CLEAR_BELOW)

    def _erased(self) -> str:
        """Return what moves up over the lines painted last. A narrowed terminal has wrapped them into more rows."""
        if not self._painted:
            return ""
        width = max(1, self._size()[0])
        rows = sum(max(1, -(-taken // width)) for taken in self._painted)
        self._painted = []
        return f"\r\x1b[{rows}A{_CLEAR_BELOW}"

    def _live_lines(self, width: int, height: int) -> list[str]:
        if not self._running:
            return []
        room = max(1, min(_MOST_LINES, height - 3))
        items = sorted(self._running.items(), key=lambda item: bool(item[1].waits_for))
        shown = items if len(items) <= room else items[: room - 1]
        names = max((columns(plain(address)) for address, _ in shown), default=0)
        lines = [self._live_line(address, step, width, names) for address, step in shown]
        if len(shown) < len(items):
            lines.append(cut(f"  and {len(items) - len(shown)} more", width - 1, ellipsis="~"))
        return [*lines, self._style.paint(cut(self._counter(), width - 1, ellipsis="~"), "quiet")]

    def _counter(self) -> str:
        total = f" of {self._steps}" if self._steps else ""
        waiting = sum(bool(step.waits_for) for step in self._running.values())
        rest = f", {waiting} waiting" if waiting else ""
        return f"  {self._ended}{total} steps ended, {len(self._running) - waiting} running{rest}"

    def _live_line(self, address: Address, step: _Running, width: int, names: int) -> str:
        """Return one line that is never wider than the terminal less one column (the last one wraps on some)."""
        dots = self._style.symbol("…")
        symbol = self._style.symbol(ACTIONS[step.action].symbol).rjust(3)
        elapsed = clock_text(self._clock() - step.since).rjust(6)
        name = plain(address)
        head = f"{symbol} {name}{' ' * (min(names, width // 2) - columns(name))} {elapsed}"
        if columns(head) > width - 1:
            return cut(head, width - 1, ellipsis=dots)
        room = width - 1 - columns(head) - 2
        said = step.line or ACTIONS[step.action].doing
        said = f"waiting for {plain(step.waits_for)}" if step.waits_for else said
        tail = f"  {self._style.paint(cut(said, room, ellipsis=dots), 'quiet')}" if room > 8 else ""
        return head.replace(symbol, self._style.paint(symbol, ACTIONS[step.action].tone), 1) + tail

    def _put(self, text: str) -> None:
        """Write at once. A terminal that went away must not stop the apply: from then on nothing is written."""
        if self._broken or not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()


def _terminal_size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
