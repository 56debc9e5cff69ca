"""What a run leaves in the remote about itself: heartbeat, how each attempt ended, and the result.

Both sides use these types. `result.json` is only ever written for a success, and only if there is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1

CAUSES = ("error", "timeout", "hang", "out-of-memory", "stopped", "superseded", "storage", "refused")
"""Why an attempt failed: the stage's own error, a limit, a request from outside to end (cancelled, preempted: the one
that asked knows), a newer attempt, a remote that does not answer, an order that cannot be followed as it is."""


@dataclass(frozen=True)
class Made:
    """One output: `md5` and `size` (bytes) as `dvc.lock` records them, `nfiles` for a folder."""

    path: str
    md5: str
    size: int
    nfiles: int | None = None
    executable: bool = False


@dataclass(frozen=True)
class End:
    """How an attempt ended. `cause` None is success. Times are seconds (`started`, `ended` since the epoch).

    `phases` has the seconds of each phase, `max_rss` the largest process's memory in bytes, `log_parts` how many parts
    the log had, `log_lost` how many of its bytes could not be kept. `machine` says where it ran.
    """

    address: str
    fingerprint: str
    attempt: int
    instance: str
    cause: str | None
    exit_code: int | None
    detail: str = ""
    started: float = 0.0
    ended: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    max_rss: int = 0
    log_parts: int = 0
    log_lost: int = 0
    machine: dict[str, str] = field(default_factory=dict)
    outs: tuple[Made, ...] = ()
    bundle: str = ""
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The attempt's name in the remote."""
        return attempt_name(self.attempt, self.instance)


@dataclass(frozen=True)
class Heartbeat:
    """An attempt that goes on: `at` is the time of the beat (since the epoch), the next comes `every` seconds later.

    `line` is the newest line of the log, masked.
    """

    attempt: int
    instance: str
    started: float
    at: float
    every: float
    phase: str
    host: str = ""
    line: str = ""
    checkpoint_at: float | None = None
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The attempt's name in the remote."""
        return attempt_name(self.attempt, self.instance)


def attempt_name(attempt: int, instance: str) -> str:
    """Return the name of an attempt: names sort as the attempts were made."""
    return f"{attempt:04}-{instance}"


def encode_record(record: End | Heartbeat) -> bytes:
    """Return a record as a file."""
    return json.dumps(asdict(record), sort_keys=True, indent=1).encode() + b"\n"


def decode_end(data: bytes) -> End | None:
    """Read `result.json` or `end.json`; None when it is not one that this version understands."""
    fields = _read(data, End)
    if fields is None:
        return None
    try:
        outs = tuple(Made(**{name: each[name] for name in Made.__dataclass_fields__}) for each in fields["outs"])
        return End(**{**fields, "outs": outs})
    except (KeyError, TypeError):
        return None


def decode_heartbeat(data: bytes) -> Heartbeat | None:
    """Read `heartbeat.json`; None when it is not one that this version understands."""
    fields = _read(data, Heartbeat)
    try:
        return None if fields is None else Heartbeat(**fields)
    except TypeError:
        return None


def _read(data: bytes, kind: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return {name: value for name, value in found.items() if name in kind.__dataclass_fields__}
