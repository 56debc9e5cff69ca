"""The progress of an apply: plain lines, JSON lines, and live lines on an emulated terminal."""

import io
import re
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.executor.events import (
    ApplyEnded,
    ApplyStarted,
    Event,
    Interrupted,
    StepDone,
    StepFailed,
    StepProgress,
    StepRefined,
    StepSkipped,
    StepStarted,
    StepWaiting,
)
from mlstack.graph.change import Action
from mlstack.planner.plan import Plan
from mlstack.render.events_json import JsonEvents
from mlstack.render.events_live import LiveProgress
from mlstack.render.events_text import TextProgress, event_lines, render_result
from mlstack.render.style import Style
from mlstack.spec.address import Address
from mlstack.state.state import StepResult
from tests.unit.render.plans_by_hand import made_plans

TRAIN, SERVE = Address("stages.train"), Address("endpoints.quality")


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return made_plans()


FAULT = Diagnostic(code="stage-failed", summary="The stage failed", detail="Exit code 1.", address=TRAIN)
EVENTS: list[Event] = [
    ApplyStarted(apply_id="a1", steps=4),
    StepStarted(address=TRAIN, action=Action.RUN),
    StepProgress(address=TRAIN, line="epoch 1\repoch 2 \x1b[31mred\x1b[0m\n"),
    StepRefined(address=SERVE, planned=Action.UPDATE, action=Action.NO_OP, because="same outputs"),
    StepDone(address=SERVE, action=Action.CREATE, seconds=75.0, detail="http://127.0.0.1:8080"),
    StepFailed(address=TRAIN, action=Action.RUN, seconds=3.2, diagnostics=(FAULT,), log_tail=("a", "\x1b]0;x\x07b")),
    StepSkipped(address=SERVE, action=Action.CREATE, because="stages.train failed"),
    Interrupted(now=False),
    Interrupted(now=True),
    ApplyEnded(outcome="failed", results=(StepResult(address=TRAIN, action="run", outcome="failed", seconds=3.2),)),
]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------------------------------------------- plain lines


def text_of(events: list[Event], *, clock: Clock | None = None, verbose: bool = False) -> str:
    out = io.StringIO()
    progress = TextProgress(out.write, style=Style(), clock=clock or Clock(), verbose=verbose)
    for event in events:
        progress(event)
    return out.getvalue()


def test_plain_lines() -> None:
    assert text_of(EVENTS) == (
        "stages.train: running…\n"
        "endpoints.quality: no change instead of update in place (same outputs)\n"
        "endpoints.quality: ✓ created after 1m 15s: http://127.0.0.1:8080\n"
        "stages.train: ✗ failed after 3.2s\n"
        "error: The stage failed  [stages.train]\n"
        "  Exit code 1.\n"
        "  the last 2 lines of its output:\n"
        "  │ a\n"
        "  │ b\n"
        "endpoints.quality: not started (stages.train failed)\n"
        "Interrupted: finishing the running steps, starting no more. Press Ctrl-C again to stop now.\n"
        "Stopping now. What was being done may be left half done; the next apply looks.\n"
    )


def test_a_step_that_failed_is_one_failure_whatever_it_has_to_say() -> None:
    goes_on = Diagnostic(code="run-goes-on", severity=Severity.WARNING, summary="The run goes on", address=TRAIN)
    failed = StepFailed(address=TRAIN, action=Action.RUN, seconds=3.2, diagnostics=(FAULT, goes_on))
    assert text_of([failed]) == (
        "stages.train: ✗ failed after 3.2s\n"
        "error: The stage failed  [stages.train]\n"
        "  Exit code 1.\n"
        "warning: The run goes on  [stages.train]\n"
    )
    _, *lines = json_of([failed])
    assert [(line["type"], line["@level"]) for line in lines] == [
        ("apply_errored", "error"),
        ("diagnostic", "error"),
        ("diagnostic", "warn"),
    ]


def test_who_interrupts_is_told_that_runs_on_clusters_go_on() -> None:
    first, second = ("".join(event_lines(Interrupted(now=now, elsewhere=True), style=Style())) for now in (False, True))
    assert "Press Ctrl-C again to leave now: runs on clusters go on" in first
    assert "`mlstack cancel` stops them" in first
    assert "Runs on clusters go on" in second


