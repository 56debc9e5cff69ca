"""What `dvc.lock` and the `.dvc` files recorded at another commit."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlstack.gitops.revisions import list_files_at, read_files_at
from mlstack.graph.graph import LockEntry
from mlstack.graph.sources import FileDigest


class RecordedResults(msgspec.Struct, frozen=True, kw_only=True):
    """`stages`: (directory, DVC's stage name) → entry. `datasets`: path of a DVC-held dataset → digest."""

    stages: dict[tuple[str, str], LockEntry]
    datasets: dict[str, FileDigest]

    def digest_of(self, path: str) -> FileDigest | None:
        """Return the digest that a file or folder had: as a dataset, or as what a stage read."""
        if path in self.datasets:
            return self.datasets[path]
        for entry in self.stages.values():
            for dep in entry.key.deps:
                if dep.path == path:
                    return dep.digest
        return None


def read_recorded_at(root: Path, revision: str) -> RecordedResults:
    """Read every `dvc.lock` and `.dvc` file below `root` at `revision`, which must exist.

    Raises `MlstackError` for a file that is damaged there.
    """
    locks = [path for path in list_files_at(root, revision, ending="dvc.lock") if path.rpartition("/")[2] == "dvc.lock"]
    pointers = [path for path in list_files_at(root, revision, ending=".dvc") if path.rpartition("/")[2] != ".dvc"]
    contents = read_files_at(root, revision, (*locks, *pointers))
    return RecordedResults(stages=_stages(locks, contents), datasets=_datasets(pointers, contents))


def _stages(paths: list[str], contents: Mapping[str, bytes | None]) -> dict[tuple[str, str], LockEntry]:
    from mlstack.drivers.dvc.lockfile import parse_lock

    found: dict[tuple[str, str], LockEntry] = {}
    for path in paths:
        directory = path.rpartition("/")[0] or "."
        content = contents[path]
        if content is None:
            continue
        lock, _ = parse_lock(content, directory)
        found.update({(directory, name): s.entry for name, s in lock.stages.items() if s.entry is not None})
    return found


def _datasets(paths: list[str], contents: Mapping[str, bytes | None]) -> dict[str, FileDigest]:
    from mlstack.drivers.dvc.documents import parse_document

    found: dict[str, FileDigest] = {}
    for path in paths:
        content = contents[path]
        outs = parse_document(content, path).get("outs") if content is not None else None
        out = outs[0] if isinstance(outs, list) and outs and isinstance(outs[0], dict) else {}
        if isinstance(out.get("md5"), str):
            digest = FileDigest(md5=out["md5"], size=int(out.get("size") or 0), nfiles=out.get("nfiles"))
            found[path.removesuffix(".dvc")] = digest
    return found
