"""Models: a version is the hash of an output, and gates are bounds on recorded metrics."""

from collections.abc import Mapping
from math import isnan

import msgspec

from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Gate, Model


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate held against the recorded metric; `value` is None when no such metric was recorded."""

    gate: Gate
    value: float | None

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
        if self.value is None:
            return f"{name} was not recorded"
        bounds = [
            f"at least {self.gate.min:g}" if self.gate.min is not None else "",
            f"at most {self.gate.max:g}" if self.gate.max is not None else "",
        ]
        wanted = " and ".join(bound for bound in bounds if bound)
        return f"{name} is {self.value:g}; the gate asks for {wanted}"


def judge(model: Model, metrics: Mapping[Address, Mapping[str, float]]) -> tuple[GateResult, ...]:
    """Hold every gate of a model against the metrics of its stages."""
    return tuple(GateResult(gate=gate, value=_metric(metrics.get(gate.stage, {}), gate.metric)) for gate in model.gates)


def _metric(values: Mapping[str, float], name: str) -> float | None:
    """Find a metric by its dotted name, with or without the file that it is in (`metrics/eval.json:rmse`)."""
    if name in values:
        return values[name]
    return next((value for key, value in values.items() if key.rpartition(":")[2] == name), None)


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
