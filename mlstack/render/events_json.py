"""The event stream of `apply --json`: one object a line, with the keys of Terraform's."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, assert_never

from mlstack.diagnostics import Diagnostic
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
from mlstack.planner.plan import Plan, summarise
from mlstack.render.diagnostics_json import diagnostic_object
from mlstack.render.escape import output_line
from mlstack.render.plan_json import change_object
from mlstack.render.plan_text import plan_line
from mlstack.render.style import Style
from mlstack.render.words import ACTIONS, action_sentence

STREAM_FORMAT = "1.0"

Emit = Callable[[dict[str, Any]], None]
"""Writes one object as one line, at once."""


class JsonEvents:
    """Turns events into lines."""

    def __init__(self, emit: Emit, *, now: Callable[[], datetime] | None = None) -> None:
        self._emit = emit
        self._now = now or (lambda: datetime.now(UTC))

    def __call__(self, event: Event) -> None:
        """Write the lines of `event`."""
        for level, message, kind, rest in _lines(event):
            self._emit(_line(level, message, kind, rest, self._now()))

    def close(self) -> None:
        """Nothing is left open."""

    def version(self, mlstack_version: str) -> None:
        """Write the line that comes first."""
        rest = {"mlstack": mlstack_version, "format_version": STREAM_FORMAT}
        self._emit(_line("info", f"mlstack {mlstack_version}", "version", rest, self._now()))

    def plan(self, plan: Plan) -> None:
        """Write what is planned: a line for each change, then the summary, then the diagnostics."""
        for change in plan.changes:
            if change.drift:
                message = f"{change.address}: changed outside of mlstack"
                drift = {"change": change_object(change)}
                self._emit(_line("info", message, "resource_drift", drift, self._now()))
        for change in plan.pending:
            message = f"{change.address}: {action_sentence(change)}"
            self._emit(_line("info", message, "planned_change", {"change": change_object(change)}, self._now()))
        summary = summarise(plan.changes)
        counts = {name: getattr(summary, name) for name in summary.__struct_fields__}
        text = plan_line(plan, style=Style()).rpartition("\n")[2]
        rest = {"changes": {**counts, "operation": "plan"}, "digest": plan.digest}
        self._emit(_line("info", text, "change_summary", rest, self._now()))
        for diagnostic in plan.diagnostics:
            self._emit(diagnostic_line(diagnostic, now=self._now()))

    def outputs(self, outputs: Mapping[str, Any]) -> None:
        """Write what came of it: addresses of endpoints, versions of models."""
        self._emit(_line("info", f"Outputs: {len(outputs)}", "outputs", {"outputs": dict(outputs)}, self._now()))


def info_line(message: str, kind: str, rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of something that is no step: what was pushed, what was restored."""
    return _line("info", message, kind, dict(rest), datetime.now(UTC))


def diagnostic_line(diagnostic: Diagnostic, *, now: datetime | None = None) -> dict[str, Any]:
    """Return a diagnostic as an object of the stream."""
    level = "error" if diagnostic.severity == "error" else "warn"
    message = f"{diagnostic.severity.value.capitalize()}: {diagnostic.summary}"
    return _line(level, message, "diagnostic", {"diagnostic": diagnostic_object(diagnostic)}, now or datetime.now(UTC))


def _line(level: str, message: str, kind: str, rest: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    stamp = now.isoformat(timespec="milliseconds")
    return {"@level": level, "@message": message, "@module": "mlstack", "@timestamp": stamp, "type": kind, **rest}


def _hook(event: StepStarted | StepDone | StepFailed | StepSkipped | StepLeft, **rest: Any) -> dict[str, Any]:
    return {"hook": {"resource": {"addr": event.address}, "action": event.action.value, **rest}}


_Line = tuple[str, str, str, dict[str, Any]]


def _lines(event: Event) -> list[_Line]:
    match event:
        case ApplyStarted():
            message = f"Apply {event.apply_id}: {event.steps} steps"
            return [("info", message, "apply_begin", {"apply_id": event.apply_id, "steps": event.steps})]
        case StepStarted():
            return [("info", f"{event.address}: {ACTIONS[event.action].doing}", "apply_start", _hook(event))]
        case StepRefined():
            rest = {
                "hook": {
                    "resource": {"addr": event.address},
                    "planned_action": event.planned.value,
                    "action": event.action.value,
                    "because": event.because,
                }
            }
            return [("info", f"{event.address}: {event.action.value} ({event.because})", "apply_refined", rest)]
        case StepProgress():
            line = output_line(event.line)
            rest = {"hook": {"resource": {"addr": event.address}, "line": line}}
            return [("info", f"{event.address}: {line}", "apply_progress", rest)]
        case StepWaiting():
            message = f"{event.address}: " + (f"waiting for {event.room}" if event.room else "waits no longer")
            hook: dict[str, Any] = {"resource": {"addr": event.address}, "waiting_for": event.room or None}
            return [("info", message, "apply_waiting", {"hook": hook})]
        case StepDone():
            message = f"{event.address}: {ACTIONS[event.action].done}"
            done = _hook(event, elapsed_seconds=round(event.seconds, 3), detail=event.detail)
            return [("info", message, "apply_complete", done)]
        case StepFailed() | StepSkipped() | StepLeft() | Interrupted() | ApplyEnded():
            return _lines_of_ends(event)
        case _:
            assert_never(event)


def _lines_of_ends(event: StepFailed | StepSkipped | StepLeft | Interrupted | ApplyEnded) -> list[_Line]:
    match event:
        case StepFailed():
            tail = [output_line(line) for line in event.log_tail]
            hook = _hook(event, elapsed_seconds=round(event.seconds, 3), log=event.log, log_tail=tail)
            found = [diagnostic_line(each) for each in event.diagnostics]
            return [
                ("error", f"{event.address}: failed", "apply_errored", hook),
                *(
                    (each["@level"], each["@message"], "diagnostic", {"diagnostic": each["diagnostic"]})
                    for each in found
                ),
            ]
        case StepSkipped():
            hook = _hook(event, because=event.because)
            return [("warn", f"{event.address}: not started ({event.because})", "apply_skipped", hook)]
        case StepLeft():
            return [("info", f"{event.address}: goes on", "apply_left", _hook(event, detail=event.detail))]
        case Interrupted():
            message = "Stopping now" if event.now else "Interrupted: finishing the running steps"
            return [("warn", message, "interrupted", {"now": event.now})]
        case ApplyEnded():
            counts: dict[str, Any] = {"operation": "apply", "outcome": event.outcome}
            for result in event.results:
                counts[result.outcome.replace("-", "_")] = counts.get(result.outcome.replace("-", "_"), 0) + 1
            results = [
                {
                    "address": result.address,
                    "action": result.action,
                    "outcome": result.outcome,
                    "elapsed_seconds": round(result.seconds, 3),
                    "detail": result.detail,
                }
                for result in event.results
            ]
            level = "info" if event.outcome in ("done", "left") else "error"
            message = {
                "done": "Apply complete!",
                "failed": "Apply failed.",
                "interrupted": "Apply interrupted.",
                "left": "Apply left runs going on.",
            }[event.outcome]
            return [(level, message, "change_summary", {"changes": counts, "results": results})]
        case _:
            assert_never(event)
