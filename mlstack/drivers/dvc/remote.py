"""One remote, asked through DVC's own library: what is there, small contents, removing. Moving contents: `transfer.py`.

DVC's library knows the places (s3, gs, azure, ssh, http, folders), their settings and credentials; the layout is DVC's
(`files/md5/ab/cdef…`, `runs/ab/<key>/<value>`). Its index of what a remote once held is left out: every question is
asked of the remote itself.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from hashlib import md5 as new_md5
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.entries import is_hash
from mlstack.drivers.dvc.objects import DIR_SUFFIX
from mlstack.drivers.dvc.remote_place import RemotePlace
from mlstack.drivers.dvc.settings import DvcSettings

_ONE_BY_ONE = 256
_LISTED_TOGETHER = 16
_DELETED_TOGETHER = 500
_ORDER = threading.Lock()  # DVC's configuration and registry of file systems are not made for threads


class Held(msgspec.Struct, frozen=True):
    """An object in a remote: its size in bytes, and when it came there (seconds since the epoch; 0: unknown)."""

    size: int
    modified: float = 0.0


class Remote:
    """An open remote. Every method raises `MlstackError` (`remote-unreachable`) when it cannot be asked."""

    def __init__(self, place: RemotePlace, odb: Any, path: str) -> None:
        self.place = place
        self.odb = odb
        self.fs = odb.fs
        self.path = path
        self.is_local = self.fs.protocol == "local"
        self.jobs = max(1, int(self.fs.jobs))

    @property
    def name(self) -> str:
        """What people know it by."""
        return self.place.url

    def path_of(self, md5: str) -> str:
        """Return where the object of a hash lies in this remote."""
        return str(self.odb.oid_to_path(md5))

    # ------------------------------------------------------------------------------------------------ what is there

    def held(self, md5s: Iterable[str], *, may_be_new: bool = False) -> dict[str, Held]:
        """Return those of these objects that are there. Many are looked up by listing, a few one by one.

        A folder or bucket that does not exist is an error, unless it `may_be_new`: writing makes it.
        """
        wanted = list(dict.fromkeys(md5s))
        with self._explained():
            self._forget_listings()
            if self.is_local or len(wanted) <= _ONE_BY_ONE or not self.fs.CAN_TRAVERSE:
                found = self._ask(wanted)
            else:
                keep = set(wanted)
                found = {md5: held for md5, held in self._list({md5[:2] for md5 in wanted}) if md5 in keep}
            if wanted and not found and not may_be_new:
                self._require_root()
        return found

    def require(self) -> None:
        """Raise `MlstackError` if this remote does not exist at all."""
        with self._explained():
            self._require_root()

    def listed(self) -> dict[str, Held]:
        """Return every object that is there."""
        with self._explained():
            self._forget_listings()
            self._require_root()
            return dict(self._list({f"{number:02x}" for number in range(256)}))

    def _ask(self, md5s: Sequence[str]) -> dict[str, Held]:
        paths = [self.path_of(md5) for md5 in md5s]
        answers = self.fs.info(paths, return_exceptions=True) if paths else []
        found: dict[str, Held] = {}
        for md5, answer in zip(md5s, answers, strict=True):
            if isinstance(answer, FileNotFoundError | NotADirectoryError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            if answer.get("type") != "directory":
                found[md5] = held_in(answer)
        return found

    def _list(self, heads: Iterable[str]) -> Iterator[tuple[str, Held]]:
        with ThreadPoolExecutor(min(_LISTED_TOGETHER, self.jobs)) as pool:
            for head, entries in pool.map(self._list_head, sorted(heads)):
                for entry in entries:
                    md5 = head + str(entry["name"]).rstrip("/").rpartition("/")[2]
                    if is_hash(md5):
                        yield md5, held_in(entry)

    def _list_head(self, head: str) -> tuple[str, list[dict[str, Any]]]:
        try:
            return head, list(self.fs.ls(self.fs.join(self.odb.path, head), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return head, []

    def _require_root(self) -> None:
        """Tell an empty remote from one that is not there: a disk that is not mounted, a bucket with a typing error."""
        if self.is_local:
            if not os.path.isdir(self.path):  # noqa: PTH112
                raise FileNotFoundError(f"there is no folder {self.path}")
        elif self.fs.CAN_TRAVERSE and self.place.scheme in ("s3", "gs", "azure"):
            bucket = self.path.strip("/").partition("/")[0]
            try:
                self.fs.ls(bucket, detail=False)
            except FileNotFoundError:
                raise FileNotFoundError(f"there is no bucket {bucket}") from None
            except PermissionError:
                return  # it may be that only a part of the bucket can be listed

    def read(self, md5: str) -> bytes | None:
        """Return a small content by its hash; None if it is not there, or is not what its name says."""
        with self._explained():
            try:
                content = bytes(self.fs.cat_file(self.path_of(md5)))
            except FileNotFoundError:
                return None
        is_right = new_md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(DIR_SUFFIX)
        return content if is_right else None

    def read_many(self, md5s: Sequence[str]) -> dict[str, bytes]:
        """Return the small contents that are there and are what their names say."""
        with ThreadPoolExecutor(min(_LISTED_TOGETHER, self.jobs)) as pool:
            return {md5: found for md5, found in zip(md5s, pool.map(self.read, md5s), strict=True) if found is not None}

    # ------------------------------------------------------------------------------------------------ run-cache

    def runs(self, key: str | None = None) -> list[str]:
        """Return the run-cache's entries, as paths `ab/<key>/<value>`; of one key or of all."""
        top = self.fs.join(self.path, "runs", *((key[:2], key) if key else ()))
        with self._explained():
            self._forget_listings()
            try:
                found = [str(path) for path in self.fs.find(top)]
            except (FileNotFoundError, NotADirectoryError):
                return []
        parts = (tuple(path.replace(os.sep, "/").split("/")[-3:]) for path in found)
        return sorted("/".join(part) for part in parts if len(part) == 3 and all(is_run_part(name) for name in part))

    def results_for(self, keys: Sequence[str]) -> dict[str, tuple[bytes, ...]]:
        """Return the texts of the run-cache's entries for each of these keys."""
        if not keys:
            return {}
        with ThreadPoolExecutor(min(_LISTED_TOGETHER, self.jobs)) as pool:
            return dict(zip(keys, pool.map(self._results, keys), strict=True))

    def _results(self, key: str) -> tuple[bytes, ...]:
        found = (self.read_run(entry) for entry in self.runs(key))
        return tuple(text for text in found if text is not None)

    def read_run(self, entry: str) -> bytes | None:
        """Return the text of an entry of the run-cache; None if it is not there."""
        with self._explained():
            try:
                return bytes(self.fs.cat_file(self.fs.join(self.path, "runs", *entry.split("/"))))
            except FileNotFoundError:
                return None

    # ------------------------------------------------------------------------------------------------ removing

    def delete(self, md5s: Sequence[str], *, on_progress: Callable[[int], None] = lambda _: None) -> None:
        """Remove objects: listings of folders first, so that none is left without its files."""
        ordered = sorted(md5s, key=lambda md5: not md5.endswith(DIR_SUFFIX))
        with self._explained():
            for start in range(0, len(ordered), _DELETED_TOGETHER):
                part = ordered[start : start + _DELETED_TOGETHER]
                self.fs.remove([self.path_of(md5) for md5 in part])
                on_progress(start + len(part))

    def _forget_listings(self) -> None:
        self.fs.fs.invalidate_cache()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self.place):
            yield


