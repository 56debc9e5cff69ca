"""`mlstack show`: one resource as it is written, recorded and found; or a saved plan."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mlstack.cli.addresses import one_address
from mlstack.cli.complete import complete_address
from mlstack.cli.console import report, say, say_json
from mlstack.cli.plan import show_plan
from mlstack.cli.project import Planned, Project, make_plan, open_project, warnings_of
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import ExitCode
from mlstack.drivers.stack_programs import recorded_unit
from mlstack.drivers.stacks import UNIT
from mlstack.graph.change import Change
from mlstack.planner.plan import Scope
from mlstack.render.escape import plain
from mlstack.render.human import age, size
from mlstack.render.style import Style
from mlstack.render.table import Column, render_pairs, render_table
from mlstack.render.values import leaves, show_value
from mlstack.render.words import action_sentence, because
from mlstack.spec.address import Address
from mlstack.spec.spec import Model, Resource
from mlstack.state.state import Record, RunRecord

What = Annotated[
    str, typer.Argument(metavar="ADDR|PLANFILE", help="Address, or a saved plan.", autocompletion=complete_address)
]
_LEFT_OUT = frozenset({"address", "type"})


Full = Annotated[bool, typer.Option("--full", help="All of it.")]
Verify = Annotated[bool, typer.Option("--verify", help="Check the signatures of a model; exit 1 unless they are good.")]
Sbom = Annotated[bool, typer.Option("--sbom", help="Its bill of materials (CycloneDX), no more.")]


def show(context: typer.Context, what: What, full: Full = False, verify: Verify = False, sbom: Sbom = False) -> int:
    """Show one resource: what the file says, what is recorded and where it comes from, what a plan would do, its runs.

    With the path of a file that `mlstack plan --out` wrote: that plan.
    """
    settings = settings_of(context)
    path = Path(what) if Path(what).is_absolute() else settings.directory / what
    if path.is_file():
        from mlstack.planner.plan_file import load_plan

        show_plan(settings, load_plan(path), full=full)
        return ExitCode.OK
    project = open_project(settings)
    planned = make_plan(project, Scope())
    recorded = planned.prior.resources if planned.prior is not None else {}
    address = one_address(what, [*project.graph.resources, *recorded])
    if sbom:
        from mlstack.cli.provenance import sbom_of

        say(sbom_of(project, address).decode())
        return ExitCode.OK
    runs = list(project.reader().runs(address))
    origin = _Origin(project, planned, address, verify=verify)
    if settings.json:
        say_json(_document(project, planned, address, runs) | origin.document())
        return origin.code
    report(settings, [d for d in warnings_of(planned.plan) if d.address == address])
    say(_text(settings, project, planned, address, runs if full else runs[:5]) + origin.text(settings, full=full))
    return origin.code


class _Origin:
    """Where the resource comes from, and what the check of its signatures gave if that was asked for."""

    def __init__(self, project: Project, planned: Planned, address: Address, *, verify: bool) -> None:
        from mlstack.cli.provenance import provenance_of, verify_model

        self._found = provenance_of(project, planned, address)
        self._checked = verify_model(project, planned, address) if verify else None

    @property
    def code(self) -> int:
        """The exit code."""
        return ExitCode.OK if all(each.verdict == "good" for each in self._checked or ()) else ExitCode.ERROR

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        from mlstack.cli.provenance import as_json, checked_json

        found: dict[str, Any] = {"provenance": as_json(self._found)}
        return found if self._checked is None else found | {"signatures": checked_json(self._checked)}

    def text(self, settings: Settings, *, full: bool) -> str:
        """Return it for people, with an empty line before; "" if nothing is recorded."""
        from mlstack.render.provenance_text import render_checked, render_provenance

        parts = [render_provenance(self._found, style=settings.out, full=full)] if self._found is not None else []
        parts += [render_checked(self._checked, style=settings.out)] if self._checked is not None else []
        return "".join(f"\n{part}" for part in parts)


def _document(project: Project, planned: Planned, address: Address, runs: list[RunRecord]) -> dict[str, Any]:
    from mlstack.render.plan_json import change_object

    change = planned.plan.change(address)
    return {
        "format_version": "1.0",
        "address": address,
        "declared": _declared(project, address),
        "spec": project.graph.resources.get(address),
        "recorded": planned.prior.resources.get(address) if planned.prior is not None else None,
        "result": _result(project, planned, address),
        "metrics": planned.readings.metrics.get(address, {}),
        "change": change_object(change) if change is not None else None,
        "runs": runs,
    }


def _declared(project: Project, address: Address) -> str | None:
    position = project.spec.declared.get(address)
    return str(position) if position is not None else None


def _result(project: Project, planned: Planned, address: Address) -> dict[str, dict[str, Any]]:
    """Return what DVC's files record: path → hash and size; of a model the output that it is."""
    model = project.graph.resources.get(address)
    of_model = model.out if isinstance(model, Model) else None
    stage = planned.readings.stages.get(model.stage if isinstance(model, Model) else address)
    if stage is not None and stage.recorded is not None:
        outs = (out for out in stage.recorded.outs if of_model in (None, out.path))
        return {out.path: {"md5": out.digest.md5, "size": out.digest.size} for out in outs}
    dataset = planned.readings.datasets.get(address)
    if dataset is not None and dataset.recorded is not None:
        return {"": {"md5": dataset.recorded.md5, "size": dataset.recorded.size}}
    return {}


