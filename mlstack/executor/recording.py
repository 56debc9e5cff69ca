"""What the executor tells about where results come from; `mlstack.provenance.record` writes it down."""

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

from mlstack.graph.graph import LockEntry
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset
from mlstack.state.state import Acceptance

Computed = Literal["run", "follow"]


class Recording(Protocol):
    """Is told of every result before the journal says that its step is done. Times are ISO 8601 in UTC.

    Each may raise `MlstackError`: the step has failed then, and the next apply finds result and run again.
    """

    def begin(self, stages: Collection[Address]) -> None:
        """See that the results of these stages can be recorded, before anything is computed."""
        ...

    def ran(self, address: Address, entry: LockEntry, *, at: str, metrics: Mapping[str, float], how: Computed) -> None:
        """A stage was computed by this command, or by one before whose run this one followed."""
        ...

    def found(self, address: Address, entry: LockEntry, *, at: str, metrics: Mapping[str, float]) -> None:
        """A result was there and is taken."""
        ...

    def accepted(
        self, address: Address, entry: LockEntry, acceptance: Acceptance | None, *, before: LockEntry | None
    ) -> None:
        """Somebody said that a result holds for other inputs than the recorded ones of `before`."""
        ...

    def added(self, dataset: Dataset, digest: FileDigest, *, at: str) -> None:
        """A dataset was fetched or added."""
        ...


class NoRecording:
    """Writes nothing down."""

    def begin(self, stages: Collection[Address]) -> None:
        """Nothing to see to."""

    def ran(self, address: Address, entry: LockEntry, *, at: str, metrics: Mapping[str, float], how: Computed) -> None:
        """Nothing."""

    def found(self, address: Address, entry: LockEntry, *, at: str, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def accepted(
        self, address: Address, entry: LockEntry, acceptance: Acceptance | None, *, before: LockEntry | None
    ) -> None:
        """Nothing."""

    def added(self, dataset: Dataset, digest: FileDigest, *, at: str) -> None:
        """Nothing."""
