"""Moving contents between DVC's cache and a remote, in DVC's layout and through DVC's library.

1. Nothing gets a name in the cache before its bytes were hashed: what a remote holds is not believed.
2. A folder's listing follows its files, in both directions, so that a listing always stands for a whole folder.
3. What is there already, with its size, is not moved again: a transfer that was cut off goes on where it stopped.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Event as StopFlag
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.objects import DIR_SUFFIX, Objects, parse_tree
from mlstack.drivers.dvc.remote import Remote, explained, reason_of
from mlstack.drivers.dvc.saving import OBJECT_MODE, hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOGETHER = 128  # objects after which what arrived is checked and named
_LOCAL_JOBS = 4
_OLD = 24 * 3600.0  # seconds after which what a killed transfer left belongs to nobody
_INCOMING = "mlstack-incoming"
_counter = count()


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a transfer. `failed` and `damaged` are hashes with the reason; `absent` are in neither place."""

    moved: tuple[str, ...] = ()
    size: int = 0
    there: int = 0
    absent: tuple[str, ...] = ()
    failed: dict[str, str] = {}
    damaged: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is there now."""
        return not (self.absent or self.failed or self.damaged)


class Progress:
    """Counts what has moved; `show(objects, of, bytes)` is called from any thread, and decides how often to speak."""

    def __init__(self, show: Callable[[int, int, int], None]) -> None:
        self._show, self._lock = show, Lock()
        self._done = self._of = self._bytes = 0

    def expect(self, objects: int) -> None:
        """Say that so many objects more are to be moved."""
        with self._lock:
            self._of += objects

    def add(self, *, objects: int = 0, size: int = 0) -> None:
        """Count what has arrived."""
        with self._lock:
            self._done += objects
            self._bytes += size
            numbers = (self._done, self._of, self._bytes)
        self._show(*numbers)


def quiet() -> Progress:
    """Return a progress that says nothing."""
    return Progress(lambda _done, _of, _size: None)


def fetch(
    remote: Remote,
    objects: Objects,
    md5s: Iterable[str],
    *,
    progress: Progress | None = None,
    stop: StopFlag | None = None,
) -> Moved:
    """Copy these objects, and the files of those that are folders, into the cache, as far as they are not there.

    Raises `MlstackError` when the remote cannot be asked, or the cache cannot be written.
    """
    mover = _Fetch(remote, objects, progress or quiet(), stop)
    wanted = list(dict.fromkeys(md5s))
    with _incoming(objects) as folder:
        folders = [md5 for md5 in wanted if md5.endswith(DIR_SUFFIX)]
        mover.take(folder, [md5 for md5 in folders if objects.tree(md5) is None])
        for md5 in folders:
            objects.forget(md5)
        inside = [entry.md5 for md5 in folders for entry in objects.tree(md5) or ()]
        files = [md5 for md5 in wanted if not md5.endswith(DIR_SUFFIX)]
        mover.take(folder, objects.missing([*files, *inside]))
    moved = mover.result()
    if moved.absent and not moved.moved:
        remote.require()  # it may be that nothing is there because the remote is not
    return moved


class _Fetch:
    def __init__(self, remote: Remote, objects: Objects, progress: Progress, stop: StopFlag | None) -> None:
        self._remote, self._objects, self._progress, self._stop = remote, objects, progress, stop
        self._moved: list[str] = []
        self._absent: list[str] = []
        self._damaged: list[str] = []
        self._failed: dict[str, str] = {}
        self._size = 0

    def take(self, folder: Path, md5s: Sequence[str]) -> None:
        self._progress.expect(len(md5s))
        for start in range(0, len(md5s), _TOGETHER):
            if self._stop is not None and self._stop.is_set():
                self._failed |= dict.fromkeys(md5s[start:], "stopped")
                return
            self._take_some(folder, md5s[start : start + _TOGETHER])

    def _take_some(self, folder: Path, md5s: Sequence[str]) -> None:
        places = {md5: str(folder / md5) for md5 in md5s}
        refused = _copy_in(self._remote, places, self._progress)
        for md5, place in places.items():
            error = refused.get(md5)
            if isinstance(error, FileNotFoundError):
                self._absent.append(md5)
            elif error is not None:
                self._failed[md5] = reason_of(error)
            elif not os.path.exists(place):  # noqa: PTH110
                self._absent.append(md5)
            else:
                self._name(md5, place)

    def _name(self, md5: str, place: str) -> None:
        if hash_file(place) != md5.removesuffix(DIR_SUFFIX):
            Path(place).unlink()
            self._damaged.append(md5)
            return
        target = Path(self._objects.path_of(md5))
        Path(place).chmod(OBJECT_MODE)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._size += Path(place).stat().st_size
        Path(place).replace(target)
        self._moved.append(md5)
        self._progress.add(objects=1)

    def result(self) -> Moved:
        return Moved(
            moved=tuple(self._moved),
            size=self._size,
            absent=tuple(self._absent),
            failed=self._failed,
            damaged=tuple(self._damaged),
        )


def push(
    remote: Remote,
    objects: Objects,
    md5s: Iterable[str],
    *,
    progress: Progress | None = None,
    stop: StopFlag | None = None,
) -> Moved:
    """Copy these objects, and the files of those that are folders, into the remote, as far as they are not there.

    `absent` are those that neither the cache nor the remote has. Raises `MlstackError` when the remote cannot be asked.
    """
    progress = progress or quiet()
    wanted, unlisted = with_files(remote, objects, md5s)
    held = remote.held(wanted, may_be_new=True)
    here: dict[str, str] = {}
    absent = [md5 for md5 in unlisted if md5 not in held]
    for md5 in wanted:
        found = objects.find(md5)
        if found is None:
            if md5 not in held and md5 not in absent:
                absent.append(md5)
        elif md5 not in held or held[md5].size != os.stat(found).st_size:  # noqa: PTH116
            here[md5] = found
    damaged = [md5 for md5, place in here.items() if not _is_sound(md5, place)]
    for md5 in damaged:
        del here[md5]
    progress.expect(len(here))
    files = {md5: place for md5, place in here.items() if not md5.endswith(DIR_SUFFIX)}
    failed = _copy_out(remote, files, progress, stop)
    broken = {*failed, *absent, *damaged}
    folders = {
        md5: place
        for md5, place in here.items()
        if md5.endswith(DIR_SUFFIX) and not broken.intersection(entry.md5 for entry in objects.tree(md5) or ())
    }
    held_back = [md5 for md5 in here if md5.endswith(DIR_SUFFIX) and md5 not in folders]
    failed |= _copy_out(remote, folders, progress, stop)
    failed |= dict.fromkeys(held_back, "not all of its files are in the remote")
    moved = [md5 for md5 in here if md5 not in failed]
    return Moved(
        moved=tuple(moved),
        size=sum(os.stat(here[md5]).st_size for md5 in moved),  # noqa: PTH116
        there=len(wanted) - len(here) - len(absent) - len(damaged),
        absent=tuple(absent),
        failed=failed,
        damaged=tuple(damaged),
    )


def with_files(remote: Remote | None, objects: Objects, md5s: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return these objects and the files of those that are folders; and the folders whose listing nobody has."""
    wanted = list(dict.fromkeys(md5s))
    folders = [md5 for md5 in wanted if md5.endswith(DIR_SUFFIX)]
    elsewhere = [md5 for md5 in folders if objects.tree(md5) is None]
    read = remote.read_many(elsewhere) if remote is not None and elsewhere else {}
    inside: list[str] = []
    unlisted: list[str] = []
    for md5 in folders:
        tree = objects.tree(md5)
        if tree is None and md5 in read:
            tree = parse_tree(read[md5])
        if tree is None:
            unlisted.append(md5)
        else:
            inside += (entry.md5 for entry in tree)
    return list(dict.fromkeys([*wanted, *inside])), unlisted


