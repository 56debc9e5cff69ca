"""Contents under DVC's algorithm: MD5 of a file's bytes; of a folder, MD5 of its JSON listing, with `.dir` appended."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from hashlib import md5 as new_md5
from typing import NamedTuple

from .order import Ignore, Out, stays_inside
from .problems import Problem

CHUNK = 1 << 20
DVCIGNORE = ".dvcignore"
_FOLDERS_LEFT_OUT = frozenset({".hg", ".git", ".dvc"})


class Entry(NamedTuple):
    """One file of a folder."""

    md5: str
    relpath: str


class Rules:
    """What is left out of one output folder: `.git`, `.hg`, `.dvc`, and the patterns of `.dvcignore`."""

    def __init__(self, out: Out) -> None:
        self._prefix = out.ignore_prefix
        self._patterns = [(_compile(each), each) for each in out.ignore]

    def ignores(self, name: str, *, is_folder: bool) -> bool:
        """Whether a path in the folder is left out; its own parents are known not to be."""
        last = name.rpartition("/")[2]
        if not self._patterns:
            return last == ".git" or (is_folder and last in _FOLDERS_LEFT_OUT)
        whole = self._prefix + name
        for regex, pattern in self._patterns:
            if pattern.folders_only and not is_folder:
                continue
            if regex.match(whole) or (is_folder and regex.match(f"{whole}/")):
                return pattern.ignores
        return False


def _compile(pattern: Ignore) -> re.Pattern[str]:
    try:
        return re.compile(pattern.regex)
    except re.error:
        return re.compile(pattern.regex.replace("(?>", "(?:"))  # Python < 3.11 knows no atomic groups: only slower


def hash_file(path: str) -> tuple[str, int]:
    """Return MD5 and size of a regular file. Raises OSError."""
    digest, size = new_md5(usedforsecurity=False), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file", path)
        while True:
            chunk = os.read(descriptor, CHUNK)
            if not chunk:
                return digest.hexdigest(), size
            digest.update(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)


def listing_bytes(entries: list[Entry]) -> bytes:
    """Return a folder's listing as DVC writes and hashes it (`dvc_data.hashfile.tree.Tree.as_bytes`)."""
    rows = [{"md5": entry.md5, "relpath": entry.relpath} for entry in sorted(entries, key=lambda entry: entry.relpath)]
    return json.dumps(rows, sort_keys=True).encode()


def listing_md5(data: bytes) -> str:
    """Return the hash of a folder by its listing."""
    return new_md5(data, usedforsecurity=False).hexdigest() + ".dir"


def read_listing(data: bytes, md5: str) -> list[Entry]:
    """Read a folder's listing. Raises ValueError when it is not the one of this hash, or names a path outside."""
    if listing_md5(data) != md5:
        raise ValueError(f"its bytes have the hash {listing_md5(data)}")
    try:
        entries = [Entry(row["md5"], row["relpath"]) for row in json.loads(data)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not a listing: {error}") from error
    for entry in entries:
        if not stays_inside(entry.relpath) or not re.fullmatch(r"[0-9a-f]{32}", entry.md5):
            raise ValueError(f"{entry.relpath!r} ({entry.md5}) is no file of a folder")
    return entries


def walk(path: str, full: str, rules: Rules) -> Iterator[str]:
    """Yield the files of a folder that DVC would take, relative to it. Raises `Problem` for a pipe or `.dvcignore`."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(os.path.join(full, prefix)) as found:
            entries = list(found)
        if prefix and any(entry.name == ".dvc" for entry in entries):
            continue  # a DVC project inside this one: DVC leaves it out
        for entry in entries:
            name = prefix + entry.name
            is_folder = entry.is_dir()
            if rules.ignores(name, is_folder=is_folder):
                continue
            if is_folder:
                if not entry.is_symlink():
                    waiting.append(f"{name}/")
            elif entry.name == DVCIGNORE or not entry.is_file():
                raise Problem("error", f"{path}/{name} is a pipe, a socket, a broken link or a {DVCIGNORE}")
            else:
                yield name
