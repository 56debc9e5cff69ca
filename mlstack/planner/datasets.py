"""What happens to a dataset that DVC holds."""

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import Absent, DatasetReading, NotChecked
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Dataset


def diff_dataset(
    dataset: Dataset, desired: FileDigest | None, reading: DatasetReading
) -> tuple[Change, FileDigest | None]:
    """Return the row and the digest that the dataset will have (None: known after apply)."""
    recorded = reading.recorded
    if dataset.source is not None:
        return _diff_source(dataset, desired, reading)
    if desired is None:
        return _row(dataset.address, Action.NO_OP, Reason(code=ReasonCode.UP_TO_DATE), reading=reading), recorded
    if recorded is None:
        return _row(dataset.address, Action.CREATE, Reason(code=ReasonCode.NOT_RECORDED), after=desired), desired
    if recorded.md5 != desired.md5:
        reason = Reason(code=ReasonCode.CONTENT_CHANGED, subject=dataset.path, before=recorded.md5, after=desired.md5)
        return _row(dataset.address, Action.UPDATE, reason, before=recorded, after=desired), desired
    return _row(dataset.address, Action.NO_OP, Reason(code=ReasonCode.UP_TO_DATE), reading=reading), recorded


def _diff_source(
    dataset: Dataset, pinned: FileDigest | None, reading: DatasetReading
) -> tuple[Change, FileDigest | None]:
    """A source is fetched once. `pinned` is what `mlstack.lock` says it holds: every fetch gives that, or fails."""
    recorded = reading.recorded
    if recorded is None:
        reason = Reason(code=ReasonCode.NOT_FETCHED, subject=dataset.source or "")
        return _row(dataset.address, Action.CREATE, reason, after=pinned, unknown=pinned is None), pinned
    # A `.dvc` file that somebody else wrote says no source, and is left as it is when it records what the source holds.
    is_foreign_and_same = reading.source is None and pinned is not None and pinned.md5 == recorded.md5
    if reading.source != dataset.source and not is_foreign_and_same:
        reason = Reason(code=ReasonCode.SOURCE_CHANGED, before=reading.source, after=dataset.source)
        row = _row(dataset.address, Action.UPDATE, reason, before=recorded, after=pinned, unknown=pinned is None)
        return row, pinned
    if pinned is not None and pinned.md5 != recorded.md5:
        reason = Reason(code=ReasonCode.CONTENT_CHANGED, subject=dataset.path, before=recorded.md5, after=pinned.md5)
        return _row(dataset.address, Action.UPDATE, reason, before=recorded, after=pinned), pinned
    if isinstance(reading.content, Absent):
        reason = Reason(code=ReasonCode.OUT_MISSING, subject=dataset.path)
        return _row(dataset.address, Action.UPDATE, reason, before=recorded, after=recorded), recorded
    return _row(dataset.address, Action.NO_OP, Reason(code=ReasonCode.UP_TO_DATE), reading=reading), recorded


def with_old_path(change: Change, dataset: Dataset, reading: DatasetReading) -> Change:
    """Have the row say, and its step see to it, that the `.dvc` file of the path before goes."""
    if not reading.path:
        return change
    moved = Reason(code=ReasonCode.MOVED, subject=reading.path)
    before = reading.left.md5 if reading.left is not None else None
    versions = (
        msgspec.structs.replace(field, before=before) if field.before is None else field for field in change.fields
    )
    return msgspec.structs.replace(
        change,
        action=Action.UPDATE,
        reasons=(moved, *(reason for reason in change.reasons if reason.code not in _IMPLIED)),
        fields=(
            FieldDiff(path="path", before=reading.path, after=dataset.path),
            *(field for field in versions if field.unknown or field.before != field.after),
        ),
        before={"path": reading.path},
    )


_IMPLIED = (ReasonCode.NOT_RECORDED, ReasonCode.UP_TO_DATE, ReasonCode.TRACKED_BY_GIT)


def check_dataset(dataset: Dataset, desired: FileDigest | None, reading: DatasetReading) -> Diagnostic | None:
    """Say what is wrong with a dataset that is neither here nor to be had by hash."""
    if dataset.source is not None or desired is not None:
        return None
    if reading.recorded is None:
        return Diagnostic(
            code="dataset-missing",
            summary="Dataset not found",
            detail=f"There is no file or folder at {dataset.path}, and none was ever recorded.",
            hint="Put the data there, correct `path`, or give a `source` to fetch it from.",
            address=dataset.address,
        )
    if isinstance(reading.content, Absent):
        return Diagnostic(
            code="dataset-not-here",
            summary="Dataset is not on this machine",
            detail=f"{dataset.path} is recorded as {reading.recorded.md5}. {reading.content.reason}.",
            hint="Put it there, or push it from the machine that has it:",
            command=f"mlstack push {dataset.address}",
            address=dataset.address,
        )
    return None


def _row(
    address: Address,
    action: Action,
    reason: Reason,
    *,
    before: FileDigest | None = None,
    after: FileDigest | None = None,
    unknown: bool = False,
    reading: DatasetReading | None = None,
) -> Change:
    fields: tuple[FieldDiff, ...] = ()
    if action is not Action.NO_OP:
        old, new = before.md5 if before else None, after.md5 if after else None
        fields = (FieldDiff(path="version", before=old, after=new, unknown=unknown),)
    content = reading.content if reading else None
    return Change(
        address=address,
        kind=Kind.DATASET,
        action=action,
        reasons=(reason,),
        fields=fields,
        not_checked=content.reason if isinstance(content, NotChecked) else "",
    )