def _is_sound(md5: str, place: str) -> bool:
    """Whether an object of the cache is what its name says; one that is marked as checked is believed, as in DVC."""
    try:
        is_checked = os.stat(place).st_mode & 0o777 == OBJECT_MODE  # noqa: PTH116
        return is_checked or hash_file(place) == md5.removesuffix(DIR_SUFFIX)
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------------- copying


def _copy_in(remote: Remote, places: Mapping[str, str], progress: Progress) -> dict[str, BaseException]:
    """Download to these places; return what was refused, by hash."""
    from dvc_objects.fs import generic
    from dvc_objects.fs.local import localfs

    names = {place: md5 for md5, place in places.items()}
    refused: dict[str, BaseException] = {}

    def on_error(_source: str, target: str, error: BaseException) -> None:
        refused[names[target]] = error

    def copy(md5s: Sequence[str]) -> None:
        generic.copy(
            remote.fs,
            [remote.path_of(md5) for md5 in md5s],
            localfs,
            [places[md5] for md5 in md5s],
            callback=_bytes_of(progress),
            batch_size=remote.jobs,
            on_error=on_error,
        )

    with explained(remote.place):
        side_by_side(remote, list(places), copy)
    return refused


def _copy_out(remote: Remote, places: Mapping[str, str], progress: Progress, stop: StopFlag | None) -> dict[str, str]:
    """Upload from these places; return the reasons of what failed, by hash.

    When nothing of a whole part could be written, the rest is not tried: a full disk or a missing right fails for all.
    """
    from dvc_objects.fs.local import localfs

    failed: dict[str, str] = {}

    def on_error(md5: str, error: BaseException) -> None:
        failed[md5] = reason_of(error)

    def copy(md5s: Sequence[str]) -> None:
        remote.odb.add(
            [places[md5] for md5 in md5s],
            localfs,
            list(md5s),
            check_exists=False,
            callback=_bytes_of(progress),
            batch_size=remote.jobs,
            on_error=on_error,
        )

    names = list(places)
    for start in range(0, len(names), _TOGETHER):
        part = names[start : start + _TOGETHER]
        if stop is not None and stop.is_set():
            return failed | dict.fromkeys(names[start:], "stopped")
        try:
            side_by_side(remote, part, copy)
        except Exception as error:  # noqa: BLE001 - each library has its own; one part that fails is not the end of all
            failed |= {md5: reason_of(error) for md5 in part if md5 not in failed}
        progress.add(objects=len(part) - sum(md5 in failed for md5 in part))
        if all(md5 in failed for md5 in part):
            reason = failed[part[0]]
            return failed | dict.fromkeys(names[start + len(part) :], reason)
    return failed


