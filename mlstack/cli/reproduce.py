"""`mlstack reproduce`: compute a commit again from scratch, and compare with what it recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mlstack.cli import options
from mlstack.cli.at_commit import CommitProject, project_at, recorded_entries, restore_inputs
from mlstack.cli.carry_out import DEFAULT_PARALLELISM, refuse_errored, refuse_unready
from mlstack.cli.console import note, say, say_json
from mlstack.cli.project import Planned, make_plan
from mlstack.cli.reproduce_causes import Making, likely_causes, machine_words
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.unrecorded import carry_out_unrecorded
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.dvc.metrics import parse_metrics
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.settings import read_settings
from mlstack.executor.work import Work
from mlstack.graph.graph import LockEntry
from mlstack.graph.sources import FileDigest
from mlstack.planner.plan import Scope
from mlstack.planner.reproduction import (
    DEFAULT_TOLERANCE,
    OutputReport,
    Reproduction,
    StageReport,
    compare_output,
    stages_to_run,
)
from mlstack.planner.scope import expand_addresses
from mlstack.provenance.machine import this_machine
from mlstack.provenance.read import read_provenance
from mlstack.render.escape import plain
from mlstack.render.reproduction import render_reproduction, render_reproduction_markdown, reproduction_document
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.load import find_file
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Out, Stage

_LARGEST = 16 << 20

Revision = Annotated[str, typer.Argument(metavar="COMMIT", help="Commit, tag or branch, as in HEAD.")]
Tolerance = Annotated[
    float,
    typer.Option("--tolerance", metavar="X", min=0.0, help="How far apart metrics may be, relative to their size."),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Markdown on standard output.")]


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What the commit recorded, read before anything is run: entries by stage, numbers by path of a metrics file."""

    entries: dict[Address, LockEntry]
    numbers: dict[str, dict[str, float]]


def reproduce(
    context: typer.Context,
    revision: Revision,
    addresses: options.Addresses = None,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    markdown: Markdown = False,
    markdown_into: options.MarkdownInto = None,
    parallelism: options.Parallelism = None,
) -> int:
    """Compute a commit again from scratch, and compare every output and metric with what it recorded.

    Runs that commit's own commands, in a checkout of its own, in its locked environments; no recorded output and no
    run-cache is used. Without ADDR: all stages. With it: these, and what lies between them; what they read is restored.

    Exit code 0: the same, or metrics within the tolerance. 1: something differs. 4: it could not be tried.
    """
    settings = settings_of(context)
    try:
        with project_at(settings, revision) as opened:
            stages = _stages(opened, addresses or [])
            found = _compute_again(settings, opened, stages, tolerance, parallelism or DEFAULT_PARALLELISM)
    except MlstackError as error:
        if error.exit_code in (ExitCode.USAGE, ExitCode.INTERRUPTED):
            raise
        raise MlstackError(*error.diagnostics, exit_code=ExitCode.NOT_TRIED) from error
    if found is None:
        return ExitCode.INTERRUPTED
    if markdown_into is not None:
        write_text(markdown_into, render_reproduction_markdown(found))
    if settings.json:
        say_json(reproduction_document(found))
    else:
        say(render_reproduction_markdown(found) if markdown else render_reproduction(found, style=settings.out))
    return ExitCode.OK if found.is_same else ExitCode.ERROR


def _stages(opened: CommitProject, words: list[str]) -> tuple[Address, ...]:
    graph = opened.project.graph
    named = expand_addresses(words, graph, kinds=(Kind.STAGE,))
    wrong = [address for address in named if kind_of(address) is not Kind.STAGE]
    if wrong:
        detail = f"{', '.join(wrong)}: only stages can be computed again."
        raise MlstackError(
            Diagnostic(code="usage", summary="The command line is not understood", detail=detail),
            exit_code=ExitCode.USAGE,
        )
    stages = stages_to_run(graph, named)
    if not stages:
        raise MlstackError(
            Diagnostic(
                code="nothing-to-reproduce",
                summary="There is nothing to compute again",
                detail=f"{opened.described} has no stages.",
            )
        )
    return stages


def _compute_again(
    settings: Settings, opened: CommitProject, stages: tuple[Address, ...], tolerance: float, parallelism: int
) -> Reproduction | None:
    """Run the stages and compare; None when interrupted. Raises `MlstackError` when one of them fails."""
    project = opened.project
    entries = recorded_entries(project)
    unrecorded = [address for address in stages if address not in entries]
    if len(unrecorded) == len(stages):
        raise MlstackError(_nothing_recorded(opened, unrecorded))
    restore_inputs(opened, stages, also=_metric_contents(opened, stages, entries))
    before = Before(entries=entries, numbers=_read_numbers(opened, stages))
    _announce(opened, stages)
    planned = _plan(settings, opened, stages)
    result, work = carry_out_unrecorded(settings, project, planned, operation="reproduce", parallelism=parallelism)
    if result.outcome == "interrupted":
        return None
    if result.outcome == "failed":
        raise MlstackError(_failed(opened), exit_code=ExitCode.NOT_TRIED)
    return Reproduction(
        commit=opened.commit,
        described=opened.described,
        tolerance=tolerance,
        machine=machine_words(this_machine()),
        stages=tuple(
            _reports(opened, stages, before, work, tolerance, project_root=find_file(settings.directory).parent)
        ),
    )


