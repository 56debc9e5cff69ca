"""A store for tries: `mlstack run` claims its runs like everybody else, and records nothing."""

from collections.abc import Sequence

from mlstack.spec.address import Address
from mlstack.state import runs
from mlstack.state.protocols import Backend, StateReader
from mlstack.state.state import Entry, HistoryRecord, RunRecord, State


class Unrecorded:
    """Satisfies `StateStore`: claims are real, so that one thing never runs twice; the journal is not written."""

    def __init__(self, backend: Backend, reader: StateReader) -> None:
        self._backend = backend
        self._reader = reader

    def state(self) -> State | None:
        """Return what is recorded."""
        return self._reader.state()

    def pending(self) -> Sequence[Entry]:
        """Return nothing: what an apply left behind is for the next apply."""
        return ()

    def runs(self, address: Address | None = None) -> Sequence[RunRecord]:
        """Return the run records."""
        return self._reader.runs(address)

    def history(self) -> Sequence[HistoryRecord]:
        """Return the history."""
        return self._reader.history()

    def renew(self) -> None:
        """Hold nothing that could be old."""

    def append(self, entry: Entry) -> None:
        """Record nothing."""

    def compact(self) -> None:
        """Record nothing."""

    def add_history(self, record: HistoryRecord) -> None:
        """Record nothing."""

    def claim(self, run: RunRecord) -> RunRecord | None:
        """Claim a run."""
        return runs.claim(self._backend, run)

    def update_run(self, run: RunRecord) -> None:
        """Write the status of a claimed run."""
        runs.update_run(self._backend, run)

    def take_over(self, old: RunRecord, new: RunRecord) -> bool:
        """Take over the claim of a dead owner."""
        return runs.take_over(self._backend, old, new)