def side_by_side(remote: Remote, md5s: Sequence[str], copy: Callable[[Sequence[str]], None]) -> None:
    """Call `copy` for all of these. DVC copies from folder to folder one by one, elsewhere side by side by itself."""
    if not remote.is_local or len(md5s) <= _LOCAL_JOBS:
        if md5s:
            copy(md5s)
        return
    with ThreadPoolExecutor(_LOCAL_JOBS) as pool:
        list(pool.map(copy, [md5s[number::_LOCAL_JOBS] for number in range(_LOCAL_JOBS)]))


def _bytes_of(progress: Progress) -> Any:
    """Return a callback of fsspec that counts bytes; those of one file come to a branch of it."""
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    class Bytes(Callback):  # type: ignore[misc]
        def branched(self, _path_1: str, _path_2: str, **_more: Any) -> "Branch":
            return Branch()

    class Branch(Callback):  # type: ignore[misc]
        seen = 0

        def relative_update(self, inc: int = 1) -> None:
            progress.add(size=inc)

        def absolute_update(self, value: int) -> None:
            progress.add(size=value - self.seen)
            self.seen = value

    return Bytes()


@contextmanager
def _incoming(objects: Objects) -> "Iterator[Path]":
    """Give a folder beside the objects, on the same file system, in which what arrives waits to be checked."""
    top = Path(objects.folder) / _INCOMING
    folder = top / f"{os.getpid()}-{next(_counter)}"
    from mlstack.drivers.dvc.saving import cache_unwritable

    try:
        folder.mkdir(parents=True)
        _remove_leftovers(top)
        yield folder
    except OSError as error:
        raise MlstackError(cache_unwritable(str(folder), error, objects.folder)) from error
    finally:
        _remove(folder)
        with suppress(OSError):
            top.rmdir()


def _remove_leftovers(top: Path) -> None:
    for left in top.iterdir():
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _OLD:
                _remove(left)


def _remove(folder: Path) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)
