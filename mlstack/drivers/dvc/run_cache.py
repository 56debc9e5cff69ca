"""The run-cache in a remote, in DVC's layout: entries are small texts, and name the contents that they need."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from mlstack.drivers.dvc.entries import MalformedEntryError, RecordedStage, read_entry
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.remote import Remote, explained, is_run_part
from mlstack.drivers.dvc.saving import Saver
from mlstack.drivers.dvc.transfer import side_by_side
from mlstack.drivers.dvc.yaml_text import load_yaml
from mlstack.spec.plain_files import read_plain

_TOGETHER = 16


def local_runs(objects: Objects, key: str | None = None) -> list[str]:
    """Return the entries of the run-cache on this machine, as paths `ab/<key>/<value>`; of one key or of all."""
    top = Path(objects.folder) / "runs"
    pattern = f"{key[:2]}/{key}/*" if key else "*/*/*"
    names = (path.relative_to(top).as_posix() for path in top.glob(pattern))
    return sorted(name for name in names if all(is_run_part(part) for part in name.split("/")))


def parse_run(content: bytes, directory: str = ".") -> RecordedStage | None:
    """Return an entry of the run-cache; None if it is damaged."""
    try:
        return read_entry(load_yaml(content), directory)
    except (yaml.YAMLError, MalformedEntryError, ValueError):
        return None


def read_local_run(objects: Objects, entry: str) -> RecordedStage | None:
    """Return an entry of this machine's run-cache; None if it is gone or damaged."""
    try:
        return parse_run(read_plain(objects.folder, f"runs/{entry}"))
    except OSError:
        return None


def contents_of(run: RecordedStage | None) -> list[str]:
    """Return the hashes of the outputs that an entry names."""
    return [out.digest.md5 for out in run.entry.outs] if run is not None and run.entry is not None else []


def push_runs(remote: Remote, objects: Objects, entries: Sequence[str]) -> int:
    """Copy entries into the remote that it does not have; return how many. Their contents must be there before."""
    there = set(remote.runs())
    wanted = [entry for entry in entries if entry not in there]
    with explained(remote.place):
        from dvc_objects.fs import generic
        from dvc_objects.fs.local import localfs

        def copy(part: Sequence[str]) -> None:
            targets = [remote.fs.join(remote.path, "runs", *entry.split("/")) for entry in part]
            for target in {remote.fs.parent(target) for target in targets}:
                remote.fs.makedirs(target)
            sources = [f"{objects.folder}/runs/{entry}" for entry in part]
            generic.copy(localfs, sources, remote.fs, targets, batch_size=remote.jobs)

        side_by_side(remote, wanted, copy)
    return len(wanted)


def fetch_runs(remote: Remote, saver: Saver, objects: Objects, keys: Iterable[str] | None = None) -> int:
    """Copy the remote's entries (of these keys; None: all) that are not here; return how many. Damaged ones are left.

    Raises `MlstackError` when the remote cannot be asked, or the cache cannot be written.
    """
    listed = remote.runs() if keys is None else [entry for key in keys for entry in remote.runs(key)]
    here = set(local_runs(objects))

    def take(entry: str) -> bool:
        content = remote.read_run(entry)
        if content is None or parse_run(content) is None:
            return False
        key, _, name = entry.rpartition("/")
        saver.write_run(f"{objects.folder}/runs/{key}", name, content)
        return True

    with ThreadPoolExecutor(min(_TOGETHER, remote.jobs)) as pool:
        return sum(pool.map(take, [entry for entry in listed if entry not in here]))
