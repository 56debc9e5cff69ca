"""Datasets with a source: fetched once, pinned in `mlstack.lock`."""

from collections.abc import Callable
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.fetch import Fetched, fetch_source
from mlstack.drivers.dvc.saving import hash_file
from mlstack.graph.digest import Digester
from mlstack.graph.graph import ResourceGraph
from mlstack.graph.lock import ProjectLock, SourcePin, desired_lock, pin_source, read_lock, write_lock
from mlstack.graph.sources import FileDigest
from mlstack.spec.spec import Dataset

FETCH_FOLDER = ".mlstack/fetch"


class DatasetAdder:
    """Fetches sources and holds what comes against the pins."""

    def __init__(self, root: Path, graph: ResourceGraph, *, cache_folder: Path | None = None) -> None:
        self._root, self._graph, self._cache_folder = root, graph, cache_folder
        self._fetched: Fetched | None = None

    def fetch(self, dataset: Dataset, *, is_here: Callable[[str, FileDigest], bool], say: Say) -> Path | None:
        """Fetch a source into a temporary place and return that; None when the pinned content is here already.

        Raises `MlstackError` (`source-changed`) when the source gives other content than the pin says.
        """
        source = dataset.source or ""
        pin = self._pin_of(dataset)
        pinned = pin.digest() if pin is not None else None
        if pinned is not None and is_here(dataset.path, pinned):
            return None
        folder = self._root / FETCH_FOLDER
        fetched = fetch_source(source, folder, root=self._root, address=dataset.address, say=say)
        if pinned is not None:
            found = self._md5_of(fetched.path)
            if found != pinned.md5:
                fetched.discard()
                raise MlstackError(_changed(dataset, pinned.md5, found))
        self._fetched = fetched
        return fetched.path

    def pin(self, dataset: Dataset, digest: FileDigest) -> None:
        """Write the pin of a fetched source into `mlstack.lock`."""
        if dataset.source is None:
            return
        lock = self._lock()
        known = lock.sources.get(dataset.address)
        if known is not None and known.url == dataset.source and known.md5 == digest.md5:
            return
        fetched = self._fetched
        write_lock(
            self._root,
            pin_source(
                lock,
                dataset.address,
                url=dataset.source,
                digest=digest,
                etag=fetched.etag if fetched else None,
                version_id=fetched.version_id if fetched else None,
            ),
        )

    def _lock(self) -> ProjectLock:
        return desired_lock(self._graph, read_lock(self._root, project=self._graph.spec.project))

    def _pin_of(self, dataset: Dataset) -> SourcePin | None:
        pin = self._lock().sources.get(dataset.address)
        return pin if pin is not None and pin.url == dataset.source else None

    def _md5_of(self, path: Path) -> str:
        if path.is_dir():
            digest = Digester(self._root).digest(path.relative_to(self._root).as_posix())
            return digest.md5 if digest else ""
        return hash_file(str(path))


def _changed(dataset: Dataset, pinned: str, found: str) -> Diagnostic:
    return Diagnostic(
        code="source-changed",
        summary="The source gives other content than is pinned",
        detail=f"{dataset.source} had the content {pinned} when it was pinned, and has {found} now. "
        "Nothing was replaced.",
        hint="If the new content is wanted, pin it; every stage that uses it will run again.",
        command=f"mlstack lock --upgrade {dataset.address}",
        address=dataset.address,
    )
