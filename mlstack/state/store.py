"""The store: what apply may do to the state while it holds the environment's lock.

How it stays whole, wherever the process dies:
1. An entry is one new key `journal/<number>`, created if absent. If the number is taken, somebody else writes to the
   same state, and this process stops instead of mixing in.
2. A snapshot says up to which number it has folded the journal, so an entry that is still there is never applied twice.
3. Compaction writes the backup (the previous snapshot), then the snapshot, then removes only entries that the *backup*
   has folded in. So at every moment snapshot + journal and backup + journal both give the whole state.
"""

import threading
from collections.abc import Sequence

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.state import formats, history, runs
from mlstack.state.fold import fold
from mlstack.state.formats import BACKUP_KEY, SNAPSHOT_KEY, JournalLine, Snapshot
from mlstack.state.identity import new_lineage
from mlstack.state.protocols import Backend, StateStore
from mlstack.state.read import Recorded, RecordedState, journal_key, journal_numbers, load, plain
from mlstack.state.state import Entry, HistoryRecord, RunRecord, State


class WritableState(RecordedState, StateStore):
    """`StateStore` on any backend. Its methods may be called from several threads."""

    def __init__(self, backend: Backend, *, project: str, environment: str) -> None:
        super().__init__(backend, project=project, environment=environment)
        self._mutex = threading.Lock()
        self._appended: list[Entry] = []
        self._folded: State | None = None
        self._folded_upto = 0

    def state(self) -> State | None:
        """Return snapshot plus journal, with what was appended here; None when nothing was recorded yet."""
        with self._mutex:
            recorded = self._load()
            if recorded.snapshot is None:
                return None
            if self._folded is None:
                self._folded = fold(plain(recorded.snapshot), recorded.entries)
            self._folded = fold(self._folded, self._appended[self._folded_upto :])
            self._folded_upto = len(self._appended)
            return self._folded

    def pending(self) -> Sequence[Entry]:
        """Return the journal since the last snapshot, with what was appended here."""
        with self._mutex:
            return (*self._load().entries, *self._appended)

    def renew(self) -> None:
        """Forget what was read: others may have written while this process did not hold the lock."""
        with self._mutex:
            self._forget()

    def append(self, entry: Entry) -> None:
        """Record one entry durably before returning. The cost does not grow with the number of entries.

        Raises `MlstackError` when it could not be written (nothing is recorded then, and it may be tried again) or when
        somebody else has written to this state since it was read.
        """
        with self._mutex:
            recorded = self._begun()
            number = recorded.next_number + len(self._appended)
            line = JournalLine(number=number, lineage=_snapshot(recorded).lineage, entry=entry)
            if self._backend.create(journal_key(number), formats.encode(line)) is None:
                raise MlstackError(_written_elsewhere(self._backend, journal_key(number)))
            self._appended.append(entry)

    def compact(self) -> None:
        """Fold the journal into a new snapshot, keeping the previous one as a backup.

        Whatever else the entries carry (entries of `dvc.lock`) must be where it belongs before this is called.
        """
        with self._mutex:
            recorded = self._load()
            entries = (*recorded.entries, *self._appended)
            if not entries:
                return
            prior = _snapshot(recorded)
            state = fold(plain(prior), entries)
            last_entry = prior.last_entry + len(entries)
            snapshot = Snapshot(**msgspec.structs.asdict(state), last_entry=last_entry)
            try:
                tag = self._replace_snapshot(formats.encode(snapshot), tag=recorded.tag)
            except MlstackError:
                # The new snapshot may be there although its write was reported as failed: read anew before going on.
                self._forget()
                raise
            self._recorded = Recorded(snapshot=snapshot, tag=tag, torn=recorded.torn)
            self._appended, self._folded, self._folded_upto = [], state, 0
            for number in journal_numbers(self._backend):
                if number <= prior.last_entry:
                    self._backend.delete(journal_key(number))

    def _forget(self) -> None:
        self._recorded, self._appended, self._folded, self._folded_upto = None, [], None, 0

    def _replace_snapshot(self, data: bytes, *, tag: str | None) -> str:
        """Write the snapshot whose predecessor has `tag`, after making that predecessor, byte for byte, the backup."""
        found = self._backend.get(SNAPSHOT_KEY)
        if found is not None and found[1] == tag:
            self._backend.replace(BACKUP_KEY, found[0], tag=None)
            new = self._backend.replace(SNAPSHOT_KEY, data, tag=tag)
            if new is not None:
                return new
        raise MlstackError(_written_elsewhere(self._backend, SNAPSHOT_KEY))

    def _begun(self) -> Recorded:
        """Make the state ready for its next entry: give it a lineage, drop an entry whose write was cut off."""
        recorded = self._load()
        if recorded.snapshot is None:
            fresh = Snapshot(project=self._project, environment=self._environment, lineage=new_lineage())
            self._backend.create(SNAPSHOT_KEY, formats.encode(fresh))  # or somebody else's, who was faster
            recorded = load(self._backend, project=self._project, environment=self._environment)
        if recorded.torn is not None:
            self._backend.delete(recorded.torn)
            recorded = msgspec.structs.replace(recorded, torn=None)
        self._recorded = recorded
        return recorded

    def claim(self, run: RunRecord) -> RunRecord | None:
        """Claim a run. None: it is ours now. Otherwise the record of whoever has it."""
        return runs.claim(self._backend, run)

    def update_run(self, run: RunRecord) -> None:
        """Write the new status of a run that this process has claimed."""
        runs.update_run(self._backend, run)

    def take_over(self, old: RunRecord, new: RunRecord) -> bool:
        """Replace the claim of a dead owner. False when somebody else was faster."""
        return runs.take_over(self._backend, old, new)

    def add_history(self, record: HistoryRecord) -> None:
        """Add a record; the next free number is its key."""
        history.add_history(self._backend, record)


def open_store(backend: Backend, *, project: str, environment: str) -> WritableState:
    """Return the store of one environment; the caller holds its lock. Nothing is read or written yet."""
    return WritableState(backend, project=project, environment=environment)


def _snapshot(recorded: Recorded) -> Snapshot:
    if recorded.snapshot is None:
        raise AssertionError("entries are only there after a snapshot")
    return recorded.snapshot


def _written_elsewhere(backend: Backend, key: str) -> Diagnostic:
    return Diagnostic(
        code="state-changed",
        summary="Another process has written to the state",
        detail=f"{backend.location(key)} was written by somebody else after this process had read the state.",
        hint="Only one apply may run per environment. Run `mlstack plan` to see what is recorded now; nothing that "
        "either of them recorded is lost.",
    )
