"""What the planner and the executor know of a driver.

A driver is a small class that satisfies some of these Protocols; the registry names it for a kind and a target.
`read` never writes and never runs code of the repository. Deleting what is already gone succeeds.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event as StopFlag
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.graph.change import Change
from mlstack.graph.graph import LockEntry, ResourceGraph
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Endpoint, Model, Pool, Resource, Stage
from mlstack.state.state import Record, RunRecord

if TYPE_CHECKING:
    from mlstack.drivers.elsewhere import RemoteResult

# ---------------------------------------------------------------------------------------------------- reading


class Present(msgspec.Struct, frozen=True, kw_only=True, tag="present"):
    """It is there, with these attributes (the same keys as the record's, as far as the driver can observe them)."""

    attributes: dict[str, Any] = {}


class Absent(msgspec.Struct, frozen=True, kw_only=True, tag="absent"):
    """It is not there; `reason` says how that was seen ("process 4711 is gone")."""

    reason: str = ""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, tag="unreadable"):
    """It could not be reached: an error of the plan, never a deletion."""

    diagnostic: Diagnostic


class NotChecked(msgspec.Struct, frozen=True, kw_only=True, tag="not-checked"):
    """It was not asked, for `reason`; the plan says so."""

    reason: str


SECRETS_VERSION = "secrets_version"
"""The attribute that holds a version of the values of a thing's secrets; left out where they cannot be had."""

NOT_ASKED: Final = "--no-refresh: not asked"
"""The reason where a plan was not to look."""

Observation = Present | Absent | Unreadable | NotChecked


