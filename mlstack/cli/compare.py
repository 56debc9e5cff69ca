"""`mlstack compare`: metrics, parameters, data and models of the working tree against another commit."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.compare_read import Facts, read_now, read_then
from mlstack.cli.console import say, say_json
from mlstack.cli.project import open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import ExitCode
from mlstack.gitops.revisions import BaseRevision, base_revision, describe_commit, resolve_revision
from mlstack.render.comparison import Comparison, Row, render_comparison, render_comparison_markdown

Revision = Annotated[
    str | None, typer.Argument(metavar="[REV]", help="Tag, branch or commit.  [default: where this branch began]")
]
All = Annotated[bool, typer.Option("--all", help="Also what is the same.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Markdown on standard output.")]


def compare(
    context: typer.Context,
    revision: Revision = None,
    all_: All = False,
    markdown: Markdown = False,
    markdown_into: options.MarkdownInto = None,
) -> int:
    """Compare metrics, parameters, data and models of the working tree with another commit.

    Without REV: with the commit where this branch left the default branch, or with the last commit.
    """
    settings = settings_of(context)
    project = open_project(settings)
    base = (
        base_revision(project.root)
        if revision is None
        else BaseRevision(commit=resolve_revision(project.root, revision), found=revision)
    )
    then, now = read_then(project, base.commit), read_now(project)
    comparison = Comparison(
        base=f"{describe_commit(project.root, base.commit)}, {base.found}",
        rows=tuple(_rows(then, now, everything=all_)),
    )
    if markdown_into is not None:
        write_text(markdown_into, render_comparison_markdown(comparison))
    _show(settings, comparison, base, markdown=markdown)
    return ExitCode.OK


def _show(settings: Settings, comparison: Comparison, base: BaseRevision, *, markdown: bool) -> None:
    if settings.json:
        say_json(
            {
                "format_version": "1.0",
                "base": {"commit": base.commit, "found": base.found},
                "rows": [_row_object(row) for row in comparison.rows],
            }
        )
    elif markdown:
        say(render_comparison_markdown(comparison))
    else:
        say(render_comparison(comparison, style=settings.out))


def _row_object(row: Row) -> dict[str, Any]:
    return {**msgspec.structs.asdict(row), "delta": row.delta, "better": row.better}


def _rows(then: Facts, now: Facts, *, everything: bool) -> Iterable[Row]:
    """Yield a row for each metric, parameter, dataset and model that differs (or for each)."""
    sections: tuple[tuple[str, dict[tuple[str, str], Any], dict[tuple[str, str], Any]], ...] = (
        ("metrics", dict(then.metrics), dict(now.metrics)),
        ("params", then.params, now.params),
        ("data", dict(then.data), dict(now.data)),
        ("models", dict(then.models), dict(now.models)),
    )
    for section, before, after in sections:
        for where, name in sorted(before.keys() | after.keys()):
            old, new = before.get((where, name)), after.get((where, name))
            if everything or old != new or section == "metrics":
                goal = now.goals.get((where, name)) if section == "metrics" else None
                yield Row(section=section, address=where, name=name, before=old, after=new, goal=goal)
