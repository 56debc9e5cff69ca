"""`mlstack plan`: show what would change, and why. Writes nothing but caches."""

from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli import options
from mlstack.cli.console import note, report, say, say_json
from mlstack.cli.project import Project, make_plan, open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, Severity
from mlstack.drivers.read import undeclared
from mlstack.planner.plan import Plan, Scope
from mlstack.planner.scope import expand_addresses
from mlstack.spec.address import Address

Detailed = Annotated[
    bool, typer.Option("--detailed-exitcode", help="Exit 0: no changes; 1: error; 2: changes pending.")
]
Full = Annotated[bool, typer.Option("--full", help="List every address and attribute.")]


def plan(
    context: typer.Context,
    target: options.Targets = None,
    exclude: options.Excludes = None,
    replace: options.Replaces = None,
    allow_replace: options.AllowReplaces = None,
    allow_delete: options.AllowDeletes = None,
    destroy: options.Destroy = False,
    refresh: options.Refresh = True,
    refresh_only: options.RefreshOnly = False,
    out: options.OutFile = None,
    profile: options.Profile = None,
    locked: options.Locked = None,
    detailed_exitcode: Detailed = False,
    full: Full = False,
    json_into: options.JsonInto = None,
    markdown_into: options.MarkdownInto = None,
) -> int:
    """Show what would change, and why.

    The plan compares the file with what is recorded and with what is there. Nothing is changed, and no code of the
    repository is run. Exit code 0 when it could be made; with --detailed-exitcode, 2 when there are changes.
    """
    settings = settings_of(context)
    project = open_project(settings, profile=profile)
    scope = build_scope(
        project,
        target=target,
        exclude=exclude,
        replace=replace,
        allow_replace=allow_replace,
        allow_delete=allow_delete,
        destroy=destroy,
        refresh=refresh,
        refresh_only=refresh_only,
    )
    locked = settings.ci if locked is None else locked
    made = make_plan(project, scope, locked=locked, results_due=results_due(settings), ahead=True).plan
    show_plan(settings, made, full=full)
    if project.spec.require_approval and made.pending and not made.errored:
        note(f"\nThis environment needs an approval. The digest of this plan:\n\n    {made.digest}")
    write_copies(made, json_into=json_into, markdown_into=markdown_into)
    if made.errored:
        return ExitCode.ERROR
    if out is not None:
        from mlstack.planner.plan_file import save_plan

        save_plan(made, out)
    return ExitCode.CHANGES if detailed_exitcode and made.pending else ExitCode.OK


def results_due(settings: Settings) -> Severity:
    """Return how bad it is that a stage runs on the default branch: in CI nobody would commit its results."""
    return Severity.ERROR if settings.ci else Severity.WARNING


def build_scope(
    project: Project,
    *,
    target: list[str] | None,
    exclude: list[str] | None,
    replace: list[str] | None,
    allow_replace: list[str] | None = None,
    allow_delete: list[str] | None = None,
    destroy: bool = False,
    refresh: bool = True,
    refresh_only: bool = False,
) -> Scope:
    """Turn the options into a scope. Raises `MlstackError` for unknown addresses and for options at odds."""
    if target and exclude:
        raise MlstackError(
            Diagnostic(
                code="usage",
                summary="The command line is not understood",
                detail="--target and --exclude cannot be used together.",
                hint="Use one of them.",
            ),
            exit_code=ExitCode.USAGE,
        )
    if refresh_only and not refresh:
        raise MlstackError(
            Diagnostic(
                code="usage",
                summary="The command line is not understood",
                detail="--refresh-only takes in what is there, and --no-refresh does not look.",
                hint="Use one of them.",
            ),
            exit_code=ExitCode.USAGE,
        )
    recorded: tuple[Address, ...] = ()
    if target or exclude or allow_delete:
        # What is recorded and not declared any more can be named too.
        reader = project.reader()
        recorded = undeclared(
            project.graph, reader.state(), reader, root=project.root, cache_folder=project.cache_folder
        )
    return Scope(
        targets=expand_addresses(target or (), project.graph, option="--target", recorded=recorded),
        excludes=expand_addresses(exclude or (), project.graph, option="--exclude", recorded=recorded),
        replace=expand_addresses(replace or (), project.graph, option="--replace"),
        allow_replace=expand_addresses(allow_replace or (), project.graph, option="--allow-replace"),
        allow_delete=expand_addresses(allow_delete or (), project.graph, option="--allow-delete", recorded=recorded),
        destroy=destroy,
        refresh=refresh,
        refresh_only=refresh_only,
    )


def show_plan(settings: Settings, made: Plan, *, full: bool = False) -> None:
    """Show a plan: text, or one JSON document with everything in it."""
    if settings.json:
        from mlstack.render.plan_json import plan_document

        say_json(plan_document(made))
        return
    from mlstack.render.plan_text import render_plan

    report(settings, made.diagnostics)
    say(render_plan(made, style=settings.out, full=full))


def write_copies(made: Plan, *, json_into: Path | None, markdown_into: Path | None) -> None:
    """Write the same plan into files, for CI. Raises `MlstackError` when one cannot be written."""
    if json_into is not None:
        from mlstack.cli.console import json_text
        from mlstack.render.plan_json import plan_document

        write_text(json_into, json_text(plan_document(made)) + "\n")
    if markdown_into is not None:
        from mlstack.render.plan_markdown import render_plan_markdown

        write_text(markdown_into, render_plan_markdown(made))