class ImageReading(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a recorded image is where it is needed, and what would build it.

    `builder` names it ("docker buildx, builder default"); where there is none it is empty, and `missing` says what is
    missing, in a few words.
    """

    observation: Observation
    builder: str = ""
    missing: str = ""


class StageReading(msgspec.Struct, frozen=True, kw_only=True):
    """What DVC's files say about one stage.

    `recorded` is its entry in `dvc.lock` (with entries of an interrupted apply laid over). `cached` is the run-cache's
    entry for the key that the stage has now, if all its outputs can be had by hash. `outs` tells whether the recorded
    outputs can be had by hash. `defined` is False when `dvc.yaml` or the generated params differ from what mlstack
    would write for this stage.
    """

    recorded: LockEntry | None = None
    cached: LockEntry | None = None
    outs: Observation = Present()
    missing: tuple[str, ...] = ()
    defined: bool = True


class DatasetReading(msgspec.Struct, frozen=True, kw_only=True):
    """What DVC has recorded for a dataset (`.dvc` file), from which source, and whether it can be had by hash.

    `path` is where a `.dvc` file lies that has to go: of one that is not declared any more, or that is declared at
    another path now. `left` is what that file records, if it is declared.
    """

    recorded: FileDigest | None = None
    source: str | None = None
    content: Observation = Present()
    path: str = ""
    left: FileDigest | None = None


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run elsewhere is: it goes on, ended well (its result is there), or neither. `said` is for people.

    `phase` tells of one that goes on whether it is still to be let in or placed, is being begun, or is at work; "not
    checked" of one that could not be asked, and is not taken for gone.
    """

    goes_on: bool = False
    ended_well: bool = False
    phase: Literal["waiting", "starting", "running", "not checked"] = "running"
    said: str = ""


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """The world as it was found.

    `running` are the runs that nobody has collected yet, newest first; also of stages that are not declared any more.
    `outcomes` is what was said of those that are elsewhere and were asked, by address and fingerprint.
    """

    stages: dict[Address, StageReading] = {}
    datasets: dict[Address, DatasetReading] = {}
    observations: dict[Address, Observation] = {}
    metrics: dict[Address, dict[str, float]] = {}
    running: dict[Address, tuple[RunRecord, ...]] = {}
    outcomes: dict[tuple[Address, str], RunOutcome] = {}
    diagnostics: tuple[Diagnostic, ...] = ()


ADDRESS_ATTRIBUTES = frozenset({"listen", "port"})
"""The attributes of an endpoint that its `url` depends on: an update that touches none of them keeps it."""


class Driver(Protocol):
    """Something that exists: an endpoint, later a pool, a cluster, an image."""

    name: str

    def read(self, resource: Resource | None, record: Record | None) -> Observation:
        """Observe one resource. `resource` is None when its declaration is gone, `record` when it was never made."""
        ...

    def desired(self, resource: Resource, graph: ResourceGraph, versions: Mapping[str, str | None]) -> dict[str, Any]:
        """Return the attributes that the resource should have.

        `versions` maps `models.x` and `models.x@REV` to the model's hash. None there is known only after apply, and so
        is every attribute that this returns as None; an attribute that nobody decided is left out. So are variables of
        an endpoint that are still in its `computed`; what is known of them is in its `env`.
        """
        ...

    def apply(self, change: Change, context: "StepContext") -> Record:
        """Create, update or replace, wait until it is observed, and return the new record."""
        ...

    def delete(self, record: Record, context: "StepContext") -> None:
        """Remove it and wait until that is observed."""
        ...


@runtime_checkable
class SupportsPreflight(Protocol):
    """Can say whether what its rows need is there: an engine, a builder, a login."""

    @property
    def name(self) -> str:
        """What the driver is called."""
        ...

    def preflight(self, rows: Sequence[Change], graph: ResourceGraph) -> Sequence[Diagnostic]:
        """Ask the world what carrying out these rows needs. Before anything is changed, not when planning."""
        ...


Send = Callable[[str, str, bytes | None], tuple[int, bytes]]
"""Sends a request (method, path, body) to an endpoint, and returns status and body of the answer."""


@runtime_checkable
class SupportsAccess(Protocol):
    """Has endpoints elsewhere, which are not asked at their URL from here, and whose logs are not here."""

    def sender(self, record: Record, *, timeout: float, token: str | None) -> Send | None:
        """Return how a recorded endpoint is asked; None where its URL is as good from here. `timeout` in seconds.

        `token` is what it asks for, if it does.
        """
        ...

    def log(self, record: Record, *, follow: bool, lines: int | None) -> Iterator[bytes]:
        """Yield what its servers write, in whole lines. Raises `MlstackError`."""
        ...


# ---------------------------------------------------------------------------------------------------- running

Say = Callable[[str], None]
"""Reports one line of progress of the step that is being carried out (already masked)."""


class StepContext(msgspec.Struct, kw_only=True):
    """What a driver is handed for one step. `stop` is set when the person asked to stop now.

    `record` is what this driver has made before, `foreign` what another one has and this one is to take the place of;
    `end_foreign` ends that (for a driver that has to have it gone first; else it is ended when this one is done).
    `image` is what a container is made from: by digest if it was pushed, else by its ID.
    """

    root: Path
    graph: ResourceGraph
    resource: Resource | None
    record: Record | None
    versions: dict[str, str]
    say: Say
    stop: StopFlag
    foreign: Record | None = None
    end_foreign: Callable[[], None] = lambda: None
    image: str | None = None


class RunOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one stage, everything decided.

    `folder` is the run's own folder for its log and result. `image` is what a container is made from, by digest or ID.
    """

    stage: Stage
    pool: Pool
    fingerprint: str
    folder: Path
    root: Path
    resources: dict[str, float]
    environment: dict[str, str]
    attempt: int = 1
    image: str | None = None


Cause = Literal[
    "error",
    "timeout",
    "hang",
    "out-of-memory",
    "cancelled",
    "preempted",
    "node-lost",
    "no-capacity",
    "image-pull",
]
"""Why an attempt failed. From "preempted" on they concern places that give and take nodes."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended. `cause` is one of the retry causes, or None when it succeeded."""

    exit_code: int | None
    cause: Cause | None = None
    detail: str = ""
    seconds: float = 0.0
    log_tail: tuple[str, ...] = ()


class SupportsRun(Protocol):
    """Runs stages."""

    name: str

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        """Say whether this stage could run here: capacity, accelerators, tools. Asked only for rows that would run."""
        ...

    def inherited(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return what a run gets of the variables that mlstack was called with."""
        ...

    def start(self, order: RunOrder) -> tuple[int, float]:
        """Start the run so that it survives this process; return pid and start time."""
        ...

    def wait(self, order: RunOrder, run: RunRecord, *, say: Say, stop: StopFlag) -> RunResult:
        """Follow a started run to its end, whoever started it. With `stop` set: cancel it within its grace."""
        ...

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        """Stop a run; one that is already over succeeds."""
        ...


class ResultStore(Protocol):
    """Where data and results are versioned: DVC."""

    @property
    def notices(self) -> Sequence[Diagnostic]:
        """What people should know afterwards: things of theirs that were moved aside."""
        ...

    def bring(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Make the workspace hold these contents at these paths, by hash (workspace, cache, remote)."""
        ...

    def obtain(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Have these contents (name → digest) on this machine, by hash, without placing them."""
        ...

    def publish(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Make sure that others can have these contents: they are in the remote afterwards, if there is one."""
        ...

    def publish_result(self, address: Address, entry: LockEntry, *, say: Say) -> None:
        """Make sure that others can restore this result: contents and run-cache entry are in the remote, if any."""
        ...

    def occupied(
        self, address: Address, *, run: str, say: Say, stop: Callable[[], bool]
    ) -> AbstractContextManager[Callable[[int], None] | None]:
        """Keep other programs out of what a stage reads and writes here, from before `prepare` until after `commit`.

        Waits for one that is at it, telling `say`; yields None when `stop` says so meanwhile, else a function that is
        told the process which does the work, so that it is spared even when this one dies. `run` names the run.
        """
        ...

    def prepare(self, address: Address) -> None:
        """Clear the stage's outputs and make their parent folders, as DVC does before a run."""
        ...

    def commit(self, address: Address, entry_key: Any, *, keep_in_run_cache: bool = True) -> LockEntry:
        """Hash the outputs, put them into the cache and the run-cache, and return the entry for `dvc.lock`."""
        ...

    def provide(self, wanted: Mapping[str, FileDigest], *, say: Say) -> None:
        """Put contents of this machine into the remote, which a run elsewhere needs."""
        ...

    def adopt(self, address: Address, result: "RemoteResult", *, say: Say) -> LockEntry:
        """Take a result over that is in the remote: what Git keeps comes into the workspace, the rest stays there."""
        ...

    def lookup(self, address: Address, entry_key: Any) -> LockEntry | None:
        """Return the run-cache's entry for this key if all its outputs can be had by hash."""
        ...

    def record(self, entries: Mapping[Address, LockEntry], *, forget: Sequence[Address] = ()) -> None:
        """Write entries to `dvc.lock` (one writer, atomic), about once a second; `flush` makes sure."""
        ...

    def flush(self) -> None:
        """Write what `record` still holds."""
        ...

    def write_definitions(
        self, *, moved: Mapping[Address, LockEntry] | None = None, forget: Collection[Address] | None = None
    ) -> Sequence[str]:
        """Write `dvc.yaml` and the generated params; return the paths that changed.

        `moved` are entries that a stage takes along from its address before: they are in `dvc.lock` before the old ones
        are dropped. Of the stages that are not declared any more, only those in `forget` are dropped (None: all).
        """
        ...

    def add_dataset(self, dataset: Dataset, *, say: Say) -> FileDigest:
        """Fetch (with a source) or add a dataset, write its `.dvc` file, and return its digest."""
        ...


__all__ = [
    "Absent",
    "Dataset",
    "DatasetReading",
    "Driver",
    "Endpoint",
    "Model",
    "NotChecked",
    "Observation",
    "Present",
    "Readings",
    "ResultStore",
    "RunOrder",
    "RunResult",
    "Say",
    "StageReading",
    "StepContext",
    "SupportsPreflight",
    "SupportsRun",
    "Unreadable",
]
