"""Which of two entries of `dvc.lock` belongs to the files as they are now: the one whose key is theirs."""

from pathlib import Path

from mlstack.drivers.dvc.datasets import read_dataset
from mlstack.drivers.dvc.definitions import Place
from mlstack.drivers.dvc.lockfile import read_lock
from mlstack.drivers.dvc.merge_lock import Answer, LockedEntry, LockMerge
from mlstack.graph.graph import EntryKey, ResourceGraph, entry_key, fingerprint
from mlstack.graph.merge import Sides
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset


class ByFiles:
    """Judges by the desired state: the merged files have been hashed, and so it is known what each stage would read."""

    def __init__(self, graph: ResourceGraph, root: Path) -> None:
        self._graph, self._root = graph, root
        self._addresses = {
            Place(inputs.directory, inputs.entry_name): address for address, inputs in graph.stages.items()
        }

    def fits(self, place: Place, entry: LockedEntry, sides: Sides[LockedEntry], merge: LockMerge) -> Answer:
        """Answer for one entry; that of a stage which mlstack does not know is said not to fit."""
        del sides
        address = self._addresses.get(place)
        if address is None or entry.recorded.entry is None:
            return "no"
        inputs = self._graph.stages[address]
        known: dict[str, FileDigest] = {}
        for dep in inputs.deps:
            made = self._made(dep.producer, dep.path, merge) if dep.producer and dep.digest is None else None
            if made is not None:
                known[dep.path] = made
        key = entry_key(inputs, known)
        is_same = isinstance(key, EntryKey) and fingerprint(key) == fingerprint(entry.recorded.entry.key)
        return "yes" if is_same else "no"

    def _made(self, producer: Address, path: str, merge: LockMerge) -> FileDigest | None:
        """Return what a stage or dataset gives, as it is recorded after the merge; None if that is not known."""
        resource = self._graph.resources.get(producer)
        if isinstance(resource, Dataset):
            # The `.dvc` file is merged; the data beside it may still be that of one side.
            recorded = read_dataset(self._root, resource.path)
            return recorded.digest if recorded is not None else self._graph.datasets.get(producer)
        inputs = self._graph.stages.get(producer)
        if inputs is None:
            return None
        place = Place(inputs.directory, inputs.entry_name)
        if merge.holds(place):
            found = merge.decide(place).value
            recorded_stage = found.recorded if found is not None else None
        elif merge.covers(place.directory):
            return None
        else:
            recorded_stage = read_lock(self._root, place.directory).stages.get(place.name)
        entry = recorded_stage.entry if recorded_stage is not None else None
        return entry.digests().get(path) if entry is not None else None
