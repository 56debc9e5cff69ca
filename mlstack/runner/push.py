"""Outputs: hashed with DVC's algorithm, pushed by hash; a folder's listing after its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import md5 as new_md5
from typing import NamedTuple

from .hashing import CHUNK, Entry, Rules, hash_file, listing_bytes, listing_md5, walk
from .layout import blob_key
from .order import Out
from .problems import Problem
from .record import Made
from .side_by_side import side_by_side
from .store import Store

SMALL = 8 << 20  # bytes up to which a file is read whole

Say = Callable[[str], None]


class Content(NamedTuple):
    """An output as it lies there: `files` are (MD5, size, path in the file system), `listing` is a folder's."""

    made: Made
    files: list[tuple[str, int, str]]
    listing: bytes | None


def describe(root: str, out: Out) -> Content:
    """Hash one output. Raises `Problem` (error) when the command did not make it, or made what cannot be kept."""
    full = os.path.join(root, out.path)
    try:
        if os.path.isdir(full):
            return _describe_folder(out, full)
        if not os.path.lexists(full):
            raise Problem("error", f"the command did not make {out.path}")
        md5, size = hash_file(full)
        executable = bool(os.stat(full).st_mode & 0o111)
    except OSError as error:
        raise Problem("error", f"{out.path} cannot be read: {error.strerror}") from error
    return Content(Made(path=out.path, md5=md5, size=size, executable=executable), [(md5, size, full)], None)


def _describe_folder(out: Out, full: str) -> Content:
    names = list(walk(out.path, full, Rules(out)))
    hashes = side_by_side(lambda name: hash_file(os.path.join(full, name)), names)
    files = [(md5, size, os.path.join(full, name)) for (md5, size), name in zip(hashes, names)]
    listing = listing_bytes([Entry(md5, name) for (md5, _), name in zip(hashes, names)])
    size = sum(size for _, size, _ in files)
    made = Made(path=out.path, md5=listing_md5(listing), size=size, nfiles=len(names))
    return Content(made, files, listing)


def push(store: Store, contents: list[Content], *, say: Say) -> int:
    """Put all contents into the remote; return how many objects it lacked.

    Files go before the listings that name them, so that a listing in the remote always means a whole folder. Raises
    `Problem`: `storage` when the remote does not answer, `error` for a file that changes while it is pushed.
    """
    files = {md5: (md5, size, full) for content in contents for md5, size, full in content.files}
    if len(files) >= 1000:
        say(f"pushing {len(files)} files")
    pushed = sum(side_by_side(lambda each: push_file(store, blob_key(each[0]), each), list(files.values())))
    for content in contents:
        if content.listing is not None and store.size(blob_key(content.made.md5)) != len(content.listing):
            store.put(blob_key(content.made.md5), content.listing)
            pushed += 1
    return pushed


def push_file(store: Store, key: str, file: tuple[str, int, str]) -> int:
    """Put one file (MD5, size, path) under a key unless it is there in its full size; return 1 if it was not."""
    md5, size, full = file
    if store.size(key) == size:
        return 0
    try:
        if size <= SMALL:
            with open(full, "rb") as opened:
                data = opened.read()
            if new_md5(data, usedforsecurity=False).hexdigest() != md5:
                raise _changed(full)
            store.put(key, data)
        else:
            store.put_parts(key, lambda: _checked_parts(full, md5))
    except OSError as error:
        raise Problem("error", f"{full} cannot be read: {error.strerror}") from error
    return 1


def _checked_parts(full: str, md5: str) -> Iterator[bytes]:
    """Yield a file; raise before its end when it is not what was hashed, so that nothing wrong gets the name."""
    digest = new_md5(usedforsecurity=False)
    with open(full, "rb") as file:
        before = file.read(CHUNK)
        while before:
            digest.update(before)
            following = file.read(CHUNK)
            if not following and digest.hexdigest() != md5:
                raise _changed(full)
            yield before
            before = following


def _changed(full: str) -> Problem:
    return Problem("error", f"{full} changed while it was pushed: something still writes to it")
