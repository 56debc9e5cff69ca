"""`mlstack destroy`: take down what apply has made. Results, remote, state and history are kept."""

import typer

from mlstack.cli import options
from mlstack.cli.approval import Approval
from mlstack.cli.carry_out import (
    DEFAULT_PARALLELISM,
    Order,
    carry_out,
    end_at_once,
    locked,
    refuse_errored,
    refuse_unready,
    show_before,
)
from mlstack.cli.console import say
from mlstack.cli.plan import build_scope
from mlstack.cli.project import make_plan, open_project
from mlstack.cli.settings import settings_of


def destroy(
    context: typer.Context,
    target: options.Targets = None,
    allow_delete: options.AllowDeletes = None,
    parallelism: options.Parallelism = None,
    lock_timeout: options.LockTimeout = "0s",
    approved: options.Approved = "",
    yes: options.Yes = False,
) -> int:
    """Take down what apply has made.

    Running stages are cancelled, then endpoints are stopped. Data, models, results, state and history are never
    deleted. It can be interrupted and started again.
    """
    settings = settings_of(context)
    project = open_project(settings)
    with locked(settings, project, operation="destroy", lock_timeout=lock_timeout) as lock:
        project = open_project(settings)
        scope = build_scope(project, target=target, exclude=None, replace=None, allow_delete=allow_delete, destroy=True)
        planned = make_plan(project, scope)
        refuse_errored(planned)
        show_before(settings, planned)
        if not planned.plan.pending:
            if not settings.json:
                say("Nothing to destroy.")
            end_at_once(settings, planned.plan)
            return 0
        refuse_unready(settings, project, planned)
        approval = Approval(yes=yes, digest=approved)
        how = approval.obtain(settings, project.spec, planned.plan, "Do you really want to take all of this down?")
        order = Order(operation="destroy", parallelism=parallelism or DEFAULT_PARALLELISM, approval=how)
        return carry_out(settings, project, planned, lock=lock, order=order)
