"""`mlstack graph`: what needs what, as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli import options
from mlstack.cli.console import note, say, say_json
from mlstack.cli.project import make_plan, open_project
from mlstack.cli.settings import settings_of
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import ExitCode
from mlstack.planner.plan import Scope
from mlstack.render.graph_picture import Picture, build_picture

FORMATS = ("mermaid", "dot", "svg", "json")

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="mermaid, dot, svg or json.  [default: by the ending of --out, else mermaid]",
        autocompletion=lambda: list(FORMATS),
    ),
]
WithPlan = Annotated[bool, typer.Option("--plan", help="Mark what a plan made now would do.")]


def graph(
    context: typer.Context, format_: Format = None, out: options.OutFile = None, with_plan: WithPlan = False
) -> int:
    """Draw what needs what.

    Mermaid is shown by GitHub and GitLab inside Markdown; DOT is for Graphviz; SVG can be opened in a browser.
    """
    settings = settings_of(context)
    kind = _format(format_, out, json=settings.json)
    project = open_project(settings)
    plan = make_plan(project, Scope()).plan if with_plan else None
    picture = build_picture(project.graph, plan)
    if kind == "json":
        say_json(_document(picture))
        return ExitCode.OK
    text = _draw(picture, kind, title=f"{project.spec.project}, {project.spec.environment}")
    if out is None:
        say(text)
        return ExitCode.OK
    write_text(out, text)
    note(f"Wrote {out}")
    return ExitCode.OK


def _format(given: str | None, out: Path | None, *, json: bool) -> str:
    if given is not None and given not in FORMATS:
        raise typer.BadParameter(f'"{given}" is none of {", ".join(FORMATS)}', param_hint="--format")
    if given is not None:
        return given
    by_ending = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".json": "json"}
    return by_ending.get(out.suffix if out else "", "json" if json else "mermaid")


def _draw(picture: Picture, kind: str, *, title: str) -> str:
    if kind == "svg":
        from mlstack.render.graph_svg import render_svg

        return render_svg(picture, title=title)
    from mlstack.render.graph_text import render_dot, render_mermaid

    return render_dot(picture) if kind == "dot" else render_mermaid(picture)


def _document(picture: Picture) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "nodes": [
            {"address": node.address, "kind": node.kind.value, "action": node.action.value if node.action else None}
            for node in picture.nodes
        ],
        "edges": [{"from": source, "to": target} for source, target in picture.edges],
    }
