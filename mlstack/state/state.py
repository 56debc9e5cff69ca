"""What mlstack has recorded about one environment.

Results of stages are not in here: Git is their record (`dvc.lock`). The state holds what no file of the repository can:
endpoints that run, versions that were deployed, stages whose results were accepted, pins that are held.
"""

from typing import Any, Literal

import msgspec

from mlstack.spec.address import Address

STATE_FORMAT = 1


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that exists. `version` is raised whenever `attributes` change.

    `attributes` belong to the driver; they are what JSON can hold, so numbers are finite.
    """

    address: Address
    driver: str
    version: int = 1
    attributes: dict[str, Any] = {}
    needs: tuple[Address, ...] = ()
    protect: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot with the journal folded in.

    `lineage` is a UUID made with the environment; `serial` counts the entries that changed content.
    """

    project: str
    environment: str
    lineage: str
    serial: int = 0
    format: int = STATE_FORMAT
    resources: dict[Address, Record] = {}
    accepted: dict[Address, "Acceptance"] = {}


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody said that a change does not alter a stage's result (`mlstack accept`)."""

    address: Address
    fingerprint: str
    recorded_fingerprint: str
    because: str
    who: str
    at: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal: what happened at one step. Replaying all of them gives the state.

    `record` is the resource after the step, `removed` says that it is gone. `moved_from` is the address that the
    resource had before: one entry moves it, so that no crash can leave it under both names or under none. `lock_entry`
    (JSON of `mlstack.graph.graph.LockEntry`) is an entry of `dvc.lock` that may not be in that file yet.
    """

    at: str
    apply_id: str
    event: Literal["apply-started", "step-started", "step-done", "step-failed", "apply-ended", "accepted"]
    address: Address | None = None
    action: str | None = None
    record: Record | None = None
    removed: bool = False
    moved_from: Address | None = None
    fingerprint: str | None = None
    lock_entry: dict[str, Any] | None = None
    acceptance: Acceptance | None = None
    detail: str = ""
    plan_digest: str | None = None


ApplyOutcome = Literal["done", "failed", "interrupted", "left"]
"""How an apply ended; "left": all is well, and runs go on elsewhere that the next one collects."""


class RemoteHandle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run elsewhere is found again, from any machine. Nothing of it is secret.

    `target` names the driver; `place` is what it needs to find its part (Kubernetes: `namespace`, `context`, `job`).
    `store` is the remote's URL with its `config`, `prefix` the run's folder there.
    """

    target: str
    place: dict[str, str]
    store: str
    prefix: str
    config: dict[str, str] = {}


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The claim on one run of a stage: `runs/<address>/<fingerprint>`, created if absent.

    `pid` and `started` (seconds since the epoch, as the system reports them for that process) identify the process on
    `host`; `folder` holds its log and its result file. A run elsewhere has `remote` instead. Times are ISO 8601 in UTC.
    """

    address: Address
    fingerprint: str
    status: Literal["claimed", "running", "done", "failed", "cancelled"]
    host: str
    owner_pid: int
    owner_started: float
    apply_id: str
    claimed_at: str
    pid: int | None = None
    started: float | None = None
    folder: str | None = None
    attempt: int = 1
    ended_at: str | None = None
    exit_code: int | None = None
    detail: str = ""
    remote: RemoteHandle | None = None

    @property
    def pool(self) -> Address | None:
        """Return the pool in which a run elsewhere was begun, whatever the file says now; None if nobody noted it."""
        pool = self.remote.place.get("pool") if self.remote is not None else None
        return Address(pool) if pool else None


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one step, for the history."""

    address: Address
    action: str
    outcome: Literal["done", "failed", "not-started", "skipped", "left"]
    seconds: float = 0.0
    detail: str = ""


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One apply, accept or destroy. Never rewritten. Times are ISO 8601 in UTC.

    `approval` says how the plan was agreed to: "typed", "yes" (not asked), "plan file" or "digest".
    """

    id: str
    operation: str
    who: str
    host: str
    started_at: str
    ended_at: str
    outcome: ApplyOutcome
    commit: str | None = None
    dirty: bool = False
    plan_digest: str | None = None
    serial_before: int = 0
    serial_after: int = 0
    mlstack_version: str = ""
    steps: tuple[StepResult, ...] = ()
    versions: dict[Address, str] = {}
    because: str = ""
    approval: str = ""


class LockRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock of an environment. The lease is over when `heartbeat` is older than `lease` seconds."""

    id: str
    operation: str
    who: str
    host: str
    pid: int
    pid_started: float
    created: str
    heartbeat: float
    lease: float = 60.0
    ci_run: str = ""