def test_what_the_word_says_is_not_said_again() -> None:
    assert text_of([StepDone(address=TRAIN, action=Action.RESTORE, seconds=1.0, detail="restored")]) == (
        "stages.train: ✓ restored after 1.0s\n"
    )


def test_output_lines_come_now_and_then() -> None:
    clock = Clock()
    out = io.StringIO()
    progress = TextProgress(out.write, style=Style(), clock=clock)
    progress(StepStarted(address=TRAIN, action=Action.RUN))
    for second in range(90):
        clock.now = float(second)
        progress(StepProgress(address=TRAIN, line=f"epoch {second}"))
    assert re.findall(r"epoch (\d+)", out.getvalue()) == ["30", "60"]
    assert "epoch 2 red" in text_of(EVENTS, verbose=True)


def test_done_result_ends_in_the_line_that_scripts_read() -> None:
    results = (
        StepResult(address=TRAIN, action="run", outcome="done", seconds=2),
        StepResult(address=Address("stages.b"), action="run", outcome="done"),
        StepResult(address=SERVE, action="create", outcome="done", detail="http://127.0.0.1:1"),
        StepResult(address=Address("stages.c"), action="a-later-action", outcome="done"),
    )
    text = render_result(ApplyEnded(outcome="done", results=results), style=Style())
    assert text == ("  endpoints.quality  http://127.0.0.1:1\nApply complete! 2 ran, 1 created, 1 a-later-action.\n")
    assert render_result(ApplyEnded(outcome="done", results=()), style=Style(), verb="Run") == (
        "Run complete! Nothing was to be done.\n"
    )


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
def test_partial_result_has_three_lists_and_how_to_go_on(outcome: Any) -> None:
    results = (
        StepResult(address=Address("stages.a"), action="run", outcome="done", seconds=61),
        StepResult(address=TRAIN, action="run", outcome="failed", detail="exit code 1"),
        StepResult(address=SERVE, action="create", outcome="not-started", detail="stages.train failed"),
        StepResult(address=Address("stages.z"), action="run", outcome="skipped"),
    )
    text = render_result(ApplyEnded(outcome=outcome, results=results), style=Style(), again="mlstack apply")
    assert text == (
        "Done:\n  ✓ stages.a (1m 01s)\nFailed:\n  ✗ stages.train: exit code 1\n"
        "Not started:\n  • endpoints.quality: stages.train failed\n  • stages.z\n\n"
        "What is done is recorded. To go on from here:\n\n    mlstack apply\n\n"
        f"Apply {outcome}. 1 done, 1 failed, 2 not started.\n"
    )


# ---------------------------------------------------------------------------------------------------- JSON lines


def json_of(events: list[Event], plan: Plan | None = None) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    stream = JsonEvents(lines.append, now=lambda: datetime(2026, 1, 31, tzinfo=UTC))
    stream.version("0.1.0")
    if plan is not None:
        stream.plan(plan)
    for event in events:
        stream(event)
    return [msgspec.json.decode(msgspec.json.encode(line)) for line in lines]


def test_every_json_line_has_the_four_keys(plans: dict[str, Plan]) -> None:
    lines = json_of(EVENTS, plans["endpoints"])
    assert lines[0]["type"] == "version"
    assert all({"@level", "@message", "@timestamp", "type"} <= line.keys() for line in lines)
    assert lines[0]["@timestamp"] == "2026-01-31T00:00:00.000+00:00"
    kinds = [line["type"] for line in lines]
    assert kinds.count("planned_change") == len(plans["endpoints"].pending)
    assert kinds.count("resource_drift") == 2
    assert kinds[-1] == "change_summary"
    wanted = {"apply_start", "apply_progress", "apply_complete", "apply_errored", "apply_skipped", "diagnostic"}
    assert wanted <= set(kinds)


def test_json_of_steps() -> None:
    lines = {line["type"]: line for line in json_of(EVENTS)}
    assert lines["apply_progress"]["hook"] == {"resource": {"addr": TRAIN}, "line": "epoch 2 red"}
    assert lines["apply_complete"]["hook"]["elapsed_seconds"] == 75.0
    assert lines["apply_errored"]["hook"]["log_tail"] == ["a", "b"]
    assert lines["apply_refined"]["hook"]["planned_action"] == "update"
    assert lines["diagnostic"]["diagnostic"]["code"] == "stage-failed"
    assert lines["change_summary"]["changes"] == {"operation": "apply", "outcome": "failed", "failed": 1}


