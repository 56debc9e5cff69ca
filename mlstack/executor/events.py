"""What happens while a plan is carried out, as typed events. Rendering turns them into lines, JSON or progress."""

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.graph.change import Action
from mlstack.spec.address import Address
from mlstack.state.state import ApplyOutcome, StepResult


class ApplyStarted(msgspec.Struct, frozen=True, kw_only=True, tag="apply_started"):
    """The walk begins; `steps` is the number of steps."""

    apply_id: str
    steps: int


class StepStarted(msgspec.Struct, frozen=True, kw_only=True, tag="step_started"):
    """A step has everything it needs and begins."""

    address: Address
    action: Action


class StepRefined(msgspec.Struct, frozen=True, kw_only=True, tag="step_refined"):
    """What was unknown is known now, and less is needed than planned (RUN → RESTORE or NO_OP, UPDATE → NO_OP)."""

    address: Address
    planned: Action
    action: Action
    because: str


class StepProgress(msgspec.Struct, frozen=True, kw_only=True, tag="step_progress"):
    """One line of a running step: its last output line, or what is done for it."""

    address: Address
    line: str


class StepWaiting(msgspec.Struct, frozen=True, kw_only=True, tag="step_waiting"):
    """A step that has begun waits for room: `room` is what lacks ("cpu of compute.local"). "": it has it, and runs."""

    address: Address
    room: str


class StepDone(msgspec.Struct, frozen=True, kw_only=True, tag="step_done"):
    """The step was carried out and its result observed and recorded. `detail` says what came of it ("http://127.0.0.1:8080")."""

    address: Address
    action: Action
    seconds: float
    detail: str = ""


class StepFailed(msgspec.Struct, frozen=True, kw_only=True, tag="step_failed"):
    """The step failed; what needs it is not started."""

    address: Address
    action: Action
    seconds: float
    diagnostics: tuple[Diagnostic, ...]
    """What is wrong, and what that leads to: at least one."""
    log_tail: tuple[str, ...] = ()
    log: str | None = None


class StepSkipped(msgspec.Struct, frozen=True, kw_only=True, tag="step_skipped"):
    """The step was not started: something it needs failed, or the person interrupted."""

    address: Address
    action: Action
    because: str


class StepLeft(msgspec.Struct, frozen=True, kw_only=True, tag="step_left"):
    """What the step started goes on elsewhere, and is not waited for any more; `detail` says where."""

    address: Address
    action: Action
    detail: str


class Interrupted(msgspec.Struct, frozen=True, kw_only=True, tag="interrupted"):
    """Ctrl-C: first "finish the running steps, start no more", then "stop now". `elsewhere`: runs go on without us."""

    now: bool
    elsewhere: bool = False


class ApplyEnded(msgspec.Struct, frozen=True, kw_only=True, tag="apply_ended"):
    """The walk is over."""

    outcome: ApplyOutcome
    results: tuple[StepResult, ...]


Event = (
    ApplyStarted
    | StepStarted
    | StepRefined
    | StepProgress
    | StepWaiting
    | StepDone
    | StepFailed
    | StepSkipped
    | StepLeft
    | Interrupted
    | ApplyEnded
)
