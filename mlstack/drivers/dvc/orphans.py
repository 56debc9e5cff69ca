"""Datasets that mlstack recorded and that the file does not declare any more, or elsewhere: by their `.dvc` files."""

from pathlib import Path

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.datasets import RecordedDataset, dataset_file, read_dataset
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.tracked import tracked_by_suffix
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset


def orphan_datasets(
    graph: ResourceGraph, *, root: Path, cache_folder: Path | None = None
) -> dict[Address, tuple[str, RecordedDataset]]:
    """Return address → path and record where no dataset is declared any more; what others wrote is left out.

    Git is asked for the names, so one whose `.dvc` file was never committed is not found. A damaged file is nobody's.
    """
    declared = {dataset_file(dataset.path) for dataset in graph.spec.of(Dataset).values()}
    found: dict[Address, tuple[str, RecordedDataset]] = {}
    for file in tracked_by_suffix(root, ".dvc"):
        path = file.removesuffix(".dvc")
        if file in declared or not path or path.endswith("/"):
            continue
        recorded = _read(root, path, cache_folder)
        if recorded is not None and recorded.address is not None and _may_be(recorded.address, graph):
            found[recorded.address] = (path, recorded)
    return found


def forget_dataset(root: Path, address: Address, path: str) -> bool:
    """Remove the `.dvc` file at `path` if mlstack wrote it for `address`; return whether it did.

    The data stays: where it lies, in the cache, in the remote; and its line in `.gitignore`, which keeps it out of Git.
    """
    recorded = _read(root, path, None)
    if recorded is None or recorded.address != address:
        return False
    (root / dataset_file(path)).unlink(missing_ok=True)
    return True


def _may_be(address: Address, graph: ResourceGraph) -> bool:
    return address not in graph.resources or isinstance(graph.resources[address], Dataset)


def _read(root: Path, path: str, cache_folder: Path | None) -> RecordedDataset | None:
    try:
        return read_dataset(root, path, cache_folder=cache_folder)
    except MlstackError:
        return None
