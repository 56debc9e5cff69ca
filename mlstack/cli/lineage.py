"""`mlstack lineage`: what something came from and what came from it, from data to live endpoint."""

import time
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.addresses import one_address
from mlstack.cli.complete import complete_address
from mlstack.cli.console import json_text, note, say
from mlstack.cli.lineage_find import Found, endpoint_servings, find_hash, read_lineage
from mlstack.cli.project import Project, open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import ExitCode, MlstackError
from mlstack.gitops.hash_history import is_hash_prefix
from mlstack.provenance.lineage import Lineage, Serving
from mlstack.render.lineage_text import render_lineage_mermaid, render_servings, render_tree
from mlstack.render.table import Column, render_table
from mlstack.state.identity import iso_time

FORMATS = ("text", "json", "mermaid", "openlineage")

What = Annotated[
    str,
    typer.Argument(
        metavar="ADDR|HASH",
        help="Address, or (the beginning of) the hash of a version.",
        autocompletion=complete_address,
    ),
]
Up = Annotated[bool, typer.Option("--up", help="Only what it came from.")]
Down = Annotated[bool, typer.Option("--down", help="Only what came from it.")]
AtCommit = Annotated[
    str | None, typer.Option("--commit", metavar="REV", help="As of this commit.  [default: the working tree]")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="text, json, mermaid or openlineage.  [default: text]",
        autocompletion=lambda: list(FORMATS),
    ),
]


def lineage(
    context: typer.Context,
    what: What,
    up: Up = False,
    down: Down = False,
    commit: AtCommit = None,
    format_: Format = None,
    out: options.OutFile = None,
) -> int:
    """Show what something came from and what came from it, both ways unless --up or --down.

    With the hash of a version: which dataset, model or result it is, in which commits, and which endpoints serve or
    served it. OpenLineage events are written, one a line, and never sent.
    """
    settings = settings_of(context)
    kind = _format(format_, json=settings.json)
    project = open_project(settings)
    ways = {"up": up or not down, "down": down or not up}
    found = _find(project, what, commit)
    chosen = found.lineage.select(found.address, **ways)
    served = endpoint_servings(project, found, chosen)
    text = _render(settings, project, found, chosen, served, kind=kind, **ways)
    if out is None:
        say(text)
    else:
        write_text(out, text if text.endswith("\n") else f"{text}\n")
        note(f"Wrote {out}")
    return ExitCode.OK


def _format(given: str | None, *, json: bool) -> str:
    if given is not None and given not in FORMATS:
        raise typer.BadParameter(f'"{given}" is none of {", ".join(FORMATS)}', param_hint="--format")
    return given or ("json" if json else "text")


def _find(project: Project, what: str, commit: str | None) -> Found:
    lineage = read_lineage(project, commit)
    try:
        return Found(lineage=lineage, address=one_address(what, lineage.nodes))
    except MlstackError:
        if not is_hash_prefix(what):
            raise
        return find_hash(project, what, lineage)


def _render(
    settings: Settings,
    project: Project,
    found: Found,
    chosen: Lineage,
    served: list[Serving],
    *,
    kind: str,
    up: bool,
    down: bool,
) -> str:
    if kind == "mermaid":
        return render_lineage_mermaid(chosen)
    if kind == "openlineage":
        return _events(project, chosen)
    if kind == "json":
        return json_text(_document(found, chosen, served))
    parts = [_head(found), render_tree(chosen, found.address, up=up, down=down, style=settings.out)]
    parts += [_commits(found, settings), render_servings(served, style=settings.out)]
    return "\n".join(part for part in parts if part)


def _events(project: Project, chosen: Lineage) -> str:
    from mlstack.cli.lineage_find import moments_of
    from mlstack.render.lineage_events import lineage_events

    lines = lineage_events(chosen, moments_of(project, chosen), now=iso_time(time.time()))
    return "".join(f"{line}\n" for line in lines)


def _head(found: Found) -> str:
    if found.version is None:
        return f"At {found.lineage.commit[:12]}\n" if found.lineage.commit else ""
    where = f" at {found.lineage.commit[:12]}" if found.lineage.commit else ""
    return f"{found.version} is {found.path or found.address} of {found.address}{where}\n"


def _commits(found: Found, settings: Settings) -> str:
    if not found.commits:
        return ""
    style = settings.out
    heads = (Column("COMMIT", keep=True), "DATE", "BY", "WHAT", "SUBJECT")
    rows = [
        (
            each.commit[:10],
            each.date[:10],
            each.author,
            "recorded here" if each.has else "recorded before",
            each.subject,
        )
        for each in found.commits
    ]
    return f"{style.paint('In Git', 'strong')}\n{render_table(heads, rows, style=style)}"


def _document(found: Found, chosen: Lineage, served: Iterable[Serving]) -> dict[str, Any]:
    return {
        "format_version": "1.0",
        "address": found.address,
        "version": found.version,
        "path": found.path,
        "commit": chosen.commit,
        "nodes": [msgspec.to_builtins(node) for node in chosen.nodes.values()],
        "edges": [{"from": e.source, "to": e.target, "path": e.path, "version": e.version} for e in chosen.edges],
        "commits": [msgspec.to_builtins(each) for each in found.commits],
        "served": [msgspec.to_builtins(each) for each in served],
    }
