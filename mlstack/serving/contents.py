"""The hash of a file or folder under DVC's algorithm, taken from the very bytes that are then loaded.

A file: MD5 of its bytes. A folder: MD5 of `json.dumps` of its listing, sorted by path, with `.dir` appended
(dvc-data, `hashfile/tree.py`: entries are `{"md5": …, "relpath": …}` with sorted keys).
"""

from __future__ import annotations

import json
from hashlib import md5
from pathlib import Path

from .faults import StartError

CHUNK = 1024 * 1024


def read_verified(path: Path, *, expected: str) -> bytes:
    """Read a file once and return its bytes, after their MD5 was found to be `expected`.

    Raises:
        StartError: "model-missing" or "model-hash".
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StartError("model-missing", f"The model {path.name} cannot be read: {error.strerror}.") from error
    _compare(path, found=md5(data, usedforsecurity=False).hexdigest(), expected=expected)
    return data


def verify_file(path: Path, *, expected: str) -> None:
    """Compare the MD5 of a file that is too large, or not ours, to be held in memory.

    Raises:
        StartError: "model-missing" or "model-hash".
    """
    try:
        found = hash_file(path)
    except OSError as error:
        raise StartError("model-missing", f"The model {path.name} cannot be read: {error.strerror}.") from error
    _compare(path, found=found, expected=expected)


def verify_folder(folder: Path, *, expected: str, keep: Path | None = None) -> bytes | None:
    """Compare the hash of a folder with `expected` (which ends in `.dir`); return the bytes of the file `keep`.

    Raises:
        StartError: "model-missing" or "model-hash".
    """
    listing: list[dict[str, str]] = []
    kept: bytes | None = None
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StartError("model-hash", f"{path.name} in the model's folder is not a plain file.")
            if path.is_dir():
                continue
            if path == keep:
                kept = path.read_bytes()
                digest = md5(kept, usedforsecurity=False).hexdigest()
            else:
                digest = hash_file(path)
            listing.append({"md5": digest, "relpath": path.relative_to(folder).as_posix()})
    except OSError as error:
        raise StartError("model-missing", f"The model's folder cannot be read: {error.strerror}.") from error
    _compare(folder, found=listing_hash(listing), expected=expected)
    return kept


def listing_hash(listing: list[dict[str, str]]) -> str:
    """Return DVC's hash of a folder with this listing (`md5` and `relpath` of each file)."""
    ordered = sorted(listing, key=lambda entry: entry["relpath"])
    return md5(json.dumps(ordered, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def hash_file(path: Path) -> str:
    """Return the hex MD5 of a file's bytes."""
    digest = md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _compare(path: Path, *, found: str, expected: str) -> None:
    if found != expected:
        raise StartError(
            "model-hash",
            f"The model {path.name} is not the one that was recorded: its hash is {found}, recorded is {expected}. "
            "It was not loaded.",
        )
