"""What is recorded for addresses: the contents that DVC holds, which `mlstack push` and `pull` are about."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from mlstack.drivers.dvc.datasets import read_dataset
from mlstack.drivers.dvc.lockfile import LockFile, read_lock
from mlstack.drivers.dvc.statements import DatasetVersion, provenance_folders
from mlstack.graph.graph import LockEntry, ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """`digests`: path → what is recorded there. `owners`: path → address. `entries`: the recorded results of stages.

    `datasets` are the versions of datasets that DVC holds.
    """

    digests: dict[str, FileDigest] = {}
    owners: dict[str, Address] = {}
    entries: dict[Address, LockEntry] = {}
    datasets: tuple[DatasetVersion, ...] = ()

    def provenance(self) -> tuple[str, ...]:
        """Return the folders in which the provenance of all this lies, in cache and remote."""
        return provenance_folders(self.entries.values(), self.datasets)


def recorded_contents(
    graph: ResourceGraph, *, root: Path, addresses: Iterable[Address] | None = None, cache_folder: Path | None = None
) -> Contents:
    """Read what is recorded for these addresses and all that they need (None: for everything).

    Left out is what Git keeps itself: datasets that it tracks, metrics and plots with `cache: false`. Raises
    `MlstackError` for a damaged `dvc.lock` or `.dvc` file.
    """
    selected = set(graph.order) if addresses is None else _with_needs(addresses, graph)
    digests: dict[str, FileDigest] = {}
    owners: dict[str, Address] = {}
    entries: dict[Address, LockEntry] = {}
    datasets: list[DatasetVersion] = []
    locks: dict[str, LockFile] = {}
    for address in graph.order:
        if address not in selected:
            continue
        dataset = graph.resources.get(address)
        if isinstance(dataset, Dataset) and address in graph.datasets:
            found = read_dataset(root, dataset.path, cache_folder=cache_folder)
            if found is not None:
                digests[dataset.path], owners[dataset.path] = found.digest, address
                datasets.append(DatasetVersion(path=dataset.path, digest=found.digest, source=found.source))
        inputs = graph.stages.get(address)
        if inputs is None:
            continue
        if inputs.directory not in locks:
            locks[inputs.directory] = read_lock(root, inputs.directory, cache_folder=cache_folder)
        recorded = locks[inputs.directory].stages.get(inputs.entry_name)
        if recorded is None or recorded.entry is None:
            continue
        entries[address] = recorded.entry
        in_git = {out.path for out in inputs.outs if not out.cache}
        for out in recorded.entry.outs:
            if out.path not in in_git:
                digests[out.path], owners[out.path] = out.digest, address
    return Contents(digests=digests, owners=owners, entries=entries, datasets=tuple(datasets))


def _with_needs(addresses: Iterable[Address], graph: ResourceGraph) -> set[Address]:
    found: set[Address] = set()
    waiting = list(addresses)
    while waiting:
        address = waiting.pop()
        if address not in found:
            found.add(address)
            waiting += graph.needs.get(address, ())
    return found
