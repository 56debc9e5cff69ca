"""Inputs by hash: every byte is checked before the command sees it; what is there already is not fetched again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from hashlib import md5 as new_md5
from typing import NamedTuple

from .hashing import Entry, hash_file, read_listing
from .layout import blob_key
from .order import Input, Out
from .problems import Missing, Problem
from .push import describe
from .side_by_side import side_by_side
from .store import Store

TRIES = 3
"""How often a blob is fetched whose bytes are not those of its hash: a transfer may be at fault."""

Say = Callable[[str], None]


class Wanted(NamedTuple):
    """One file to be there: `place` in the file system, `said` as people know it."""

    md5: str
    place: str
    said: str
    executable: bool = False


class Fetcher:
    """Brings contents from the remote below `root`. `scratch` is a folder on the same file system for drafts."""

    def __init__(self, store: Store, root: str, scratch: str, *, say: Say, stop: threading.Event) -> None:
        self._store = store
        self._root = root
        self._scratch = scratch
        self._say = say
        self._stop = stop

    def bring(self, inputs: tuple[Input, ...]) -> int:
        """Make all inputs be there and be what their hash says; return how many files had to be fetched.

        Raises `Problem`: `refused` for a blob that is missing or damaged or code that is not what was planned,
        `storage` when the remote does not answer.
        """
        for each in inputs:
            if each.mode != "copy":
                raise Problem("refused", f"{each.path} is wanted as `mode: {each.mode}`, which this runner cannot do")
        folders = [each for each in inputs if each.held and each.is_folder]
        listings = dict(zip((each.path for each in folders), side_by_side(self._listing, folders)))
        wanted = [self._file(each) for each in inputs if each.held and not each.is_folder]
        for each in folders:
            wanted += self._folder(each, listings[each.path])
        self._make_folders({os.path.dirname(each.place) for each in wanted})
        fetched = sum(side_by_side(self._bring_file, wanted))
        for each in inputs:
            if not each.held:
                self._check(each)
        return fetched

    def _file(self, each: Input) -> Wanted:
        return Wanted(each.md5, os.path.join(self._root, each.path), each.path, each.executable)

    def _folder(self, each: Input, entries: list[Entry]) -> list[Wanted]:
        """Return the files of a folder, which holds them and nothing else afterwards."""
        place = os.path.join(self._root, each.path)
        if os.path.islink(place) or os.path.isfile(place):
            os.unlink(place)
        os.makedirs(place, exist_ok=True)
        names = {entry.relpath for entry in entries}
        for folder, _, files in os.walk(place):
            for name in files:
                full = os.path.join(folder, name)
                if os.path.relpath(full, place) not in names:
                    os.unlink(full)
        return [
            Wanted(entry.md5, os.path.join(place, entry.relpath), f"{each.path}/{entry.relpath}") for entry in entries
        ]

    def _make_folders(self, folders: set[str]) -> None:
        for folder in folders:
            os.makedirs(folder, exist_ok=True)

    def _listing(self, each: Input) -> list[Entry]:
        for number in range(TRIES):
            data = self._store.get(blob_key(each.md5))
            if data is None:
                raise _missing(each.path, each.md5)
            try:
                return read_listing(data, each.md5)
            except ValueError as error:
                if number == TRIES - 1:
                    raise _damaged(each.path, each.md5, str(error)) from error
        raise AssertionError

    def _bring_file(self, each: Wanted) -> int:
        if self._stop.is_set():
            raise Problem("stopped", "it was asked to end while its inputs were fetched")
        if _is_there(each):
            _set_mode(each)
            return 0
        for number in range(TRIES):
            draft = f"{self._scratch}/{each.md5}.{threading.get_ident()}"
            try:
                found = self._download(each, draft)
                if found == each.md5:
                    os.replace(draft, each.place)
                    _set_mode(each)
                    return 1
            except Missing:
                raise _missing(each.said, each.md5) from None
            except OSError as error:
                raise Problem("error", f"{each.said} cannot be written: {error.strerror}") from error
            finally:
                if os.path.exists(draft):
                    os.unlink(draft)
            if number == TRIES - 1:
                raise _damaged(each.said, each.md5, f"its bytes have the hash {found}")
        raise AssertionError

    def _download(self, each: Wanted, draft: str) -> str:
        digest = new_md5(usedforsecurity=False)
        with open(draft, "wb") as file:
            for part in self._store.read(blob_key(each.md5)):
                if self._stop.is_set():
                    raise Problem("stopped", "it was asked to end while its inputs were fetched")
                digest.update(part)
                file.write(part)
        return digest.hexdigest()

    def _check(self, each: Input) -> None:
        """Compare what came in the bundle with what the fingerprint names: what was approved is what runs."""
        full = os.path.join(self._root, each.path)
        if not os.path.exists(full):
            raise Problem("refused", f"{each.path} is not in the code bundle")
        found = describe(self._root, Out(each.path, each.ignore, each.ignore_prefix)).made.md5
        if found != each.md5:
            raise Problem("refused", f"{each.path} in the code bundle is not what was planned ({found}, {each.md5})")


def _is_there(each: Wanted) -> bool:
    try:
        return not os.path.islink(each.place) and hash_file(each.place)[0] == each.md5
    except OSError:
        return False


def _set_mode(each: Wanted) -> None:
    os.chmod(each.place, 0o755 if each.executable else 0o644)


def _missing(path: str, md5: str) -> Problem:
    return Problem("refused", f"the remote has no content {md5} for {path}: `mlstack push` where it is, then apply")


def _damaged(path: str, md5: str, what: str) -> Problem:
    return Problem("refused", f"the content {md5} of {path} is damaged in the remote: {what}")
