"""What a project asks of its own plans: when results come about, and what must have been approved."""

from collections.abc import Sequence

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.planner.plan import Plan
from mlstack.spec.address import Address
from mlstack.spec.spec import Stage

_SHOWN = 10


def without_results(changes: Sequence[Change], graph: ResourceGraph) -> tuple[Address, ...]:
    """Return the stages that would run and whose results could have been there.

    Not those marked `always`, which run anyway, and not what only may have to run after one of these.
    """
    running = (change.address for change in changes if change.action is Action.RUN and not change.is_always)
    stages = (graph.resources.get(address) for address in running)
    return tuple(stage.address for stage in stages if isinstance(stage, Stage) and not stage.always)


def results_missing(running: Sequence[Address], *, branch: str, severity: Severity) -> Diagnostic:
    """Say which stages would run on `branch`, whose results should have come with the pull request (design §5)."""
    more = f" and {len(running) - _SHOWN} more" if len(running) > _SHOWN else ""
    return Diagnostic(
        code="results-not-in-pull-request",
        summary="Stages would run on the branch that is merged to",
        detail=f"With `results: in-pull-request`, what is merged to {branch} brings its results along. These have none "
        f"here: {', '.join(running[:_SHOWN])}{more}.",
        hint="Apply on a branch and commit dvc.lock there, so that the review sees the metrics of what is merged. "
        "With `results: on-merge` in the file they run here.",
        severity=severity,
    )


def check_approved(plan: Plan, digest: str) -> Diagnostic | None:
    """Say that what was approved, by its digest, is not this plan."""
    if digest == plan.digest:
        return None
    return Diagnostic(
        code="not-what-was-approved",
        summary="The plan is not the one that was approved",
        detail=f"Approved was {digest}; planned this moment, the digest is {plan.digest}.",
        hint="Look at what it says now, and have that approved.",
        command="mlstack plan",
    )


def approval_required(plan: Plan) -> Diagnostic:
    """Say how a plan of an environment with `require_approval` can be carried out."""
    return Diagnostic(
        code="approval-required",
        summary="This environment needs an approval",
        detail=f'Environment "{plan.environment}" has `require_approval`: --yes is not one. '
        f"The digest of this plan is {plan.digest}.",
        hint="Type yes on a terminal, hand over the saved plan that was looked at (mlstack apply FILE), or name the "
        "digest that was approved:",
        command="mlstack apply --approved DIGEST",
    )
