"""What was recorded, for those who must not write: the reader of the state, which planning gets.

The truth is the snapshot plus the journal entries whose number is higher than `last_entry`. A reader takes no lock: the
entries that a snapshot has folded in stay in the journal until the next compaction, so that a snapshot that was read a
moment ago, or the backup, still finds everything that followed it.
"""

from collections.abc import Sequence

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.address import Address
from mlstack.state import diagnose, formats
from mlstack.state.fold import fold
from mlstack.state.formats import BACKUP_KEY, JOURNAL, SNAPSHOT_KEY, Damage, JournalLine, Snapshot
from mlstack.state.history import read_history
from mlstack.state.protocols import Backend, StateReader
from mlstack.state.runs import read_runs
from mlstack.state.state import Entry, HistoryRecord, RunRecord, State

_ATTEMPTS = 5
"""How often reading starts over when an apply writes at the same time."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Snapshot and journal as they were read. `tag` is the snapshot's; `torn` is the key of a cut-off last entry."""

    snapshot: Snapshot | None = None
    tag: str | None = None
    entries: tuple[Entry, ...] = ()
    torn: str | None = None
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def next_number(self) -> int:
        """The number of the next entry."""
        return (self.snapshot.last_entry if self.snapshot is not None else 0) + len(self.entries) + 1


class RecordedState(StateReader):
    """`StateReader` on any backend. What it says is read once, at the first question."""

    def __init__(self, backend: Backend, *, project: str, environment: str) -> None:
        self._backend = backend
        self._project = project
        self._environment = environment
        self._recorded: Recorded | None = None

    def _load(self) -> Recorded:
        if self._recorded is None:
            self._recorded = load(self._backend, project=self._project, environment=self._environment)
        return self._recorded

    def state(self) -> State | None:
        """Return snapshot plus journal; None when nothing was recorded yet."""
        recorded = self._load()
        return None if recorded.snapshot is None else fold(plain(recorded.snapshot), recorded.entries)

    def pending(self) -> Sequence[Entry]:
        """Return the journal since the last snapshot."""
        return self._load().entries

    @property
    def warnings(self) -> Sequence[Diagnostic]:
        """What was found while reading that does not stop anything (a last entry whose write was cut off)."""
        return self._load().warnings

    def runs(self, address: Address | None = None) -> Sequence[RunRecord]:
        """Return the run records, newest first; of one stage or of all. Read anew each time."""
        return read_runs(self._backend, address)

    def history(self) -> Sequence[HistoryRecord]:
        """Return the history, oldest first. Read anew each time."""
        return read_history(self._backend)


def open_reader(backend: Backend, *, project: str, environment: str) -> RecordedState:
    """Return the reader of one environment. Nothing is read yet, and nothing is ever written.

    Its methods raise `MlstackError` when what was recorded is damaged, of another project or environment, or newer.
    """
    return RecordedState(backend, project=project, environment=environment)


def plain(snapshot: Snapshot) -> State:
    """Return the state of a snapshot without the bookkeeping of the journal."""
    return State(**{name: getattr(snapshot, name) for name in State.__struct_fields__})


def journal_key(number: int) -> str:
    """Return the key of a journal entry; keys sort as the numbers do."""
    return f"{JOURNAL}{number:010d}"


def journal_numbers(backend: Backend) -> list[int]:
    """Return the numbers of all entries that are there, folded in or not, sorted."""
    names = (key.removeprefix(JOURNAL) for key in backend.keys(JOURNAL))
    return sorted(int(name) for name in names if name.isdecimal())


def load(backend: Backend, *, project: str, environment: str) -> Recorded:
    """Read snapshot and journal. Raises `MlstackError` for what cannot be trusted."""
    problem: Diagnostic | None = None
    for _ in range(_ATTEMPTS):  # what looks like a hole may be the trace of an apply that writes right now
        found = backend.get(SNAPSHOT_KEY)
        numbers = journal_numbers(backend)
        if found is None:
            if not numbers and backend.get(BACKUP_KEY) is None:
                return Recorded()
            problem = diagnose.missing_snapshot(backend)
            continue
        snapshot = _check(backend, found[0], project=project, environment=environment)
        pending = [number for number in numbers if number > snapshot.last_entry]
        journal = _read_journal(backend, snapshot, pending)
        if isinstance(journal, Diagnostic):
            problem = journal
            continue
        return msgspec.structs.replace(journal, tag=found[1])
    raise MlstackError(problem) if problem is not None else AssertionError("at least one attempt is made")


def _check(backend: Backend, data: bytes, *, project: str, environment: str) -> Snapshot:
    snapshot = formats.decode(data, Snapshot)
    if isinstance(snapshot, Damage):
        raise MlstackError(diagnose.damaged_snapshot(backend, snapshot))
    if (snapshot.project, snapshot.environment) != (project, environment):
        raise MlstackError(diagnose.foreign_snapshot(backend, snapshot, project=project, environment=environment))
    return snapshot


def _read_journal(backend: Backend, snapshot: Snapshot, numbers: Sequence[int]) -> Recorded | Diagnostic:
    """Read the pending entries; a diagnostic if one of them is missing. Raises for damage and for foreign entries."""
    entries: list[Entry] = []
    contents = backend.get_all([journal_key(number) for number in numbers])
    for expected, (number, content) in enumerate(zip(numbers, contents, strict=True), start=snapshot.last_entry + 1):
        found = content if number == expected else None
        if found is None:
            return diagnose.missing_entry(backend, journal_key(expected))
        line = formats.decode(found[0], JournalLine)
        if isinstance(line, Damage):
            if line.torn and number == numbers[-1]:
                warning = diagnose.torn_entry(backend, journal_key(number), line)
                return Recorded(
                    snapshot=snapshot, entries=tuple(entries), torn=journal_key(number), warnings=(warning,)
                )
            raise MlstackError(diagnose.damaged_entry(backend, journal_key(number), line))
        if (line.lineage, line.number) != (snapshot.lineage, number):
            raise MlstackError(diagnose.foreign_entry(backend, journal_key(number)))
        entries.append(line.entry)
    return Recorded(snapshot=snapshot, entries=tuple(entries))
