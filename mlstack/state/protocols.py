"""What a backend can do, and the two faces of the state: planning gets the reader, only apply gets the store."""

from collections.abc import Sequence
from typing import Protocol

from mlstack.spec.address import Address
from mlstack.state.state import Entry, HistoryRecord, RunRecord, State


class Backend(Protocol):
    """Named blobs with create-if-absent and compare-and-swap: a folder here, an object store for teams.

    Keys are POSIX-like relative paths. A `tag` is opaque and changes with the content. The same layout of keys is used
    in every backend: `state.json`, `state.backup.json`, `journal/<n>`, `lock.json`, `history/<n>.json`,
    `runs/<address>/<fingerprint>.json`.
    """

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return content and tag, or None when there is no such key."""
        ...

    def get_all(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Return what `get` returns for each key, in their order."""
        ...

    def create(self, key: str, data: bytes) -> str | None:
        """Create `key` durably and return its tag; None, with nothing written, when it exists already."""
        ...

    def replace(self, key: str, data: bytes, *, tag: str | None) -> str | None:
        """Write `key` durably if its tag is still `tag` (None: whatever it is). None when somebody else was faster."""
        ...

    def delete(self, key: str, *, tag: str | None = None) -> None:
        """Delete `key` if its tag is still `tag` (None: whatever it is).

        Deleting what is already gone, or what is somebody else's by now, succeeds without touching anything.
        """
        ...

    def keys(self, prefix: str) -> Sequence[str]:
        """Return all keys below `prefix`, sorted. `prefix` is "" or ends with "/"."""
        ...

    def location(self, key: str) -> str:
        """Return where `key` lies, for messages to people: a path or a URL. Asks nothing."""
        ...


class StateReader(Protocol):
    """What planning may know. None of these write."""

    def state(self) -> State | None:
        """Return snapshot plus journal; None when nothing was recorded yet."""
        ...

    def pending(self) -> Sequence[Entry]:
        """Return the journal since the last snapshot: what an apply that did not end left behind."""
        ...

    def runs(self, address: Address | None = None) -> Sequence[RunRecord]:
        """Return the run records, newest first; of one stage or of all."""
        ...

    def history(self) -> Sequence[HistoryRecord]:
        """Return the history, oldest first."""
        ...


class StateStore(StateReader, Protocol):
    """What apply may write, while it holds the environment's lock."""

    def renew(self) -> None:
        """Forget what was read: others may have written while this process did not hold the lock."""
        ...

    def append(self, entry: Entry) -> None:
        """Record one entry durably before returning. The cost does not grow with the number of entries."""
        ...

    def compact(self) -> None:
        """Fold the journal into a new snapshot, keeping the previous one as a backup."""
        ...

    def claim(self, run: RunRecord) -> RunRecord | None:
        """Claim a run. None: it is ours now. Otherwise the record of whoever has it."""
        ...

    def update_run(self, run: RunRecord) -> None:
        """Write the new status of a run that this process has claimed."""
        ...

    def take_over(self, old: RunRecord, new: RunRecord) -> bool:
        """Replace the claim of a dead owner. False when somebody else was faster."""
        ...

    def add_history(self, record: HistoryRecord) -> None:
        """Add a record; the next free number is its key."""
        ...
