"""Parsed files remembered by stat, so that a plan with nothing to do parses no YAML."""

import os
import time
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from mlstack import decoding
from mlstack.graph.hash_cache import Stamp, is_settled, read_cache_file, stamp_of, write_cache_file

T = TypeVar("T")
FORMAT = 1


class Stamped(msgspec.Struct, Generic[T], frozen=True):
    """A value derived from a file, valid while the file's stamp is the same."""

    stamp: Stamp
    value: T
    format: int = FORMAT


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file. Raises `OSError`."""
    return stamp_of(os.stat(path))  # noqa: PTH116 - as fast as can be: this is most of a warm plan


def read_stamped(cache: Path | None, current: Stamp, value_type: type[T]) -> T | None:
    """Return what was derived from a file that still has this stamp."""
    data = read_cache_file(cache) if cache is not None else None
    if data is None:
        return None
    try:
        found = decoding.decode(data, Stamped[value_type])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found.value if found.stamp == current and found.format == FORMAT else None


def write_stamped(cache: Path | None, stamped: Stamped[T], *, trusted: bool = False) -> None:
    """Remember a value, unless the file is so young that a later change may give it the same stamp.

    `trusted`: this process has just renamed the file into place, so a later writer makes another inode or a later time.
    """
    if cache is None or not (trusted or is_settled(stamped.stamp[2], time.time_ns())):
        return
    try:
        data = msgspec.json.encode(stamped)
    except (TypeError, ValueError, UnicodeEncodeError):  # params that JSON cannot hold: not remembered
        return
    write_cache_file(cache, data)