def open_remote(place: RemotePlace, settings: DvcSettings, *, more: Mapping[str, str | int] | None = None) -> Remote:
    """Open a remote with DVC's settings for it; `more` are settings where DVC's configuration has none.

    Raises `MlstackError` when DVC cannot open it.
    """
    with explained(place), _ORDER:
        from dvc.config import Config
        from dvc.fs import get_cloud_fs
        from dvc_data.hashfile import db

        make_odb: Any = db.get_odb
        known = settings.remotes.get(place.name, {})
        given = {key: value for key, value in (more or {}).items() if key not in known}
        laid_over = {"remote": {place.name: {**given, **({} if place.defined else {"url": place.url})}}}
        folder = str(settings.folder) if settings.folder.is_dir() else None
        config = Config(folder, config=laid_over)
        make, options, path = get_cloud_fs(config, name=place.name)
        if options.get("worktree") or options.get("version_aware"):
            raise MlstackError(_versioned(place))
        fs = make(**options)
        odb = make_odb(fs, fs.join(path, "files", "md5"), hash_name="md5")
        return Remote(place, odb, str(path))


@contextmanager
def explained(place: RemotePlace) -> Iterator[None]:
    """Turn whatever a library behind a remote raises into one diagnostic. Ctrl-C and exits go through."""
    try:
        yield
    except MlstackError:
        raise
    except ImportError as error:
        raise MlstackError(_not_installed(place, reason_of(error))) from error
    except Exception as error:  # each of the libraries (botocore, paramiko, …) has its own exceptions
        raise MlstackError(unreachable(place, reason_of(error))) from error


def reason_of(error: BaseException) -> str:
    """Return what a library said, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    missing = getattr(error, "missing", None)
    if missing is not None or type(error).__name__ == "RemoteMissingDepsError":
        text = f"a package is missing. {text}"
    return text[:500]


def unreachable(place: RemotePlace, reason: str) -> Diagnostic:
    """Say that a remote cannot be asked."""
    return Diagnostic(
        code="remote-unreachable",
        summary="DVC's remote cannot be asked",
        detail=f"{place.url}: {reason}",
        hint="Look at its place, its settings and your credentials. This is what DVC itself says:",
        command=f"dvc status --cloud --remote {place.name}" if place.defined else "dvc status --cloud",
    )


def _not_installed(place: RemotePlace, reason: str) -> Diagnostic:
    known = place.scheme in ("s3", "gs", "azure", "ssh")  # what pyproject.toml has extras for
    return Diagnostic(
        code="remote-not-installed",
        summary="What this kind of remote needs is not installed",
        detail=f"{place.url}: {reason}.",
        hint="Install it beside mlstack:",
        command=f"pip install 'mlstack[{place.scheme}]'" if known else f"pip install 'dvc[{place.scheme}]'",
    )


def is_run_part(name: str) -> bool:
    """Whether a name is one of those that entries of the run-cache are made of."""
    return len(name) in (2, 64) and all(letter in "0123456789abcdef" for letter in name)


def held_in(entry: Mapping[str, Any]) -> Held:
    """Return what a file system's entry says of an object; each names the time in its own way."""
    when = entry.get("LastModified") or entry.get("last_modified") or entry.get("mtime") or entry.get("updated") or 0.0
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            when = 0.0
    modified = when.timestamp() if isinstance(when, datetime) else float(when)
    return Held(int(entry.get("size") or 0), modified)


def _versioned(place: RemotePlace) -> Diagnostic:
    return Diagnostic(
        code="remote-versioned",
        summary="A remote with `worktree` or `version_aware` is not supported",
        detail=f"{place.url} ({place.name}) keeps files under their own names; mlstack finds contents by hash.",
        hint="Name another remote, one without these settings, as `remote:` in mlstack.yaml.",
    )
