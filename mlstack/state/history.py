"""The history of an environment: one record per apply, accept or destroy, numbered, never rewritten."""

from mlstack.diagnostics import MlstackError
from mlstack.state import formats
from mlstack.state.formats import HISTORY, Damage, HistoryFile
from mlstack.state.protocols import Backend
from mlstack.state.state import HistoryRecord


def add_history(backend: Backend, record: HistoryRecord) -> int:
    """Add a record under the next free number and return that number."""
    numbers = [number for number, _ in _numbered(backend)]
    number = max(numbers, default=0) + 1
    data = formats.encode(HistoryFile(record=record))
    while backend.create(f"{HISTORY}{number:08d}.json", data) is None:
        number += 1  # somebody else ended at the same moment; theirs stays what it is
    return number


def read_history(backend: Backend) -> tuple[HistoryRecord, ...]:
    """Return all records, oldest first. Raises `MlstackError` for one that cannot be read."""
    keys = [key for _, key in sorted(_numbered(backend))]
    return tuple(_read(backend, key, found) for key, found in zip(keys, backend.get_all(keys), strict=True))


def _numbered(backend: Backend) -> list[tuple[int, str]]:
    names = ((key.removeprefix(HISTORY).removesuffix(".json"), key) for key in backend.keys(HISTORY))
    return [(int(name), key) for name, key in names if name.isdecimal()]


def _read(backend: Backend, key: str, found: tuple[bytes, str] | None) -> HistoryRecord:
    content = formats.decode(b"" if found is None else found[0], HistoryFile)
    if isinstance(content, Damage):
        hint = "Restore that file from a copy, or move it away: the history then misses this one record."
        raise MlstackError(formats.damage_diagnostic(content, "history", backend.location(key), hint=hint))
    return content.record
