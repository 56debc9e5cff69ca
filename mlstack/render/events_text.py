"""The progress of an apply as plain lines, for logs and pipes; and what is said at its end."""

from collections.abc import Callable, Iterable, Sequence

from mlstack.executor.events import (
    ApplyEnded,
    ApplyStarted,
    Event,
    Interrupted,
    StepDone,
    StepFailed,
    StepLeft,
    StepProgress,
    StepRefined,
    StepSkipped,
    StepStarted,
    StepWaiting,
)
from mlstack.graph.change import Action
from mlstack.render.diagnostics_text import render_diagnostic
from mlstack.render.escape import output_line, plain
from mlstack.render.human import counted, duration
from mlstack.render.style import Style
from mlstack.render.words import ACTIONS
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.state.state import StepResult

Write = Callable[[str], object]
"""Takes text that ends in a newline."""

_QUIET_PERIOD = 30.0


class TextProgress:
    """Writes one line when a step starts and ends, and its last output line now and then.

    `clock` gives seconds and is only used to write at most one line of output per step and half a minute, so that a
    log in CI shows that something goes on without repeating the stage's own log.
    """

    def __init__(self, write: Write, *, style: Style, clock: Callable[[], float], verbose: bool = False) -> None:
        self._write = write
        self._style = style
        self._clock = clock
        self._verbose = verbose
        self._said: dict[Address, float] = {}

    def __call__(self, event: Event) -> None:
        """Write what `event` says."""
        if isinstance(event, StepStarted):
            self._said[event.address] = self._clock()
        if isinstance(event, StepProgress) and not self._is_due(event):
            return
        for line in event_lines(event, style=self._style):
            self._write(line + "\n")

    def close(self) -> None:
        """Nothing is left open."""

    def _is_due(self, event: StepProgress) -> bool:
        now = self._clock()
        if self._verbose or now - self._said.get(event.address, now) >= _QUIET_PERIOD:
            self._said[event.address] = now
            return True
        return False


def event_lines(event: Event, *, style: Style) -> Iterable[str]:
    """Yield the lines that stay on the screen for one event."""
    match event:
        case StepStarted():
            words = ACTIONS[event.action]
            yield f"{plain(event.address)}: {style.paint(words.doing, words.tone)}{style.symbol('…')}"
        case StepProgress():
            yield f"{plain(event.address)}: {output_line(event.line)}"
        case StepWaiting() if event.room:
            yield f"{plain(event.address)}: waiting for {plain(event.room)}{style.symbol('…')}"
        case StepWaiting():
            yield f"{plain(event.address)}: {ACTIONS[Action.RUN].doing}{style.symbol('…')}"
        case StepRefined():
            planned, found = ACTIONS[event.planned].word, ACTIONS[event.action].word
            yield f"{plain(event.address)}: {found} instead of {planned} ({plain(event.because)})"
        case StepDone():
            word = ACTIONS[event.action].done
            done = style.paint(f"{style.symbol('✓')} {word}", "add")
            detail = f": {plain(event.detail)}" if event.detail not in ("", word) else ""
            yield f"{plain(event.address)}: {done} after {duration(event.seconds)}{detail}"
        case StepFailed():
            yield from _failed(event, style)
        case StepSkipped():
            yield f"{plain(event.address)}: {style.paint('not started', 'warning')} ({plain(event.because)})"
        case StepLeft():
            yield f"{plain(event.address)}: {style.paint('goes on', 'warning')}: {plain(event.detail)}"
        case Interrupted():
            yield _interrupted(event, style)
        case ApplyStarted() | ApplyEnded():
            return


def _failed(event: StepFailed, style: Style) -> Iterable[str]:
    mark = style.paint(f"{style.symbol('✗')} failed", "error")
    yield f"{plain(event.address)}: {mark} after {duration(event.seconds)}"
    for diagnostic in event.diagnostics:
        yield from render_diagnostic(diagnostic, style=style).rstrip("\n").split("\n")
    if event.log_tail:
        yield style.paint(f"  the last {counted(len(event.log_tail), 'line')} of its output:", "quiet")
        yield from (f"  {style.symbol('│')} {output_line(line)}" for line in event.log_tail)
    if event.log:
        yield f"  all of it: {plain(event.log)}"


