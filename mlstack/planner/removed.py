"""What is recorded and not declared any more: stages and datasets are forgotten, endpoints destroyed."""

from collections.abc import Collection, Iterator, Mapping

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.drivers.base import DatasetReading, Readings
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.images import forget_image
from mlstack.planner.plan import Scope
from mlstack.planner.resources import delete_row
from mlstack.planner.stages import StageView
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.state.state import State


def removed_rows(
    prior: State | None, readings: Readings, scope: Scope, *, declared: Collection[Address], moved: Collection[Address]
) -> dict[Address, Change]:
    """Return the rows of addresses that are neither `declared` nor taken over by a move, and that are in the scope."""
    if scope.refresh_only:
        return {}

    def is_meant(address: Address) -> bool:
        if address in declared or address in moved:
            return False
        return address in scope.targets if scope.targets else address not in scope.excludes

    code = ReasonCode.DESTROY_ASKED if scope.destroy else ReasonCode.REMOVED_FROM_FILE
    reason = Reason(code=code)
    rows = {
        address: Change(address=address, kind=Kind.STAGE, action=Action.CANCEL, reasons=(reason,))
        for address in filter(is_meant, readings.running)
    }
    if not scope.destroy:
        rows |= {
            address: Change(address=address, kind=Kind.STAGE, action=Action.FORGET, reasons=(reason,))
            for address in filter(is_meant, readings.stages)
        }
        rows |= {
            address: _forget_dataset(address, readings.datasets[address], reason)
            for address in filter(is_meant, readings.datasets)
        }
    records = prior.resources if prior else {}
    return rows | {
        address: forget_image(address, records[address], code)
        if kind_of(address) is Kind.IMAGE
        else delete_row(records[address], code)
        for address in filter(is_meant, records)
    }


def _forget_dataset(address: Address, reading: DatasetReading, reason: Reason) -> Change:
    """Its `.dvc` file and its pin go; the data stays where it is."""
    version = reading.recorded.md5 if reading.recorded is not None else None
    return Change(
        address=address,
        kind=Kind.DATASET,
        action=Action.FORGET,
        reasons=(reason,),
        fields=(FieldDiff(path="version", before=version),),
        before={"path": reading.path, "version": version},
    )


def hint_renames(
    changes: Mapping[Address, Change], views: Mapping[Address, StageView], readings: Readings
) -> Iterator[Diagnostic]:
    """Say where something that goes and something that comes look like one thing with another name."""
    by_outs = {_outs_of(view): view for view in views.values() if view.reading.recorded is None and view.inputs.outs}
    new_endpoints = [change for change in changes.values() if _is_new_endpoint(change)]
    for address, change in changes.items():
        found: Address | None = None
        if change.action is Action.FORGET and change.kind is Kind.STAGE:
            # Two stages cannot make one output, so the one that makes these now is the one that took over.
            recorded = readings.stages[address].recorded
            view = by_outs.get(tuple(sorted(out.path for out in recorded.outs))) if recorded is not None else None
            found = view.stage.address if view is not None else None
        elif change.action is Action.DELETE and change.kind is Kind.ENDPOINT:
            found = next((new.address for new in new_endpoints if _is_alike(change, new)), None)
        if found is not None:
            yield _looks_renamed(address, found)


def _outs_of(view: StageView) -> tuple[str, ...]:
    return tuple(sorted(out.path for out in view.inputs.outs))


def _is_new_endpoint(change: Change) -> bool:
    return change.kind is Kind.ENDPOINT and change.action is Action.CREATE and change.before is None


def _is_alike(gone: Change, new: Change) -> bool:
    """Whether the endpoint that goes serves what the new one should."""
    before, after = gone.before or {}, new.after or {}
    return "variants" in after and before.get("variants") == after["variants"]


def _looks_renamed(source: Address, target: Address) -> Diagnostic:
    return Diagnostic(
        severity=Severity.WARNING,
        code="looks-renamed",
        summary="This looks like a rename",
        detail=f"{source} is not declared any more, and {target} is new and like it. As it is, the one goes and the "
        "other is made anew.",
        hint=f"If it is the same thing: announce it in the file, and it keeps what it has: "
        f"moved: [{{from: {source}, to: {target}}}]",
        address=target,
    )
