"""What the executor knows of runs that are not on this machine: their orders, and the driver that carries them out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import RunOutcome, RunResult, Say
from mlstack.graph.graph import EntryKey, LockEntry, ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.spec import Pool, Stage
from mlstack.state.state import RemoteHandle, RunRecord


class RemoteOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one stage elsewhere, everything decided.

    `key` names the inputs by hash. `image` and `runner` are references by digest: of the stage's own image, and of the
    one that holds the runner. `again` sets a run apart that is wanted although one for the same key is done. `attempt`
    is its number among all attempts at this key. `off_spot`: not on nodes that may be taken away.
    """

    stage: Stage
    pool: Pool
    graph: ResourceGraph
    key: EntryKey
    root: Path
    image: str
    runner: str
    resources: dict[str, float]
    attempt: int = 1
    again: str = ""
    off_spot: bool = False


class RemoteResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run elsewhere made, by hash; its bytes are in the remote. `executable` are outputs with that bit."""

    entry: LockEntry
    executable: frozenset[str] = frozenset()


@runtime_checkable
class SupportsRemoteRun(Protocol):
    """Runs stages elsewhere: inputs come from the remote by hash, and results go there."""

    name: str

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        """Say whether this stage could run there, as far as that is known without asking."""
        ...

    def handle_of(self, order: RemoteOrder) -> RemoteHandle:
        """Return how the run will be found again, before there is anything. Nothing is made."""
        ...

    def next_attempt(self, order: RemoteOrder) -> int:
        """Return the number of the next attempt: one more than any that has left a trace."""
        ...

    def missing_inputs(self, order: RemoteOrder) -> Mapping[str, FileDigest]:
        """Return the inputs that travel by hash and are not in the remote yet (path → digest)."""
        ...

    def submit(self, order: RemoteOrder, handle: RemoteHandle, *, say: Say) -> None:
        """Start the attempt. One that is there already, under the same name, is left as it is."""
        ...

    def wait(self, stage: Stage, run: RunRecord, *, say: Say, is_left: Callable[[], bool]) -> RunResult | None:
        """Follow an attempt to its end, whoever started it; None when `is_left` says so before: then it goes on."""
        ...

    def log(self, run: RunRecord, *, follow: bool) -> Iterator[bytes]:
        """Yield what an attempt has written, masked; with `follow` also what it writes until it is over."""
        ...

    def outcome(self, run: RunRecord) -> RunOutcome:
        """Say how far a run is. Raises `MlstackError` when nobody can be asked."""
        ...

    def result(self, handle: RemoteHandle, key: EntryKey) -> RemoteResult | None:
        """Return what the run has made, if it is done and all of it is in the remote."""
        ...

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        """Stop a run; one that is already over succeeds."""
        ...
