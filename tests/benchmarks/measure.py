"""Timing of commands beside each other: A B A B …, after a warm-up, so that both meet the same machine."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Work = Callable[[], None]


@dataclass(frozen=True)
class Timing:
    """Seconds of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """One line of the report. `limit` is in seconds; None: nothing to hold (a peer is missing)."""

    work: str
    ours: Timing
    peer: str
    theirs: Timing | None
    target: str
    limit: float | None
    profile: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def reached(self) -> bool | None:
        """Whether the target holds; None when there is nothing to compare with."""
        return None if self.limit is None else self.ours.median <= self.limit


def timed(work: Work) -> float:
    """Seconds of wall time that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(*works: Work, rounds: int, warm_up: bool = True) -> list[Timing]:
    """Time the works in turn, `rounds` times; the unmeasured first round fills caches."""
    if warm_up:
        for work in works:
            work()
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, seconds in zip(works, taken, strict=True):
            seconds.append(timed(work))
    return [Timing(tuple(seconds)) for seconds in taken]


def command(
    arguments: Sequence[str | Path], *, cwd: Path, environment: dict[str, str], expect: tuple[int, ...] = (0,)
) -> Work:
    """A work that runs a command and fails loudly when it does not end as expected."""

    def work() -> None:
        done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in expect:
            said = (done.stdout + done.stderr)[-3000:]
            raise RuntimeError(f"{' '.join(map(str, arguments))} exited with {done.returncode}:\n{said}")

    return work


def has(program: str) -> bool:
    """Whether a peer can be measured here."""
    return shutil.which(program) is not None


def captured(arguments: Sequence[str | Path], *, cwd: Path, environment: dict[str, str]) -> str:
    """What a command writes to stdout. Fails loudly when it does not end well."""
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise RuntimeError(f"{' '.join(map(str, arguments))} exited with {done.returncode}:\n{said}")
    return done.stdout
