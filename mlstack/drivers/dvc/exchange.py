"""`mlstack push` and `pull`: everything that is recorded, or what some addresses need, to the remote and from it."""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.configure import configure_remote
from mlstack.drivers.dvc.contents import Contents, recorded_contents
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.run_cache import contents_of, local_runs, read_local_run
from mlstack.drivers.dvc.settings import read_settings
from mlstack.drivers.dvc.sharing import Sharing, no_remote
from mlstack.drivers.dvc.store import DvcResults
from mlstack.graph.digest import Digester
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did. `moved`, `there` and `runs` count objects and entries of the run-cache, `size` is in bytes."""

    remote: str
    moved: int = 0
    size: int = 0
    there: int = 0
    runs: int = 0
    problem: Diagnostic | None = None


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull did. `restored` are the paths that were put into the workspace, `missing` those that nobody has."""

    remote: str | None
    moved: int = 0
    size: int = 0
    runs: int = 0
    restored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: Diagnostic | None = None
    notices: tuple[Diagnostic, ...] = ()


class Exchange:
    """The remote of one project and what goes there. Raises `MlstackError` where it cannot be asked."""

    def __init__(self, graph: ResourceGraph, *, root: Path, cache_folder: Path | None = None) -> None:
        self._graph, self._root, self._cache_folder = graph, root, cache_folder
        self._settings = read_settings(root)
        self._objects = Objects(self._settings.cache)
        self.sharing = Sharing(root, self._settings, self._objects, declared=graph.spec.remote)

    def configure(self) -> list[str]:
        """Let DVC know the remote of the file; return what was done, a sentence each."""
        return configure_remote(self._graph.spec.remote, self._settings, self._root)

    def push(self, addresses: Iterable[Address] | None = None, *, run_cache: bool = False, say: Say) -> Pushed:
        """Copy what is recorded for these addresses and all that they need (None: everything) into the remote.

        With `run_cache`, also every entry of the run-cache whose contents are here, its contents first.
        """
        contents = self._contents(addresses)
        remote = self.sharing.require().name
        entries = self._entries() if run_cache else {}
        of_runs = [md5 for names in entries.values() for md5 in names]
        moved = self.sharing.push_contents(contents.digests, of_runs, say=say)
        names = {digest.md5: path for path, digest in contents.digests.items()}
        lost = {*moved.failed, *moved.damaged, *moved.absent}
        self.sharing.push_statements(contents.provenance())
        runs = self.sharing.push_runs([entry for entry, outs in entries.items() if not lost.intersection(outs)])
        return Pushed(
            remote=remote,
            moved=len(moved.moved),
            size=moved.size,
            there=moved.there,
            runs=runs,
            problem=None if moved.complete else self.sharing.explain_unpushed(moved, names),
        )

    def pull(
        self,
        addresses: Iterable[Address] | None = None,
        *,
        paths: Container[str] | None = None,
        run_cache: bool = False,
        say: Say,
    ) -> Pulled:
        """Bring what is recorded for these addresses and all that they need (None: everything) into the workspace.

        With `paths`, only what belongs there. What can be had is brought, also when something else is missing: that is
        named in `problem`.
        """
        contents = self._contents(addresses)
        recorded = contents.digests
        chosen = {path: digest for path, digest in recorded.items() if paths is None or path in paths}
        place = self.sharing.place
        store = DvcResults(self._root, self._graph, cache_folder=self._cache_folder)
        wanted = {path: digest for path, digest in chosen.items() if not store.holds(path, digest)}
        absent = {path: digest for path, digest in wanted.items() if not self._objects.has(digest)}
        moved = None
        if absent and place is not None:
            md5s = [digest.md5 for digest in absent.values()]
            moved = self.sharing.fetch_objects(md5s, say=say, sizes=absent.values())
        still = {path: digest for path, digest in absent.items() if not self._objects.has(digest)}
        store.bring({path: digest for path, digest in wanted.items() if path not in still}, say=say)
        if place is not None and paths is None:
            self.sharing.fetch_statements(contents.provenance())
        problem: Diagnostic | None = None
        if still:
            problem = self.sharing.explain_missing(still, moved) if moved is not None else no_remote()
        return Pulled(
            remote=place.url if place is not None else None,
            moved=len(moved.moved) if moved is not None else 0,
            size=moved.size if moved is not None else 0,
            runs=self.sharing.fetch_runs() if run_cache else 0,
            restored=tuple(sorted(wanted.keys() - still.keys())),
            missing=tuple(sorted(still)),
            problem=problem,
            notices=tuple(store.notices),
        )

    def missing_in_workspace(self, addresses: Sequence[Address] | None = None) -> dict[str, FileDigest]:
        """Return what is recorded and has nothing at its path (path → digest)."""
        recorded = self._contents(addresses).digests
        return {path: digest for path, digest in recorded.items() if not (self._root / path).exists()}

    def bring_back(self, *, say: Say) -> tuple[str, ...]:
        """Put recorded results where other results lie, as `mlstack run` leaves them; return their paths.

        Only what the cache has, over what it has too: nothing is fetched, and what somebody wrote by hand stays.
        """
        store = DvcResults(self._root, self._graph, cache_folder=self._cache_folder)
        outs = [out for entry in self._contents(None).entries.values() for out in entry.outs]
        hashes = HashCache(self._cache_folder / "digests" if self._cache_folder else None)
        digester = Digester(self._root, cache=hashes)
        wanted = {out.path: out.digest for out in outs if self._is_replaced(out.path, out.digest, digester)}
        hashes.save()  # else every apply would read every large output again
        store.bring(wanted, say=say)
        return tuple(sorted(wanted))

    def _is_replaced(self, path: str, digest: FileDigest, digester: Digester) -> bool:
        try:
            present = digester.digest(path)
        except MlstackError:  # nothing that was made here: something leads out, or cannot be read
            return False
        if present is None or present.md5 == digest.md5:
            return False
        return self._objects.has(present) and self._objects.has(digest)

    def _contents(self, addresses: Iterable[Address] | None) -> Contents:
        return recorded_contents(self._graph, root=self._root, addresses=addresses, cache_folder=self._cache_folder)

    def _entries(self) -> dict[str, list[str]]:
        """Return the entries of the run-cache whose outputs are all here, with the hashes of these."""
        found = {entry: contents_of(read_local_run(self._objects, entry)) for entry in local_runs(self._objects)}
        return {
            entry: outs
            for entry, outs in found.items()
            if outs and all(self._objects.find(md5) is not None for md5 in outs)
        }
