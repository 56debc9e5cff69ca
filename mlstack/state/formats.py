"""The files of the state as JSON, each with the number of its format, and what can be wrong with them."""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeVar

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic
from mlstack.state import migrate
from mlstack.state.state import STATE_FORMAT, Entry, HistoryRecord, LockRecord, RunRecord, State

SNAPSHOT_KEY = "state.json"
BACKUP_KEY = "state.backup.json"
LOCK_KEY = "lock.json"
JOURNAL = "journal/"
HISTORY = "history/"
RUNS = "runs/"


class Snapshot(State, frozen=True, kw_only=True):
    """`state.json`: the state with every journal entry up to number `last_entry` folded in."""

    last_entry: int = 0


class JournalLine(msgspec.Struct, frozen=True, kw_only=True):
    """`journal/<number>`: one entry, and which environment it belongs to."""

    format: int = 1
    number: int
    lineage: str
    entry: Entry


class HistoryFile(msgspec.Struct, frozen=True, kw_only=True):
    """`history/<number>.json`."""

    format: int = 1
    record: HistoryRecord


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """`runs/<address>/<fingerprint>.json`."""

    format: int = 1
    record: RunRecord


class LockFile(msgspec.Struct, frozen=True, kw_only=True):
    """`lock.json`."""

    format: int = 1
    record: LockRecord


class _Formatted(Protocol):
    @property
    def format(self) -> int: ...


class _Header(msgspec.Struct):
    format: int


T = TypeVar("T", bound=_Formatted)

_FORMATS: dict[type, tuple[int, Mapping[int, migrate.Migration]]] = {
    Snapshot: (STATE_FORMAT, migrate.SNAPSHOT),
    JournalLine: (1, migrate.JOURNAL),
    HistoryFile: (1, migrate.HISTORY),
    RunFile: (1, migrate.RUN),
    LockFile: (1, {}),
}

What = Literal["state", "journal", "history", "run", "lock"]
Fault = Literal["empty", "truncated", "in-conflict", "damaged", "newer"]

_NAMES: dict[What, str] = {
    "state": "state file",
    "journal": "journal",
    "history": "history",
    "run": "record of a run",
    "lock": "lock file",
}
_SUMMARIES: dict[Fault, str] = {
    "empty": "The {} is empty",
    "truncated": "The {} is truncated",
    "in-conflict": "The {} has unresolved merge conflicts",
    "damaged": "The {} is damaged",
    "newer": "The {} was written by a newer version of mlstack",
}


class Damage(msgspec.Struct, frozen=True):
    """What is wrong with the content of a file."""

    fault: Fault
    detail: str

    @property
    def torn(self) -> bool:
        """Whether a write that was cut off can have left this (an edit or a merge cannot)."""
        return self.fault in {"empty", "truncated"}


def encode(content: object) -> bytes:
    """Return `content` as one line of JSON."""
    return msgspec.json.encode(content) + b"\n"


def decode(data: bytes, kind: type[T]) -> T | Damage:
    """Read `data` as `kind`, migrating an older format; or say what is wrong with it."""
    current, migrations = _FORMATS[kind]
    try:
        found = decoding.decode(data, kind)
        if found.format == current:
            return found
    except msgspec.ValidationError as error:
        mismatch = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _damage(data, str(error))
    else:
        mismatch = ""
    try:
        number = decoding.decode(data, _Header).format
    except msgspec.ValidationError:
        return Damage("damaged", f"is JSON, but not what mlstack writes there ({mismatch})")
    if number > current:
        return Damage("newer", f"has format {number}; this version of mlstack reads up to format {current}")
    if number == current or any(older not in migrations for older in range(number, current)):
        return Damage("damaged", f"is JSON, but not what mlstack writes there ({mismatch or f'format {number}'})")
    try:
        return decoding.convert(migrate.migrate(msgspec.json.decode(data), migrations, to=current), kind)
    except msgspec.ValidationError as error:
        return Damage("damaged", f"has the old format {number}, but not its content ({error})")


def _damage(data: bytes, message: str) -> Damage:
    """Tell apart the ways in which a file is not JSON."""
    # A file system that lost power may give a file its full length and zeros for content.
    content = data.rstrip(b"\0").strip()
    if not content:
        return Damage("empty", "has no content")
    if any(line.startswith((b"<<<<<<< ", b">>>>>>> ")) for line in content.splitlines()):
        return Damage("in-conflict", "holds the conflict markers of a merge (<<<<<<<, >>>>>>>)")
    if content.startswith(b"{") and (not content.endswith(b"}") or "truncated" in message):
        return Damage("truncated", f"ends in the middle, after {len(content)} bytes")
    return Damage("damaged", f"is not JSON ({message})")


def damage_diagnostic(damage: Damage, what: What, where: str, *, hint: str, command: str = "") -> Diagnostic:
    """Turn damage into what the person is told. `where` is the file; a newer format always has the same way out."""
    if damage.fault == "newer":
        hint, command = "Install the version of mlstack that wrote it, or a later one.", ""
    return Diagnostic(
        code=f"{what}-{damage.fault}",
        summary=_SUMMARIES[damage.fault].format(_NAMES[what]),
        detail=f"{where} {damage.detail}.",
        hint=hint,
        command=command,
    )
