"""Fetching objects from DVC's remote, with the DVC library."""

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.sources import FileDigest

_guard = Lock()


def fetch_objects(top: Path, digests: Iterable[FileDigest]) -> str:
    """Copy what the default remote has of these contents into the cache; return what went wrong, if anything.

    Raises `MlstackError` when the remote cannot be asked at all.
    """
    with _guard:  # DVC's library is not made for threads
        try:
            from dvc.exceptions import DvcException
            from dvc.repo import Repo
            from dvc_data.hashfile.hash_info import HashInfo
        except ImportError as error:  # pragma: no cover - dvc is a dependency of mlstack
            raise MlstackError(_unreachable(str(error))) from error
        wanted = {HashInfo("md5", digest.md5) for digest in digests}
        repository: Any = Repo(str(top))
        try:
            result = repository.cloud.pull(wanted)
        except (DvcException, OSError) as error:
            raise MlstackError(_unreachable(str(error))) from error
        finally:
            repository.close()
    failed = getattr(result, "failed", ())
    return f"{len(failed)} objects could not be fetched." if failed else ""


def _unreachable(reason: str) -> Diagnostic:
    return Diagnostic(
        code="remote-unreachable",
        summary="DVC's remote cannot be asked",
        detail=reason,
        hint="See whether DVC itself can fetch from it.",
        command="dvc pull",
    )
