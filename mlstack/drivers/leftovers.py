"""What may be removed: the things that a place holds, whatever they are, with bytes and age."""

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec


class Item(msgspec.Struct, frozen=True):
    """One thing that is there: its name (a hash or a path), bytes, seconds since the epoch (None: not known)."""

    name: str
    size: int
    modified: float | None

    def is_young(self, before: float) -> bool:
        """Whether it came after `before` (of `cutoff`). What has no known age is young, unless age does not count."""
        return (math.inf if self.modified is None else self.modified) > before


def cutoff(age: float, *, now: Callable[[], float] = time.time) -> float:
    """Return the time before which things must have come to be removed; `age` in seconds. Zero: age does not count."""
    return now() - age if age > 0 else math.inf


def total(items: Iterable[Item]) -> int:
    """Return the bytes of these things."""
    return sum(item.size for item in items)


def measure_folder(folder: Path) -> Item:
    """Return a folder with the bytes below it and the time of its newest file; what vanishes meanwhile counts less."""
    size, newest = 0, 0.0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(top, name))  # noqa: PTH118 - environments have ten thousands of files
            except FileNotFoundError:
                continue
            size, newest = size + status.st_size, max(newest, status.st_mtime)
    return Item(str(folder), size, newest)
