"""Let single processes of test runs stand still now and then, as they do on a machine that is shared with others.

`python -m tests.engines.stutter SECONDS [LONGEST]` beside a test run: what fails then, and not without, hangs on luck.
It finds more than a busy machine does, and costs no time of a processor (decision 0044).
"""

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence

import psutil

from tests.engines.places import cache, sessions

LONGEST = 4.0
"""Seconds for which a process stands still at most: less than what engines grant each other before they give up."""


def found() -> list[psutil.Process]:
    """Return this user's engines, and what tests have started in their folders; pytest's own processes are neither."""
    marks = (str(cache()), str(sessions()), "/pytest-of-")
    mine = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.uids().real == os.getuid() and any(mark in word for word in process.cmdline() for mark in marks):
                mine.append(process)
    return mine


@contextlib.contextmanager
def standing_still(chosen: Sequence[psutil.Process]) -> Iterator[None]:
    """Stop these processes while the block lasts. psutil knows them by pid and start: no other one is hit."""
    try:
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def main(words: Sequence[str]) -> None:
    """Stop one to four processes at a time, of all that are found, until the time is over."""
    until, longest = time.monotonic() + float(words[0]), float(words[1]) if len(words) > 1 else LONGEST
    chance, stopped = random.Random(), 0
    while time.monotonic() < until:
        there = found()
        chosen = chance.sample(there, min(len(there), chance.choice((1, 1, 2, 4))))
        with standing_still(chosen):
            time.sleep(chance.uniform(0.2, longest))
        stopped += len(chosen)
        time.sleep(chance.uniform(0.1, 1.0))
    print(f"Stood still: {stopped} processes.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    main(sys.argv[1:])