def _interrupted(event: Interrupted, style: Style) -> str:
    match event:
        case Interrupted(now=True, elsewhere=True):
            text = (
                "Stopping now. Runs on clusters go on; what else was being done may be left half done. "
                "The next apply looks."
            )
        case Interrupted(now=True):
            text = "Stopping now. What was being done may be left half done; the next apply looks."
        case Interrupted(elsewhere=True):
            text = (
                "Interrupted: waiting for what runs, starting no more. Press Ctrl-C again to leave now: "
                "runs on clusters go on, and the next apply follows them (`mlstack cancel` stops them)."
            )
        case _:
            text = "Interrupted: finishing the running steps, starting no more. Press Ctrl-C again to stop now."
    return style.paint(text, "warning")


def render_result(ended: ApplyEnded, *, style: Style, verb: str = "Apply", again: str = "mlstack apply") -> str:
    """Return what is said at the end. After a failure: three lists and how to go on. Ends in a newline.

    `verb` is the word of the command ("Apply", "Destroy", "Run"), `again` the command line that goes on.
    """
    done = [result for result in ended.results if result.outcome == "done"]
    if ended.outcome == "done":
        line = f"{style.paint(f'{verb} complete!', 'good')} {_counts(done)}\n"
        return "".join(f"  {plain(r.address)}  {plain(r.detail)}\n" for r in done if _is_served(r)) + line
    if ended.outcome == "left":
        return _left(ended, done, style, verb=verb, again=again)
    failed = [result for result in ended.results if result.outcome == "failed"]
    rest = [result for result in ended.results if result.outcome in ("not-started", "skipped")]
    lines: list[str] = []
    lines.extend(_list("Done", done, style, tone_mark="✓"))
    lines.extend(_list("Failed", failed, style, tone_mark="✗"))
    lines.extend(_list("Not started", rest, style, tone_mark="•"))
    if failed and all(kind_of(result.address) is Kind.MODEL for result in failed):
        lines.extend(["", "What is done is recorded. Behind the gate nothing goes on until it is met.", ""])
    else:
        lines += ["", "What is done is recorded. To go on from here:", "", f"    {style.paint(again, 'strong')}", ""]
    word = "failed" if ended.outcome == "failed" else "interrupted"
    counts = f"{len(done)} done, {len(failed)} failed, {len(rest)} not started."
    lines.append(f"{style.paint(f'{verb} {word}.', 'error')} {counts}")
    return "\n".join(lines) + "\n"


def _left(ended: ApplyEnded, done: Sequence[StepResult], style: Style, *, verb: str, again: str) -> str:
    """Say what goes on elsewhere, and how its results are taken over."""
    left = [result for result in ended.results if result.outcome == "left"]
    rest = [result for result in ended.results if result.outcome in ("not-started", "skipped")]
    lines = [
        *_list("Done", done, style, tone_mark="✓"),
        *_list("Goes on", left, style, tone_mark="▶"),
        *_list("Waits for that", rest, style, tone_mark="•"),
    ]
    lines += [
        "",
        "To follow what goes on, and to take its results:",
        "",
        f"    {style.paint(again, 'strong')}",
        "",
    ]
    counts = f"{len(done)} done, {len(left)} going on, {len(rest)} waiting for them."
    lines.append(f"{style.paint(f'{verb} left runs going on.', 'warning')} {counts}")
    return "\n".join(lines) + "\n"


def _list(title: str, results: Sequence[StepResult], style: Style, *, tone_mark: str) -> Iterable[str]:
    if not results:
        return
    yield style.paint(f"{title}:", "strong")
    for result in results:
        took = f" ({duration(result.seconds)})" if result.seconds else ""
        detail = f": {plain(result.detail)}" if result.detail else ""
        yield f"  {style.symbol(tone_mark)} {plain(result.address)}{took}{detail}"


def _is_served(result: StepResult) -> bool:
    return bool(result.detail) and kind_of(result.address) is Kind.ENDPOINT


def _counts(done: Sequence[StepResult]) -> str:
    words: dict[str, int] = {}
    for result in done:
        word = _done_word(result.action)
        words[word] = words.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in words.items()) + "." if words else "Nothing was to be done."


def _done_word(action: str) -> str:
    try:
        return ACTIONS[Action(action)].done
    except ValueError:
        return plain(action)
