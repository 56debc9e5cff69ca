"""What may stand in the way of recording results, in words."""

from collections.abc import Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.dvc.datasets import dataset_file
from mlstack.spec.address import Address


def not_made(address: Address, paths: Sequence[str]) -> Diagnostic:
    """Say that a stage ended well without what it declares."""
    return Diagnostic(
        code="output-not-made",
        summary="The stage did not make what it declares",
        detail=f"{address} ended without an error, but {', '.join(paths)} is not there.",
        hint="Correct `outs`, `metrics` or `plots` in the file, or the path that the command writes to.",
        address=address,
    )


def held_twice(path: str, address: Address) -> Diagnostic:
    """Say that an output has a second owner."""
    return Diagnostic(
        code="foreign-output",
        summary="A .dvc file already holds this output",
        detail=f"{dataset_file(path)} records {path}, which {address} makes. DVC allows one owner. "
        "Nothing was written.",
        hint="Delete the .dvc file if the stage is to make it, or give the stage another output.",
        address=address,
    )


def unwritable(path: Path, error: OSError) -> Diagnostic:
    """Say that the workspace cannot be written."""
    return Diagnostic(
        code="workspace-unwritable",
        summary="A file of the workspace cannot be written",
        detail=f"{error.filename or path}: {error.strerror or error}.",
        hint="Make room or make the folder writable, then apply again; what is done stays done.",
    )