def _text(settings: Settings, project: Project, planned: Planned, address: Address, runs: list[RunRecord]) -> str:
    style = settings.out
    parts = [_head(planned.plan.change(address), address, _declared(project, address), style)]
    resource = project.graph.resources.get(address)
    if resource is not None:
        parts.append(_section("In the file", list(_written(resource)), style))
    recorded = planned.prior.resources.get(address) if planned.prior is not None else None
    if recorded is not None:
        parts.append(_section(f"Recorded, version {recorded.version}", list(_recorded(recorded)), style))
    result = [
        (path or "version", f"{found['md5']}  {size(found['size'])}")
        for path, found in _result(project, planned, address).items()
    ]
    parts.append(_section("Result", result, style))
    metrics = planned.readings.metrics.get(address, {})
    parts.append(_section("Metrics", [(name, show_value(value)) for name, value in metrics.items()], style))
    if runs:
        parts.append(f"{style.paint('Runs', 'strong')}\n{_runs(runs, style)}")
    return "\n".join(part for part in parts if part)


def _written(resource: Resource) -> Iterator[tuple[str, str]]:
    """Yield what the file says, leaving out what it does not say; lists of things have a line each."""
    for name, value in leaves(msgspec.to_builtins(resource)):
        if name in _LEFT_OUT or value in (None, "", (), [], {}) or value is False:
            continue
        if isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value):
            yield name, "\n".join(_item(item) for item in value)
        else:
            yield name, show_value(value)


def _item(item: dict[str, Any]) -> str:
    """Return one dep, param, out, gate or rule: its name first, then what else is said of it."""
    rest = {key: value for key, value in item.items() if value not in (None, "", {}, (), []) and value is not False}
    if "key" in rest:
        origin = f"  ({plain(rest['file'])})" if "file" in rest else ""
        return f"{plain(rest['key'])}: {show_value(item['value'])}{origin}"
    if item.get("cache") is True:  # what an output is unless it says otherwise
        del rest["cache"]
    elif item.get("cache") is False:
        rest["cache"] = False
    named = [str(rest.pop(key)) for key in ("stage", "metric", "cause", "path") if key in rest]
    details = ", ".join(
        f"{key} {value if isinstance(value, str) else show_value(value)}" for key, value in rest.items()
    )
    return " ".join(named) + (f"  ({details})" if details else "")


def _head(change: Change | None, address: Address, declared: str | None, style: Style) -> str:
    lines = [style.paint(address, "strong") + (f"  {style.paint(declared, 'place')}" if declared else "")]
    if change is not None:
        lines.append(f"{action_sentence(change)} (because {because(change)})")
    return "\n".join(lines) + "\n"


def _recorded(record: Record) -> Iterator[tuple[str, str]]:
    """Yield what is recorded; of what is made in a stack the names of its objects (all of it: `--json`)."""
    attributes = {name: value for name, value in record.attributes.items() if name != UNIT}
    yield from ((name, show_value(value)) for name, value in leaves(attributes))
    unit = recorded_unit(record)
    for each in unit.objects if unit is not None else ():
        about = each.inputs.get("metadata", {})
        yield each.type.rpartition(":")[2], "/".join(about[key] for key in ("namespace", "name") if key in about)


def _section(title: str, pairs: list[tuple[str, str]], style: Style) -> str:
    return f"{style.paint(title, 'strong')}\n{render_pairs(pairs, style=style, indent=2)}" if pairs else ""


def _runs(runs: list[RunRecord], style: Style) -> str:
    heads = (Column("FINGERPRINT", keep=True), "STATUS", "BEGUN", "HOST", Column("ATTEMPT", right=True), "DETAIL")
    rows = [
        (run.fingerprint[:12], run.status, age(run.claimed_at), run.host, str(run.attempt), run.detail) for run in runs
    ]
    return render_table(heads, rows, style=style)