def _announce(opened: CommitProject, stages: tuple[Address, ...]) -> None:
    note(f"Computing {plain(opened.described)} again in a checkout of its own. That commit's own commands are run:\n")
    width = max(len(address) for address in stages)
    for address in stages:
        note(f"  {address:<{width}}  {plain(opened.project.graph.stages[address].cmd)}")
    note("")


def _plan(settings: Settings, opened: CommitProject, stages: tuple[Address, ...]) -> Planned:
    graph = opened.project.graph
    beside = {
        need
        for address in stages
        for need in graph.needs.get(address, ())
        if kind_of(need) not in (Kind.STAGE, Kind.POOL)
    }
    planned = make_plan(opened.project, Scope(targets=(*stages, *sorted(beside)), replace=stages, refresh=False))
    refuse_errored(planned)
    refuse_unready(settings, opened.project, planned)
    return planned


# ---------------------------------------------------------------------------------------------------- comparing


def _metric_contents(
    opened: CommitProject, stages: tuple[Address, ...], entries: dict[Address, LockEntry]
) -> dict[str, FileDigest]:
    """Return recorded metrics that DVC's cache holds: their numbers are to be compared."""
    found: dict[str, FileDigest] = {}
    for address in stages:
        digests = entries[address].digests() if address in entries else {}
        found |= {
            out.path: digests[out.path] for out in _metrics_of(opened, address) if out.path in digests and out.cache
        }
    return found


def _metrics_of(opened: CommitProject, address: Address) -> list[Out]:
    return [out for out in opened.project.graph.stages[address].outs if out.role == "metric"]


def _read_numbers(opened: CommitProject, stages: tuple[Address, ...]) -> dict[str, dict[str, float]]:
    entries, objects = recorded_entries(opened.project), Objects(read_settings(opened.project.root).cache)
    found: dict[str, dict[str, float]] = {}
    for address in stages:
        for out in _metrics_of(opened, address):
            digest = entries[address].digests().get(out.path) if address in entries else None
            place = objects.find(digest.md5) if digest is not None and out.cache else None
            found[out.path] = _numbers(Path(place) if place else opened.project.root / out.path, out.path)
    return found


def _numbers(file: Path, path: str) -> dict[str, float]:
    try:
        return parse_metrics(read_plain(file.parent, file.name, most=_LARGEST), Path(path).suffix)
    except OSError:
        return {}


def _reports(
    opened: CommitProject,
    stages: tuple[Address, ...],
    before: Before,
    work: Work,
    tolerance: float,
    *,
    project_root: Path,
) -> list[StageReport]:
    graph, root = opened.project.graph, opened.project.root
    made = work.outputs().digests
    reports: list[StageReport] = []
    changed: dict[str, Address] = {}
    for address in stages:
        entry = before.entries.get(address)
        outputs = tuple(_output(opened, out, entry, made, before, tolerance) for out in graph.stages[address].outs)
        report = StageReport(address=address, cmd=graph.stages[address].cmd, outputs=outputs)
        stage = graph.resources[address]
        if any(out.before != out.after for out in outputs) and entry is not None and isinstance(stage, Stage):
            making = Making(
                stage=stage,
                recorded=entry,
                key=work.decide(address).key,
                noted=read_provenance(project_root, entry),
                image=work.image_of(address),
            )
            causes = likely_causes(making, graph, root=root, changed=changed)
            report = msgspec.structs.replace(report, causes=causes)
        changed |= {out.path: address for out in outputs if out.before != out.after}
        reports.append(report)
    return reports


def _output(
    opened: CommitProject,
    out: Out,
    entry: LockEntry | None,
    made: Mapping[str, FileDigest],
    before: Before,
    tolerance: float,
) -> OutputReport:
    recorded = entry.digests().get(out.path) if entry is not None else None
    numbers = None
    if out.role == "metric":
        numbers = (before.numbers.get(out.path, {}), _numbers(opened.project.root / out.path, out.path))
    return compare_output(
        out.path,
        before=recorded.md5 if recorded is not None else None,
        after=made[out.path].md5,
        numbers=numbers,
        tolerance=tolerance,
    )


def _nothing_recorded(opened: CommitProject, stages: list[Address]) -> Diagnostic:
    return Diagnostic(
        code="nothing-recorded",
        summary="That commit has no results to compare with",
        detail=f"At {opened.described}, dvc.lock records nothing of {', '.join(stages[:5])}.",
        hint="Name a commit that has dvc.lock with its results in it.",
    )


def _failed(opened: CommitProject) -> Diagnostic:
    return Diagnostic(
        code="reproduction-failed",
        summary="A stage of that commit failed, so nothing can be compared",
        detail=f"{opened.described}: what the stage said is above.",
        hint="What it needs beyond the repository (variables, services, hardware) may not be here.",
    )
