"""The checkpoint folder, kept in the remote by fingerprint: what the next attempt goes on from.

A kept checkpoint is always one that was there at one moment: if anything changes while its files are hashed, or one is
gone before it is pushed, this try is given up and the one before stays. The manifest is written last.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from hashlib import md5 as new_md5

from .command import activity
from .hashing import hash_file
from .layout import RunKeys
from .order import stays_inside
from .problems import Missing, Problem
from .push import push_file
from .side_by_side import side_by_side
from .store import Store

OLD = 3600.0  # seconds after which a file of an earlier checkpoint is removed: another attempt may still push


class Checkpoints:
    """The checkpoints of one run. `folder` is where the command keeps them."""

    def __init__(self, store: Store, keys: RunKeys, folder: str, *, say: Callable[[str], None]) -> None:
        self.kept_at: float | None = None
        self._store = store
        self._keys = keys
        self._folder = folder
        self._say = say
        self._seen = (0, 0)
        self._is_dropped = False
        self._lock = threading.Lock()

    def bring(self, scratch: str) -> None:
        """Make the folder, with the newest checkpoint in it unless it holds one (an attempt here was cut off).

        One in the remote that is damaged is left: the command then begins anew, which is slower and never wrong.
        """
        os.makedirs(self._folder, exist_ok=True)
        if not any(not name.startswith(".git") for name in os.listdir(self._folder)):
            files = self._read_manifest()
            try:
                side_by_side(lambda each: self._fetch(each, scratch), sorted(files.items()))
                if files:
                    self._say(f"resuming from a checkpoint ({len(files)} files)")
            except (Missing, ValueError) as error:
                self._say(f"the kept checkpoint is damaged and is not used: {error}")
                self._empty()
        self._seen = activity(self._folder)

    def keep(self, *, final: bool = False) -> bool:
        """Push the folder if it changed since the last time; return whether there is a new checkpoint.

        Raises `Problem` (storage).
        """
        with self._lock:
            if self._is_dropped:
                return False
            now = activity(self._folder)
            if now == self._seen or now[1] == 0:
                return False
            for _ in range(3 if final else 1):
                files = self._snapshot()
                if files is not None and self._push(files):
                    self._seen = now
                    self.kept_at = time.time()
                    self._clean(files)
                    return True
            return False

    def drop(self) -> None:
        """Remove what is kept, and keep nothing more: the run is done."""
        with self._lock:  # what is being kept at this moment is removed as well
            self._is_dropped = True
            self._store.delete([self._keys.manifest])
            self._store.delete(each.key for each in self._store.listing(self._keys.checkpoint))

    def _snapshot(self) -> dict[str, tuple[str, int, str]] | None:
        """Return MD5, size and place of each file; None if something changed meanwhile."""
        before = self._stamps()
        try:
            names = list(before)
            hashes = side_by_side(lambda name: hash_file(os.path.join(self._folder, name)), names)
        except OSError:
            return None
        if self._stamps() != before:
            return None
        pairs = zip(names, hashes)
        return {name: (md5, size, os.path.join(self._folder, name)) for name, (md5, size) in pairs}

    def _push(self, files: dict[str, tuple[str, int, str]]) -> bool:
        contents = {md5: (md5, size, full) for md5, size, full in files.values()}
        try:
            side_by_side(
                lambda each: push_file(self._store, self._keys.checkpoint + each[0], each), [*contents.values()]
            )
        except Problem as problem:
            if problem.cause == "error":
                return False  # a file was replaced or removed: the next try finds a newer checkpoint
            raise
        manifest = {"format": 1, "files": {name: {"md5": md5, "size": size} for name, (md5, size, _) in files.items()}}
        self._store.put(self._keys.manifest, json.dumps(manifest, sort_keys=True).encode())
        return True

    def _clean(self, files: dict[str, tuple[str, int, str]]) -> None:
        needed = {self._keys.checkpoint + md5 for md5, _, _ in files.values()} | {self._keys.manifest}
        before = time.time() - OLD
        listed = self._store.listing(self._keys.checkpoint)
        self._store.delete(each.key for each in listed if each.key not in needed and each.modified < before)

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for folder, _, names in os.walk(self._folder):
            for name in names:
                full = os.path.join(folder, name)
                try:
                    status = os.stat(full)
                except OSError:
                    continue
                if os.path.isfile(full):
                    relative = os.path.relpath(full, self._folder).replace(os.sep, "/")
                    found[relative] = (status.st_size, status.st_mtime_ns, status.st_ino)
        return found

    def _read_manifest(self) -> dict[str, dict[str, object]]:
        data = self._store.get(self._keys.manifest)
        if data is None:
            return {}
        try:
            manifest = json.loads(data)
            files: dict[str, dict[str, object]] = manifest["files"] if manifest["format"] == 1 else {}
        except (ValueError, KeyError, TypeError):
            return {}
        return {name: each for name, each in files.items() if stays_inside(name)}

    def _fetch(self, each: tuple[str, dict[str, object]], scratch: str) -> None:
        name, wanted = each
        place = os.path.join(self._folder, name)
        draft = os.path.join(scratch, f"checkpoint.{threading.get_ident()}")
        os.makedirs(os.path.dirname(place), exist_ok=True)
        digest = new_md5(usedforsecurity=False)
        with open(draft, "wb") as file:
            for part in self._store.read(self._keys.checkpoint + str(wanted["md5"])):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != wanted["md5"]:
            raise ValueError(f"{name} has the hash {digest.hexdigest()}")
        shutil.move(draft, place)  # the folder may be a volume of its own

    def _empty(self) -> None:
        for folder, folders, names in os.walk(self._folder, topdown=False):
            for name in names:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                os.rmdir(os.path.join(folder, name))