# ---------------------------------------------------------------------------------------------------- live lines


class Terminal(io.StringIO):
    """As much of a terminal as the painter uses: wrapping, cursor up, erase below, erase to the end of the line."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.width, self.height = width, height
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0
        self.cursor = True
        self.wrapped = 0
        self.written = ""

    def write(self, text: str) -> int:
        self.written += text
        for token in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|[^\x1b]", text):
            self._token(token)
        return len(text)

    def _token(self, token: str) -> None:
        match token:
            case "\n":
                self.row, self.column = self.row + 1, 0
            case "\r":
                self.column = 0
            case "\x1b[?25l" | "\x1b[?25h":
                self.cursor = token.endswith("h")
            case "\x1b[J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            case "\x1b[K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            case _ if token.startswith("\x1b["):
                if token.endswith("A"):
                    self.row = max(0, self.row - int(token[2:-1]))
                else:
                    assert token.endswith("m"), token
            case _:
                if self.column >= self.width:
                    self.wrapped += 1
                    self.row, self.column = self.row + 1, 0
                self._room()
                line = self.rows[self.row]
                line.extend(" " * (self.column + 1 - len(line)))
                line[self.column] = token
                self.column += 1
        self._room()

    def _room(self) -> None:
        while len(self.rows) <= self.row:
            self.rows.append([])

    def shown(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]

    def resize(self, width: int) -> None:
        """Reflow as terminals do."""
        old = self.shown()
        self.width = width
        self.rows = [list(line[i : i + width]) for line in old for i in range(0, max(1, len(line)), width)]
        self.row, self.column = len(self.rows) - 1, 0


def painter(terminal: Terminal, clock: Clock, **style: Any) -> LiveProgress:
    return LiveProgress(
        terminal,
        style=Style(terminal=True, **style),
        clock=clock,
        size=lambda: (terminal.width, terminal.height),
        ticking=False,
    )


def test_live_lines_below_lasting_lines() -> None:
    terminal, clock = Terminal(60, 24), Clock()
    with painter(terminal, clock) as live:
        assert "\x1b[?25l" in terminal.written
        live(ApplyStarted(apply_id="a", steps=3))
        live(StepStarted(address=TRAIN, action=Action.RUN))
        clock.now = 65.0
        live(StepProgress(address=TRAIN, line="epoch 3"))
        assert terminal.shown() == ["  ▶ stages.train   1:05  epoch 3", "  0 of 3 steps ended, 1 running", ""]
        live(StepDone(address=Address("datasets.wine"), action=Action.CREATE, seconds=0.2))
        assert terminal.shown()[0] == "datasets.wine: ✓ created after 0.2s"
        assert terminal.shown()[1:] == ["  ▶ stages.train   1:05  epoch 3", "  1 of 3 steps ended, 1 running", ""]
        live(StepDone(address=TRAIN, action=Action.RUN, seconds=70.0))
    assert terminal.cursor
    assert terminal.shown() == ["datasets.wine: ✓ created after 0.2s", "stages.train: ✓ ran after 1m 10s", ""]


@pytest.mark.parametrize("width", [10, 20, 40, 80, 140])
@pytest.mark.parametrize("height", [4, 10, 24])
def test_fifty_running_steps_never_wrap(width: int, height: int) -> None:
    terminal, clock = Terminal(width, height), Clock()
    with painter(terminal, clock, color=True) as live:
        live(ApplyStarted(apply_id="a", steps=50))
        for number in range(50):
            live(StepStarted(address=Address(f"stages.train[depth={number},名前=長い値]"), action=Action.RUN))
            live(StepProgress(address=Address(f"stages.train[depth={number},名前=長い値]"), line="x" * 300))
            clock.now += 1.0
        live(StepProgress(address=Address("stages.train[depth=0,名前=長い値]"), line="y" * 300))
        assert terminal.wrapped == 0
        shown = [line for line in terminal.shown() if line]
        assert len(shown) <= max(3, height - 1)
        if width >= 40:
            assert any(re.fullmatch(r"  and \d+ more", line) for line in shown)
            assert "0 of 50 steps ended, 50 running" in shown[-1]
    assert terminal.shown() == [""]


WAITING = StepWaiting(address=TRAIN, room="cpu of compute.local")


def test_waiting_for_room_is_not_running() -> None:
    begun = StepStarted(address=TRAIN, action=Action.RUN)
    no_longer = StepWaiting(address=TRAIN, room="")
    said = text_of([begun, WAITING, no_longer]).splitlines()
    assert said[1:] == ["stages.train: waiting for cpu of compute.local…", "stages.train: running…"]
    terminal, clock = Terminal(80, 24), Clock()
    with painter(terminal, clock) as live:
        live(ApplyStarted(apply_id="a", steps=2))
        live(begun)
        live(WAITING)
        live(StepStarted(address=Address("stages.b"), action=Action.RUN))
        clock.now += 90.0
        live(StepProgress(address=Address("stages.b"), line="epoch 1"))
        first, second, counter = (line for line in terminal.shown() if line)
        assert "stages.b" in first, "what runs comes first"
        assert "waiting for cpu of compute.local" in second
        assert counter == "  0 of 2 steps ended, 1 running, 1 waiting"
        live(no_longer)
        clock.now += 1.0
        live(StepProgress(address=TRAIN, line="epoch 9"))
        shown = next(line for line in terminal.shown() if "stages.train" in line)
        assert "epoch 9" in shown
        assert " 0:01" in shown, "the time that is shown is that of the run"


def test_narrowed_terminal_leaves_nothing_behind() -> None:
    terminal, clock = Terminal(100, 30), Clock()
    with painter(terminal, clock) as live:
        for number in range(3):
            live(StepStarted(address=Address(f"stages.s{number}"), action=Action.RUN))
        clock.now = 1.0
        live(StepProgress(address=Address("stages.s0"), line="word " * 40))
        terminal.resize(40)
        clock.now = 2.0
        live(StepProgress(address=Address("stages.s0"), line="short"))
        shown = [line for line in terminal.shown() if line]
        assert len(shown) == 4, shown
        assert shown[0].endswith("short")
    assert [line for line in terminal.shown() if line] == []


def test_cursor_comes_back_after_an_error() -> None:
    terminal = Terminal(80, 24)

    def interrupted() -> None:
        with painter(terminal, Clock()) as live:
            live(StepStarted(address=TRAIN, action=Action.RUN))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.cursor
    assert terminal.shown() == [""]


def test_events_from_many_threads_and_a_ticking_clock() -> None:
    terminal = Terminal(80, 24)
    live = LiveProgress(terminal, style=Style(terminal=True), clock=Clock(), size=lambda: (80, 24))
    with live:

        def work(number: int) -> None:
            address = Address(f"stages.s{number}")
            live(StepStarted(address=address, action=Action.RUN))
            for line in range(50):
                live(StepProgress(address=address, line=str(line)))
            live(StepDone(address=address, action=Action.RUN, seconds=1.0))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    shown = [line for line in terminal.shown() if line]
    assert sorted(shown) == [f"stages.s{number}: ✓ ran after 1.0s" for number in range(8)]
    assert terminal.cursor


def test_a_terminal_that_went_away_stops_nothing() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with painter(Gone(80, 24), Clock()) as live:
        for event in EVENTS:
            live(event)


def test_hostile_output_is_harmless() -> None:
    terminal, clock = Terminal(80, 24), Clock()
    with painter(terminal, clock) as live:
        live(StepStarted(address=TRAIN, action=Action.RUN))
        clock.now = 1.0
        live(StepProgress(address=TRAIN, line="\x1b[2J\x1b[H\x1b]0;owned\x07hello\x9b1A\u202e"))
        assert "hello\\x9b1A\\u202e" in terminal.shown()[0]


def test_an_ascii_terminal_gets_ascii() -> None:
    terminal, clock = Terminal(80, 24), Clock()
    with painter(terminal, clock, unicode=False) as live:
        for event in EVENTS[:5]:
            clock.now += 1
            live(event)
        assert all(line.isascii() for line in terminal.shown())
