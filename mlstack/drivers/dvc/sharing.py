"""What goes to the remote and comes from it while a plan is carried out or `mlstack push` and `pull` are called."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event as StopFlag
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.brought import commit_of
from mlstack.drivers.dvc.checkout import not_to_be_had
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects, parse_tree
from mlstack.drivers.dvc.remote_place import RemotePlace, find_remote
from mlstack.drivers.dvc.saving import Saver
from mlstack.drivers.dvc.settings import DvcSettings
from mlstack.drivers.dvc.statements import Statements, provenance_folders
from mlstack.graph.graph import LockEntry
from mlstack.graph.sources import FileDigest

if TYPE_CHECKING:
    from mlstack.drivers.dvc.remote import Remote
    from mlstack.drivers.dvc.transfer import Moved, Progress

_SPEAK_EVERY = 1.0
_NAMED = 5
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Sharing:
    """The remote of one project, opened when it is first needed. Every method may be called from any thread."""

    def __init__(
        self, root: Path, settings: DvcSettings, objects: Objects, *, declared: str | None, stop: StopFlag | None = None
    ) -> None:
        self._root, self._settings, self._objects = root, settings, objects
        self._declared, self._stop = declared, stop
        self._remote: Remote | None = None
        self._opening, self._moving, self._publishing = Lock(), Lock(), Lock()
        self._published: set[str] = set()

    @property
    def place(self) -> RemotePlace | None:
        """Which remote that is; None without one. Raises `MlstackError` when DVC's default does not exist."""
        return find_remote(self._declared, self._settings, self._root)

    def require(self) -> "Remote":
        """Return the remote, open. Raises `MlstackError` when there is none or it cannot be opened."""
        from mlstack.drivers.dvc.remote import open_remote

        with self._opening:
            if self._remote is None:
                place = self.place
                if place is None:
                    raise MlstackError(no_remote())
                self._remote = open_remote(place, self._settings)
            return self._remote

    # ------------------------------------------------------------------------------------------------ from there

    def fetch(self, absent: Mapping[str, FileDigest], *, say: Say) -> None:
        """Bring contents (path → digest) into the cache. Raises `MlstackError` naming those that cannot be had."""
        place = self.place
        if place is None:
            raise MlstackError(not_to_be_had(absent, remote=None))
        say(f"fetching {_names(sorted(absent))} from {place.url}")
        moved = self.fetch_objects([digest.md5 for digest in absent.values()], say=say, sizes=absent.values())
        still = {path: digest for path, digest in absent.items() if not self._objects.has(digest)}
        if still:
            raise MlstackError(self.explain_missing(still, moved))

    def fetch_objects(self, md5s: Sequence[str], *, say: Say, sizes: Iterable[FileDigest] = ()) -> "Moved":
        """Bring objects into the cache, those of folders with their files; what fails is in the answer."""
        from mlstack.drivers.dvc.transfer import fetch

        remote = self.require()
        for digest in sizes:
            self._drop_cut_off(digest)
        with self._moving:
            return fetch(remote, self._objects, md5s, progress=speaking(say, "fetched"), stop=self._stop)

    def _drop_cut_off(self, digest: FileDigest) -> None:
        """Remove an object of the cache that has another size than was recorded: it is damaged, and in the way."""
        if digest.is_folder or not digest.size:
            return
        path = self._objects.find(digest.md5)
        if path is not None and os.stat(path).st_size != digest.size:  # noqa: PTH116
            Path(path).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ to there

    def publish(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Make sure that the remote has these contents (path → digest). Raises `MlstackError` for what is not.

        What was seen there is not asked for again: a hundred endpoints may serve one model.
        """
        with self._publishing:
            new = {path: digest for path, digest in wanted.items() if digest.md5 not in self._published}
            if not new:
                return
            moved = self.push_contents(new, say=say)
            if not moved.complete:
                raise MlstackError(self.explain_unpushed(moved, {digest.md5: path for path, digest in wanted.items()}))
            self._published.update(digest.md5 for digest in new.values())

    def push_contents(self, contents: Mapping[str, FileDigest], more: Sequence[str] = (), *, say: Say) -> "Moved":
        """Copy contents (path → digest) and `more` objects into the remote; what fails is in the answer.

        What the cache has lost is taken from the workspace, where it lies there as it was recorded.
        """
        moved = self.push_objects([*(digest.md5 for digest in contents.values()), *more], say=say)
        taken = self._take_in(contents, moved.absent)
        if not taken:
            return moved
        again = self.push_objects(taken, say=say)
        return msgspec.structs.replace(
            moved,
            moved=(*moved.moved, *again.moved),
            size=moved.size + again.size,
            absent=tuple(md5 for md5 in moved.absent if self._objects.find(md5) is None),
            failed={**moved.failed, **again.failed},
            damaged=tuple(dict.fromkeys((*moved.damaged, *again.damaged))),
        )

    def _take_in(self, contents: Mapping[str, FileDigest], absent: Sequence[str]) -> list[str]:
        """Put into the cache what is absent there and lies in the workspace; return the hashes."""
        saver, taken = Saver(self._root, self._settings, self._objects), []
        for path, digest in contents.items() if absent else ():
            is_lost = digest.md5 in absent or (digest.is_folder and not self._objects.has(digest))
            if is_lost and self._lies_there(path, digest, saver):
                saver.save(path)
                taken.append(digest.md5)
        return taken

    def _lies_there(self, path: str, digest: FileDigest, saver: Saver) -> bool:
        try:
            return saver.save(path, store=False).digest.md5 == digest.md5
        except MlstackError:  # nothing, or nothing that can be read
            return False

    def push_objects(self, md5s: Sequence[str], *, say: Say) -> "Moved":
        """Copy objects into the remote, those of folders with their files; what fails is in the answer."""
        from mlstack.drivers.dvc.transfer import push

        remote = self.require()
        with self._moving:
            return push(remote, self._objects, md5s, progress=speaking(say, "pushed"), stop=self._stop)

    # ------------------------------------------------------------------------------------------------ run-cache

    def push_runs(self, entries: Sequence[str]) -> int:
        """Copy entries of the run-cache (`ab/<key>/<value>`) into the remote; return how many were not there."""
        from mlstack.drivers.dvc.run_cache import push_runs

        return push_runs(self.require(), self._objects, entries)

    def push_runs_of(self, key: str) -> int:
        """Copy the entries of one key of the run-cache into the remote; return how many were not there."""
        from mlstack.drivers.dvc.run_cache import local_runs

        return self.push_runs(local_runs(self._objects, key))

    def push_record(self, key: str, entry: LockEntry) -> None:
        """Copy what is said of a result into the remote: its entries of the run-cache (of one key), its provenance."""
        self.push_runs_of(key)
        self.push_statements(provenance_folders([entry]))

    def push_statements(self, folders: Sequence[str]) -> int:
        """Copy provenance (of `provenance_folders`) into the remote; return how many files were not there."""
        from mlstack.drivers.dvc.statements_transfer import push_statements

        return push_statements(self.require(), Statements(self._settings), folders) if folders else 0

    def fetch_statements(self, folders: Sequence[str]) -> int:
        """Bring provenance (of `provenance_folders`) into the cache; return how many files were not here."""
        from mlstack.drivers.dvc.statements_transfer import fetch_statements

        return fetch_statements(self.require(), Statements(self._settings), folders) if folders else 0

    def fetch_runs(self, keys: Sequence[str] | None = None) -> int:
        """Bring entries of the remote's run-cache (of these keys; None: all) here; return how many were not here."""
        from mlstack.drivers.dvc.run_cache import fetch_runs

        saver = Saver(self._root, self._settings, self._objects)
        return fetch_runs(self.require(), saver, self._objects, keys)

    # ------------------------------------------------------------------------------------------------ words

    def explain_missing(self, still: Mapping[str, FileDigest], moved: "Moved") -> Diagnostic:
        """Say what could not be had and why, each with the commit that brought it."""
        remote = self.require()
        names = self._names({digest.md5: path for path, digest in still.items()})
        reasons = []
        if moved.damaged:
            reasons.append(f"What the remote holds is not what its name says: {_listed(names, moved.damaged)}.")
        if moved.failed:
            md5, reason = next(iter(moved.failed.items()))
            reasons.append(f"{len(moved.failed)} could not be fetched ({_name(names, md5)}: {reason}).")
        inside = [md5 for md5 in moved.absent if names.get(md5, ("", md5))[1] != md5]
        if inside:
            reasons.append(f"Of folders, {_listed(names, inside)} is not there.")
        for path, digest in sorted(still.items())[:_NAMED]:
            brought = commit_of(self._root, digest.md5)
            if brought:
                reasons.append(f"{path} came with commit {brought}.")
        return not_to_be_had(still, remote=remote.name, detail=" ".join(reasons))

    def explain_unpushed(self, moved: "Moved", recorded: Mapping[str, str]) -> Diagnostic:
        """Say what did not get into the remote and why. `recorded`: hash → path of what was to be pushed."""
        names = self._names(recorded)
        lines = []
        if moved.failed:
            md5, reason = next(iter(moved.failed.items()))
            lines.append(f"{len(moved.failed)} could not be written ({_name(names, md5)}: {reason}).")
        if moved.damaged:
            lines.append(f"Damaged in DVC's cache, so not pushed: {_listed(names, moved.damaged)}.")
        for md5 in moved.absent[:_NAMED]:
            brought = commit_of(self._root, names.get(md5, ("", md5))[1])
            came = f", came with commit {brought}" if brought else ""
            lines.append(f"{_name(names, md5)} ({md5[:12]}) is neither in DVC's cache nor in the remote{came}.")
        if len(moved.absent) > _NAMED:
            lines.append(f"And {len(moved.absent) - _NAMED} more.")
        done = f" {len(moved.moved)} objects were pushed before." if moved.moved else ""
        return Diagnostic(
            code="push-incomplete",
            summary="Not everything is in the remote",
            detail=f"{self.require().name}: {' '.join(lines)}{done}",
            hint="What is recorded stays recorded. Push again, here or from the machine that has it; "
            "what is there already is not moved again.",
            command="mlstack push",
        )

    def _names(self, recorded: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Return hash → (path, recorded hash): a file of a folder has a path and is recorded as the folder."""
        found = {md5: (path, md5) for md5, path in recorded.items()}
        for folder, path in recorded.items():
            if folder.endswith(DIR_SUFFIX):
                tree = self._objects.tree(folder) or parse_tree(self.require().read(folder) or b"")
                for entry in tree or ():
                    found.setdefault(entry.md5, (f"{path}/{entry.relpath}", folder))
        return found


def speaking(say: Say, did: str, *, clock: Callable[[], float] = time.monotonic) -> "Progress":
    """Return a progress that says a line a second, the first after a second."""
    from mlstack.drivers.dvc.transfer import Progress

    said_at = clock()

    def show(done: int, of: int, size: int) -> None:
        nonlocal said_at
        if clock() - said_at >= _SPEAK_EVERY:
            said_at = clock()
            say(f"{did} {done} of {of} objects, {human_size(size)}")

    return Progress(show)


def human_size(size: float) -> str:
    """Return `12.3 MiB`."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def no_remote() -> Diagnostic:
    """Say that the project has no remote."""
    return Diagnostic(
        code="no-remote",
        summary="The project has no remote",
        detail="Neither does mlstack.yaml say `remote:`, nor does DVC have a default remote.",
        hint="Name a place that others reach too as `remote:` in mlstack.yaml: a bucket (s3://…, gs://…, azure://…), "
        "a server (ssh://…) or a folder.",
    )


def _name(names: Mapping[str, tuple[str, str]], md5: str) -> str:
    return names[md5][0] if md5 in names else md5[:12]


def _listed(names: Mapping[str, tuple[str, str]], md5s: Sequence[str]) -> str:
    return _names([_name(names, md5) for md5 in md5s])


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
