"""`mlstack apply`: carry out a plan, a saved one or one made now."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from mlstack.cli import options
from mlstack.cli.approval import Approval
from mlstack.cli.carry_out import (
    DEFAULT_PARALLELISM,
    Order,
    carry_out,
    locked,
    refuse_errored,
    refuse_unready,
    show_before,
)
from mlstack.cli.plan import build_scope, results_due
from mlstack.cli.project import Planned, Project, make_plan, open_project
from mlstack.cli.results import keep_results
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.share import share_results
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.dvc.settings import require_initialised
from mlstack.planner.plan import Plan, Scope

PlanFileArgument = Annotated[
    Path | None, typer.Argument(metavar="[PLANFILE]", help="A plan saved by `mlstack plan --out`.")
]


Commit = Annotated[bool, typer.Option("--commit", help="Commit the results (dvc.lock and the like) afterwards.")]


Detach = Annotated[
    bool,
    typer.Option("--detach", help="Start runs elsewhere and do not wait for them: exit code 5 while they go on."),
]


def apply(
    context: typer.Context,
    planfile: PlanFileArgument = None,
    target: options.Targets = None,
    exclude: options.Excludes = None,
    replace: options.Replaces = None,
    allow_replace: options.AllowReplaces = None,
    allow_delete: options.AllowDeletes = None,
    refresh: options.Refresh = True,
    refresh_only: options.RefreshOnly = False,
    parallelism: options.Parallelism = None,
    lock_timeout: options.LockTimeout = "0s",
    locked_: options.Locked = None,
    commit: Commit = False,
    json_into: options.JsonInto = None,
    because: options.Remark = "",
    push: options.Push = None,
    pull: options.Pull = None,
    approved: options.Approved = "",
    detach: Detach = False,
    yes: options.Yes = False,
) -> int:
    """Make it so: carry out the plan.

    Without PLANFILE: plan, show, ask (only the word yes counts), carry out. With it: exactly that plan, without asking,
    or nothing if the world has moved since. After a failure or an interruption, apply again: what is done stays done.
    """
    settings = settings_of(context)
    chosen = _Chosen(
        target=target, exclude=exclude, replace=replace, allow_replace=allow_replace, allow_delete=allow_delete
    )
    saved = _saved(planfile, any(chosen.values()) or refresh_only or not refresh)
    project = open_project(settings)
    require_initialised(project.root)
    with locked(settings, project, operation="apply", lock_timeout=lock_timeout) as lock:
        # What was read before the lock was ours may be old by now.
        project = open_project(settings)
        fresh = build_scope(project, refresh=refresh, refresh_only=refresh_only, **chosen)
        scope = saved.scope if saved is not None else fresh
        planned = _plan(settings, project, scope, saved, locked=settings.ci if locked_ is None else locked_)
        approval = Approval(yes=yes, digest=approved, is_saved=saved is not None)
        how = approval.obtain(settings, project.spec, planned.plan)
        told: dict[str, Any] = {"json_into": json_into, "because": because, "push": push, "is_detached": detach}
        most = parallelism or DEFAULT_PARALLELISM
        order = Order(operation="destroy" if scope.destroy else "apply", parallelism=most, approval=how, **told)
        code = carry_out(settings, project, planned, lock=lock, order=order)
        code = share_results(settings, project, planned, code=code, push=push, pull=pull)
        keep_results(project, planned.plan, commit=commit and code == ExitCode.OK, operation="mlstack apply")
        return code


class _Chosen(TypedDict):
    """The addresses that a person names when planning, and cannot with a saved plan."""

    target: list[str] | None
    exclude: list[str] | None
    replace: list[str] | None
    allow_replace: list[str] | None
    allow_delete: list[str] | None


def _plan(settings: Settings, project: Project, scope: Scope, saved: Plan | None, *, locked: bool) -> Planned:
    """Plan, show it, and refuse what must not be applied."""
    planned = make_plan(project, scope, locked=locked, results_due=results_due(settings))
    _check_fresh(saved, planned.plan)
    refuse_errored(planned)
    _check_clean(project, planned.plan)
    show_before(settings, planned)
    refuse_unready(settings, project, planned)
    return planned


def _check_clean(project: Project, plan: Plan) -> None:
    """Refuse an environment with `require_clean` what no commit would say."""
    if project.spec.require_clean and plan.dirty and plan.pending:
        raise MlstackError(
            Diagnostic(
                code="work-tree-dirty",
                summary="The work tree has changes that are not committed",
                detail=f'Environment "{project.spec.environment}" has `require_clean`: only a commit is applied.',
                hint="Commit them, or put them aside with git stash.",
                command="git status",
            )
        )


def _saved(planfile: Path | None, has_options: bool) -> Plan | None:
    if planfile is None:
        return None
    if has_options:
        raise MlstackError(
            Diagnostic(
                code="usage",
                summary="The command line is not understood",
                detail="A saved plan takes no planning options: what it holds is what was looked at.",
                hint="Leave them out, or make another plan.",
            ),
            exit_code=ExitCode.USAGE,
        )
    from mlstack.planner.plan_file import load_plan

    return load_plan(planfile)


def _check_fresh(saved: Plan | None, now: Plan) -> None:
    if saved is None:
        return
    from mlstack.planner.plan_file import check_fresh

    problem = check_fresh(saved, now)
    if problem is not None:
        raise MlstackError(problem)
