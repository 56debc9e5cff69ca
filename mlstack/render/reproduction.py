"""The report of `mlstack reproduce`: every output, how alike it is, and what may be the cause."""

from typing import Any

import msgspec

from mlstack.planner.reproduction import Likeness, MetricPair, OutputReport, Reproduction, StageReport
from mlstack.render.escape import plain
from mlstack.render.fence import prose
from mlstack.render.human import counted, number
from mlstack.render.style import Style, Tone
from mlstack.render.table import Cell, markdown_table

_TONES: dict[Likeness, Tone] = {
    Likeness.IDENTICAL: "add",
    Likeness.WITHIN_TOLERANCE: "change",
    Likeness.DIFFERENT: "error",
    Likeness.NEW: "error",
}
_SYMBOLS = {Likeness.IDENTICAL: "✓", Likeness.WITHIN_TOLERANCE: "≈", Likeness.DIFFERENT: "✗", Likeness.NEW: "✗"}
_SHORT = 12


def render_reproduction(found: Reproduction, *, style: Style) -> str:
    """Return the report as text; ends in a newline."""
    lines = [f"{style.paint('Computed again', 'strong')} {plain(found.described)}", f"  on {plain(found.machine)}", ""]
    for stage in found.stages:
        lines.append(style.paint(plain(stage.address), "strong"))
        widths = max((len(plain(out.path)) for out in stage.outputs), default=0)
        for out in stage.outputs:
            lines += _output_lines(out, widths, style)
        if stage.causes:
            lines.append("    likely because:")
            lines += [f"      {style.symbol('•')} {plain(cause)}" for cause in stage.causes]
        lines.append("")
    lines.append(style.paint(_summary(found), "good" if found.is_same else "error"))
    return "\n".join(lines) + "\n"


def _output_lines(out: OutputReport, width: int, style: Style) -> list[str]:
    head = style.paint(f"{style.symbol(_SYMBOLS[out.likeness])} {out.likeness.value}", _TONES[out.likeness])
    pad = " " * (len(Likeness.WITHIN_TOLERANCE.value) - len(out.likeness.value))
    lines = [f"  {head}{pad}  {plain(out.path):<{width}}  {style.paint(_hashes(out, style), 'quiet')}"]
    lines += [f"      {_metric_words(pair, style)}" for pair in out.metrics]
    return lines


def _hashes(out: OutputReport, style: Style) -> str:
    if out.before is None or out.before == out.after:
        return out.after[:_SHORT]
    return f"{out.before[:_SHORT]} {style.symbol('→')} {out.after[:_SHORT]}"


def _metric_words(pair: MetricPair, style: Style) -> str:
    before, after = ("missing" if value is None else number(value) for value in (pair.before, pair.after))
    if before == after and pair.before is not None:
        before, after = repr(pair.before), repr(pair.after)
    apart = f" ({pair.difference:.2g} apart)" if pair.difference is not None else ""
    word = "" if pair.within else style.paint("  outside of the tolerance", "error")
    return f"{plain(pair.name)}: {before} {style.symbol('→')} {after}{apart}{word}"


def _summary(found: Reproduction) -> str:
    counts = {likeness: found.count(likeness) for likeness in Likeness}
    parts = [f"{count} {likeness.value}" for likeness, count in counts.items() if count]
    verdict = "Reproduced" if found.is_same else "Not reproduced"
    outputs = counted(sum(counts.values()), "output")
    tolerance = f" (of {found.tolerance:g}, relative)" if counts[Likeness.WITHIN_TOLERANCE] else ""
    return f"{verdict}: {outputs}, {', '.join(parts)}{tolerance}."


def render_reproduction_markdown(found: Reproduction) -> str:
    """Return the report as Markdown; ends in a newline."""
    rows: list[list[str | Cell]] = []
    for stage in found.stages:
        for out in stage.outputs:
            metrics = "; ".join(_metric_words(pair, Style()) for pair in out.metrics)
            rows.append([stage.address, out.path, out.likeness.value, metrics or _hashes(out, Style())])
    table = markdown_table(["ADDRESS", "OUTPUT", "", "RECORDED AND NOW"], rows)
    parts = [f"**{_summary(found)}**", f"{prose(found.described)}, on {prose(found.machine)}", table.rstrip("\n")]
    for stage in found.stages:
        if stage.causes:
            causes = "\n".join(f"- {prose(cause)}" for cause in stage.causes)
            parts.append(f"`{stage.address}` differs, likely because:\n\n{causes}")
    return "\n\n".join(parts) + "\n"


def reproduction_document(found: Reproduction) -> dict[str, Any]:
    """Return the report as JSON."""
    return {
        "format_version": "1.0",
        "commit": found.commit,
        "same": found.is_same,
        "tolerance": found.tolerance,
        "machine": found.machine,
        "summary": {likeness.value.replace(" ", "_"): found.count(likeness) for likeness in Likeness},
        "stages": [_stage_document(stage) for stage in found.stages],
    }


def _stage_document(stage: StageReport) -> dict[str, Any]:
    outputs = [
        {
            **msgspec.to_builtins(out),
            "metrics": [{**msgspec.to_builtins(pair), "difference": pair.difference} for pair in out.metrics],
        }
        for out in stage.outputs
    ]
    return {
        "address": stage.address,
        "cmd": stage.cmd,
        "same": not stage.differs,
        "outputs": outputs,
        "causes": stage.causes,
    }
