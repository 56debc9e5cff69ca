"""Models: a version is the hash of an output, and gates are bounds on recorded metrics."""

from collections.abc import Iterable, Iterator, Mapping
from math import isnan

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Gate, Model

_MOST_NAMED = 5


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate held against the recorded metric; `value` is None when no such metric was recorded.

    `candidates` are the names of the metrics that the gate could mean, when that is more than one; `recorded` are those
    that there are, when it is none of them.
    """

    gate: Gate
    value: float | None
    candidates: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the metric was recorded and lies within the bounds (a NaN never does)."""
        if self.value is None or isnan(self.value):
            return False
        low, high = self.gate.min, self.gate.max
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    def sentence(self) -> str:
        """Say how it went: `stages.evaluate.metrics.rmse is 0.71, above the maximum 0.7`."""
        name = f"{self.gate.stage}.metrics.{self.gate.metric}"
        if self.candidates:
            files = " and ".join(candidate.rpartition(":")[0] for candidate in self.candidates)
            return f"{name} is in {files}; name one of them: {self.gate.stage}.metrics.{self.candidates[0]}"
        if self.value is None:
            if not self.recorded:
                return f"{name} was not recorded: no metrics file of {self.gate.stage} holds a number"
            more = ", …" if len(self.recorded) > _MOST_NAMED else ""
            return f"{name} was not recorded; its metrics are {', '.join(self.recorded[:_MOST_NAMED])}{more}"
        bounds = [
            f"at least {self.gate.min:g}" if self.gate.min is not None else "",
            f"at most {self.gate.max:g}" if self.gate.max is not None else "",
        ]
        wanted = " and ".join(bound for bound in bounds if bound)
        return f"{name} is {self.value:g}; the gate asks for {wanted}"


def judge(model: Model, metrics: Mapping[Address, Mapping[str, float]]) -> tuple[GateResult, ...]:
    """Hold every gate of a model against the metrics of its stages."""
    return tuple(_hold(gate, metrics.get(gate.stage, {})) for gate in model.gates)


def _hold(gate: Gate, values: Mapping[str, float]) -> GateResult:
    """Find a metric by its dotted name; where several files have it, with the file (`metrics/eval.json:rmse`)."""
    if gate.metric in values:
        return GateResult(gate=gate, value=values[gate.metric])
    candidates = tuple(sorted(key for key in values if key.rpartition(":")[2] == gate.metric))
    if candidates:
        return GateResult(gate=gate, value=None, candidates=candidates)
    file, _, name = gate.metric.rpartition(":")
    return GateResult(gate=gate, value=values.get(name) if file else None, recorded=tuple(sorted(values)))


def check_gates(results: Iterable[GateResult], model: Model) -> Iterator[Diagnostic]:
    """Yield a problem for each gate that could mean several metrics: none of them is silently taken."""
    for result in results:
        if result.candidates:
            yield Diagnostic(
                code="metric-ambiguous",
                summary="A gate could mean several metrics",
                detail=f"{result.sentence()}.",
                hint="Name the file in the gate, or give the metrics different names.",
                address=model.address,
            )


def behind_gates(change: Change, rows: Mapping[Address, Change]) -> Change:
    """Have the row say that it is not reached while a model that it needs is known to stop at its gate."""
    stopped = [each for each in change.needs if (row := rows.get(each)) is not None and row.is_stopped]
    if not stopped or change.action is Action.NO_OP:
        return change
    closed = tuple(Reason(code=ReasonCode.GATE_CLOSED, subject=each) for each in stopped)
    return msgspec.structs.replace(change, reasons=(*closed, *change.reasons))


def diff_model(
    model: Model,
    *,
    before: str | None,
    after: str | None,
    gate_stages_pending: tuple[Address, ...],
    gates: tuple[GateResult, ...],
) -> Change:
    """Return the row of a model.

    `before` and `after` are its versions: None before it was ever made, None when it is known only after apply.
    """
    fields: tuple[FieldDiff, ...] = ()
    reasons: list[Reason] = []
    action = Action.NO_OP
    if before is None or before != after:
        action = Action.CREATE if before is None else Action.UPDATE
        fields = (FieldDiff(path="version", before=before, after=after, unknown=after is None),)
        reasons.append(Reason(code=ReasonCode.UPSTREAM_CHANGES, subject=model.stage))
    if gate_stages_pending:
        action = Action.UPDATE if action is Action.NO_OP else action
        reasons.extend(
            Reason(code=ReasonCode.UPSTREAM_CHANGES, subject=stage)
            for stage in gate_stages_pending
            if stage != model.stage
        )
    else:
        missed = tuple(result for result in gates if not result.met)
        if missed:
            action = Action.UPDATE if action is Action.NO_OP else action
            reasons.extend(
                Reason(code=ReasonCode.GATE_NOT_MET, subject=result.sentence(), before=result.value)
                for result in missed
            )
    return Change(
        address=model.address,
        kind=Kind.MODEL,
        action=action,
        reasons=tuple(reasons) or (Reason(code=ReasonCode.UP_TO_DATE),),
        fields=fields,
        needs=(model.stage, *(gate.stage for gate in model.gates)),
    )
