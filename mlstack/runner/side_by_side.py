"""Doing one thing to many in threads: what is done waits for the remote most of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

THREADS = 16
T = TypeVar("T")
R = TypeVar("R")


def side_by_side(act: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Return what `act` returns for each, in order. What it raises for the first that fails ends the others."""
    if len(things) < 2:
        return [act(thing) for thing in things]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(THREADS, len(things))) as threads:
        futures = [threads.submit(act, thing) for thing in things]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
