"""`mlstack history`: what was applied, when, by whom, and how it went."""

from typing import Annotated

import typer

from mlstack.cli.console import say, say_json
from mlstack.cli.project import open_spec
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.render.human import age, counted, duration, local_time
from mlstack.render.style import Tone
from mlstack.render.table import Cell, Column, render_pairs, render_table
from mlstack.state.environment_folder import backend_for
from mlstack.state.read import open_reader
from mlstack.state.state import HistoryRecord

Id = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="Show one record in full; its first letters are enough.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show the newest N.")]

_TONES: dict[str, Tone] = {"done": "add", "failed": "error", "interrupted": "warning", "left": "warning"}


_APPROVALS = {
    "typed": "yes, typed on a terminal",
    "yes": "not asked for (--yes)",
    "plan file": "a saved plan was handed over",
    "digest": "by its digest (--approved)",
}


def history(context: typer.Context, record: Id = None, limit: Limit = 20) -> int:
    """List what was applied, when, by whom, and how it went; newest first."""
    settings = settings_of(context)
    root, spec = open_spec(settings)
    reader = open_reader(
        backend_for(spec.state, root, spec.environment), project=spec.project, environment=spec.environment
    )
    records = list(reversed(reader.history()))
    if record is not None:
        found = _find(record, records)
        if settings.json:
            say_json(found)
        else:
            say(_details(found, settings))
        return ExitCode.OK
    if settings.json:
        say_json({"format_version": "1.0", "environment": spec.environment, "records": records[:limit]})
    elif not records:
        say(f"Nothing was applied to environment {spec.environment} yet.")
    else:
        say(_table(records[:limit], settings))
        if len(records) > limit:
            say(f"\nand {counted(len(records) - limit, 'older record')}; --limit {len(records)} shows all.")
    return ExitCode.OK


def _find(word: str, records: list[HistoryRecord]) -> HistoryRecord:
    found = [record for record in records if record.id == word] or [r for r in records if r.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    raise MlstackError(
        Diagnostic(
            code="unknown-record",
            summary="No such record" if not found else "Several records begin like this",
            detail=f"The history has {counted(len(found), 'record')} whose ID begins with {word!r}.",
            hint="The list shows the IDs.",
            command="mlstack history",
        )
    )


def _table(records: list[HistoryRecord], settings: Settings) -> str:
    heads = (Column("ID", keep=True), "WHEN", "WHAT", "HOW", "WHO", "COMMIT", "STEPS")
    rows = [
        (
            record.id[:8],
            age(record.started_at),
            record.operation,
            Cell(record.outcome, _TONES.get(record.outcome)),
            record.who,
            (record.commit or "")[:8] + ("+" if record.dirty else ""),
            _steps(record),
        )
        for record in records
    ]
    return render_table(heads, rows, style=settings.out)


def _steps(record: HistoryRecord) -> str:
    counts: dict[str, int] = {}
    for step in record.steps:
        counts[step.outcome] = counts.get(step.outcome, 0) + 1
    words = [f"{count} {outcome.replace('-', ' ')}" for outcome, count in counts.items()]
    return ", ".join(words) or record.because


def _details(record: HistoryRecord, settings: Settings) -> str:
    commit = (record.commit or "none") + (" with uncommitted changes" if record.dirty else "")
    pairs = [
        ("id", record.id),
        ("what", record.operation),
        ("how", record.outcome),
        ("who", f"{record.who} on {record.host}"),
        ("started", local_time(record.started_at)),
        ("ended", local_time(record.ended_at)),
        ("commit", commit),
        ("plan digest", record.plan_digest or "none"),
        ("serial", f"{record.serial_before} -> {record.serial_after}"),
        ("mlstack", record.mlstack_version),
    ]
    if record.approval:
        pairs.append(("approved", _APPROVALS.get(record.approval, record.approval)))
    if record.because:
        pairs.append(("because", record.because))
    text = render_pairs(pairs, style=settings.out)
    if record.steps:
        rows = [
            (s.address, s.action, s.outcome.replace("-", " "), duration(s.seconds) if s.seconds else "", s.detail)
            for s in record.steps
        ]
        heads = (Column("ADDRESS", keep=True), "ACTION", "HOW", Column("TOOK", right=True), "DETAIL")
        text += "\n" + render_table(heads, rows, style=settings.out)
    if record.versions:
        text += "\n" + render_table(("ADDRESS", "VERSION"), list(record.versions.items()), style=settings.out)
    return text
