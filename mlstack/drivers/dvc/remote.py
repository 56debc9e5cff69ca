"""Fetching objects from DVC's remote, with the DVC library."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects
from mlstack.graph.sources import FileDigest

_guard = Lock()


def fetch_objects(top: Path, objects: Objects, digests: Iterable[FileDigest]) -> str:
    """Copy what the default remote has of these contents into the cache; return what went wrong, if anything.

    Folders take two rounds: their listings, then the files that these name.

    Raises `MlstackError` when the remote cannot be asked at all.
    """
    with _guard:  # DVC's library is not made for threads
        try:
            from dvc.exceptions import DvcException
            from dvc.repo import Repo
            from dvc_data.hashfile.hash_info import HashInfo
        except ImportError as error:  # pragma: no cover - dvc is a dependency of mlstack
            raise MlstackError(_unreachable(str(error))) from error
        wanted = {digest.md5 for digest in digests}
        repository: Any = Repo(str(top))
        try:
            failed = set(repository.cloud.pull({HashInfo("md5", md5) for md5 in wanted}).failed)
            inside = objects.missing(_files_of(objects, wanted))
            if inside:
                failed |= set(repository.cloud.pull({HashInfo("md5", md5) for md5 in inside}).failed)
        except (DvcException, OSError) as error:
            raise MlstackError(_unreachable(str(error))) from error
        finally:
            repository.close()
    return f"{len(failed)} objects could not be fetched." if failed else ""


def _files_of(objects: Objects, md5s: Iterable[str]) -> Iterator[str]:
    for md5 in md5s:
        if md5.endswith(DIR_SUFFIX):
            objects.forget(md5)
            yield from (entry.md5 for entry in objects.tree(md5) or ())


def _unreachable(reason: str) -> Diagnostic:
    return Diagnostic(
        code="remote-unreachable",
        summary="DVC's remote cannot be asked",
        detail=reason,
        hint="See whether DVC itself can fetch from it.",
        command="dvc pull",
    )
