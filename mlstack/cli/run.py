"""`mlstack run`: the inner loop. Runs stages for a try; results fill the run-cache, nothing is recorded."""

from typing import Annotated

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.carry_out import (
    DEFAULT_PARALLELISM,
    Order,
    carry_out,
    end_at_once,
    locked,
    make_work,
    refuse_errored,
    refuse_unready,
    watch,
)
from mlstack.cli.console import note, report
from mlstack.cli.project import Planned, Project, make_plan, open_project, warnings_of
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, raise_errors
from mlstack.drivers.dvc.settings import require_initialised
from mlstack.drivers.tries import check_tries
from mlstack.planner.build_plan import for_a_try
from mlstack.planner.plan import Scope
from mlstack.planner.scope import expand_addresses, upstream_of
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Stage
from mlstack.state.held_lock import NoLock
from mlstack.state.unrecorded import Unrecorded
from mlstack.state.workspace_lock import workspace_lock

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for a param. Repeatable.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Record the results in dvc.lock, as apply would.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Run the stages named, also when a result is there.")]


def run(
    context: typer.Context,
    addresses: options.Addresses = None,
    overrides: Overrides = None,
    profile: options.Profile = None,
    keep: Keep = False,
    force: Force = False,
    parallelism: options.Parallelism = None,
) -> int:
    """Run stages for a try, recording nothing.

    Without ADDR: all stages. Runs what the stages named need and what is out of date, asks nothing, touches neither
    state nor dvc.lock nor endpoints. Results fill the run-cache, so that a later apply restores them.
    """
    settings = settings_of(context)
    changed = _parse_overrides(overrides or [])
    if keep and (changed or profile):
        raise _usage("--keep records results of the file as it is: it cannot be used with --set or --profile.")
    project = open_project(settings, profile=profile, overrides=changed)
    require_initialised(project.root)
    scope = _scope(project, addresses or [], force=force)
    order = Order(operation="run", parallelism=parallelism or DEFAULT_PARALLELISM)
    if keep:
        with locked(settings, project, operation="run", lock_timeout="0s") as lock:
            planned = _plan(settings, project, scope)
            if planned.plan.steps:
                return carry_out(settings, project, planned, lock=lock, order=order)
            end_at_once(settings, planned.plan)
            return ExitCode.OK
    with workspace_lock(project.root, operation="run"):
        planned = _plan(settings, project, scope, is_try=True)
        if changed or profile:
            running = [change.address for change in planned.plan.changes if change.may_run]
            raise_errors(check_tries(project.graph, running, root=project.root))
        if not planned.plan.steps:
            end_at_once(settings, planned.plan)
            return ExitCode.OK
        store = Unrecorded(project.backend, project.reader())
        interrupt, work = make_work(project, planned, store, order=order, recording=False, lock=NoLock())
        code = watch(settings, work, interrupt, order=order)
    if changed or profile:
        note("The workspace holds what this try made, dvc.lock other results: `mlstack apply` brings those back.")
    return code


def _plan(settings: Settings, project: Project, scope: Scope, *, is_try: bool = False) -> Planned:
    planned = make_plan(project, scope)
    if is_try:
        planned = msgspec.structs.replace(planned, plan=for_a_try(planned.plan, project.graph))
    refuse_errored(planned)
    report(settings, warnings_of(planned.plan))
    if not planned.plan.steps:
        note("Nothing to run: every result is there.")
    refuse_unready(settings, project, planned)
    return planned


def _scope(project: Project, words: list[str], *, force: bool) -> Scope:
    stages = [address for address, found in project.graph.resources.items() if isinstance(found, Stage)]
    named = expand_addresses(words, project.graph, kinds=(Kind.STAGE,)) if words else tuple(stages)
    wrong = [address for address in named if kind_of(address) is not Kind.STAGE]
    if wrong:
        raise _usage(f"{', '.join(wrong)}: only stages can be run.")
    needed = upstream_of(project.graph, named)
    targets: tuple[Address, ...] = tuple(
        address for address in needed if kind_of(address) in (Kind.STAGE, Kind.DATASET)
    )
    return Scope(targets=targets, replace=named if force else (), refresh=False)


def _parse_overrides(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise _usage(f"--set {word}: write it as key=value.")
        found[key] = value
    return found


def _usage(detail: str) -> MlstackError:
    diagnostic = Diagnostic(code="usage", summary="The command line is not understood", detail=detail)
    return MlstackError(diagnostic, exit_code=ExitCode.USAGE)
