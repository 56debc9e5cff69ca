"""The folder of a run: `.mlstack/runs/<slug(address)>/<fingerprint[:16]>/`.

It holds the newest attempt (`order.json`, `log.txt`, `result.json`) and the earlier ones with a number
(`log.1.txt` is the oldest). Whoever carries out a run holds the lock on the file `running`, handed down from the
process that started it: so a run is never started twice, and whether it goes on is asked of the kernel.
"""

import os
import re
import time
from pathlib import Path
from typing import Literal

import msgspec

from mlstack import decoding
from mlstack.spec.address import Address, slug

ORDER, LOG, RESULT, RUNNING, CANCEL = "order.json", "log.txt", "result.json", "running", "cancel"
MACHINE = "machine.json"
"""Where a run ran that was elsewhere; a run of this machine has none."""
_NUMBERED = re.compile(r"log\.(\d+)\.txt")
_PART = re.compile(r"log\.part(\d+)\.txt")
_TAKE_FOR = 0.3  # seconds: who had it may just be ending
_LOOKED_AT_FOR = 60.0  # seconds: who only looks is done in no time, unless its machine has stopped it right there


Cause = Literal["error", "timeout", "hang", "out-of-memory", "cancelled"]


class SavedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What was started, for people and for those who follow. Of secrets it has names, never values.

    `unmasked` are those whose values are too short to be masked in the log. `container` is the container that it runs
    in ("": none), `image` what that is made of, by digest or ID, and `engine` the address of its engine (None: Docker's
    default).
    """

    address: Address
    fingerprint: str
    attempt: int
    host: str
    mark: str
    cmd: str
    directory: str
    started_at: float
    grace: float
    resources: dict[str, float] = {}
    secrets: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = ()
    container: str = ""
    image: str | None = None
    engine: str | None = None
    format: int = 1


class SavedResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, as `launch` writes it: times in seconds, `max_rss` and log sizes in bytes."""

    exit_code: int | None
    cause: Cause | None = None
    detail: str = ""
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    max_rss: int = 0
    log_bytes: int = 0
    log_lost: int = 0
    log_problem: str = ""


def folder_of(runs: Path, address: Address, fingerprint: str) -> Path:
    """Return the folder of one run below `runs` (`.mlstack/runs`)."""
    return runs / slug(address) / fingerprint[:16]


def read_result(folder: Path, number: int | None = None) -> SavedResult | None:
    """Return the result of the newest attempt, or of attempt `number`; None while there is none that can be read."""
    name = RESULT if number is None else f"result.{number}.json"
    try:
        return decoding.decode((folder / name).read_bytes(), SavedResult)
    except (OSError, msgspec.DecodeError):
        return None


def read_order(folder: Path) -> SavedOrder | None:
    """Return the order of the newest attempt; None when there is none that can be read."""
    try:
        return decoding.decode((folder / ORDER).read_bytes(), SavedOrder)
    except (OSError, msgspec.DecodeError):
        return None


def take(folder: Path) -> int | None:
    """Take the lock of a run and return its descriptor; None while somebody else carries the run out.

    Closing the descriptor gives it back, unless a process that inherited it goes on.
    """
    import fcntl

    descriptor = os.open(folder / RUNNING, os.O_RDWR | os.O_CREAT, 0o644)
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - begun < (_LOOKED_AT_FOR if _is_shared(descriptor) else _TAKE_FOR):
                time.sleep(0.01)
                continue
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)  # the process of an earlier run
        return descriptor


def _is_shared(descriptor: int) -> bool:
    """Whether nobody has a lock but those who look, as `running_pid` does."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def name_process(descriptor: int, pid: int) -> None:
    """Write into the lock file who carries out the run."""
    os.pwrite(descriptor, b"%d\n" % pid, 0)


def running_pid(folder: Path) -> int | None:
    """Return the process that carries out the run of this folder now (0 while it has not said so yet), None if none."""
    import fcntl

    try:
        descriptor = os.open(folder / RUNNING, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(descriptor)


def keep_earlier_attempt(folder: Path) -> None:
    """Give the files of the newest attempt a number, so that a new one can begin. Can be cut off anywhere."""
    (folder / CANCEL).unlink(missing_ok=True)
    log = folder / LOG
    if not log.exists():
        for name in (ORDER, RESULT):
            (folder / name).unlink(missing_ok=True)
        return
    number = max(earlier_attempts(folder), default=0) + 1
    for name in (ORDER, RESULT):
        if (folder / name).exists():
            (folder / name).rename(folder / name.replace(".", f".{number}.", 1))
    for part in log_parts(folder):
        part.rename(folder / part.name.replace("log.", f"log.{number}.", 1))
    log.rename(folder / f"log.{number}.txt")  # last: its number is what counts attempts


def earlier_attempts(folder: Path) -> list[int]:
    """Return the numbers of the attempts before the newest, oldest first."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return sorted(int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name)))


def log_parts(folder: Path, number: int | None = None) -> list[Path]:
    """Return what follows the head of a log that grew too long, in order."""
    prefix = "log." if number is None else f"log.{number}."
    try:
        names = [path.name for path in folder.iterdir() if path.name.startswith(prefix + "part")]
    except OSError:
        return []
    numbered = [(int(found[1]), name) for name in names if (found := _PART.fullmatch("log." + name[len(prefix) :]))]
    return [folder / name for _, name in sorted(numbered)]
