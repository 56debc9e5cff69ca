"""What would change at one address, and why: the rows of a plan.

Actions and reasons are closed sets. Apply acts on the action and never on the reason.
"""

from enum import StrEnum
from typing import Any

import msgspec

from mlstack.spec.address import Address, Kind


class Action(StrEnum):
    """What is done at an address."""

    NO_OP = "no-op"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    RUN = "run"
    RESTORE = "restore"
    FOLLOW = "follow"
    CANCEL = "cancel"
    MOVE = "move"
    IMPORT = "import"
    ACCEPT = "accept"
    FORGET = "forget"


class ReasonCode(StrEnum):
    """Why an action was chosen. `Reason.subject` is the path, parameter, address or package that caused it."""

    UP_TO_DATE = "up-to-date"
    NOT_RECORDED = "not-recorded"
    COMMAND_CHANGED = "command-changed"
    DEP_CHANGED = "dep-changed"
    DEP_ADDED = "dep-added"
    DEP_REMOVED = "dep-removed"
    PARAM_CHANGED = "param-changed"
    ENV_CHANGED = "env-changed"
    ENVIRONMENT_CHANGED = "environment-changed"
    OUTS_CHANGED = "outs-changed"
    OUT_MISSING = "out-missing"
    UPSTREAM_CHANGES = "upstream-changes"
    IN_RUN_CACHE = "in-run-cache"
    RUNNING = "running"
    SUPERSEDED = "superseded"
    FORCED = "forced"
    ALWAYS = "always"
    DEFINITION_CHANGED = "definition-changed"
    CONTENT_CHANGED = "content-changed"
    SOURCE_CHANGED = "source-changed"
    NOT_FETCHED = "not-fetched"
    MODEL_CHANGED = "model-changed"
    SETTING_CHANGED = "setting-changed"
    GATE_CHANGED = "gate-changed"
    GATE_NOT_MET = "gate-not-met"
    GATE_CLOSED = "gate-closed"
    DOWN = "down"
    NOT_READY = "not-ready"
    NOT_CHECKED = "not-checked"
    REMOVED_FROM_FILE = "removed-from-file"
    DESTROY_ASKED = "destroy-asked"
    MOVED = "moved"
    ACCEPTED = "accepted"
    NOT_SELECTED = "not-selected"
    KEPT = "kept"
    THIS_MACHINE = "this-machine"
    TRACKED_BY_GIT = "tracked-by-git"
    IMAGE_CHANGED = "image-changed"
    NEEDED_BY = "needed-by"
    NOT_NEEDED = "not-needed"
    NOT_BUILT = "not-built"
    CONTENTS_CHANGED = "contents-changed"
    GONE = "gone"
    OBJECTS_CHANGED = "objects-changed"
    CHANGED_OUTSIDE = "changed-outside"
    GONE_OUTSIDE = "gone-outside"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One cause. `before` and `after` are shown to people ("6" → "8"); None where there is nothing to show."""

    code: ReasonCode
    subject: str = ""
    before: Any = None
    after: Any = None


class Affected(msgspec.Struct, frozen=True, kw_only=True):
    """Something that stands on what a row ends: a live endpoint with its share of the requests, a run."""

    address: Address
    what: str


class FieldDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One attribute that differs. With `unknown`, `after` is known only after apply."""

    path: str
    before: Any = None
    after: Any = None
    unknown: bool = False
    sensitive: bool = False
    forces_replacement: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the plan; a plan holds exactly one for each address.

    `fingerprint` is set for stages whose inputs are all known. `outs` are the digests (path → md5) that the action is
    known to lead to: empty when they are known only after apply. `drift` marks what changed outside mlstack.
    `note` says how it would be done, which nobody approves ("docker buildx" builds it). `parts` are the provider's own
    resources behind this address. `up_to` is the most that may be done instead, should something upstream that always
    runs give something else; it is approved with the row. `affects` is what stands on what this ends.
    """

    address: Address
    kind: Kind
    action: Action
    reasons: tuple[Reason, ...]
    fields: tuple[FieldDiff, ...] = ()
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    fingerprint: str | None = None
    outs: dict[str, str] = {}
    needs: tuple[Address, ...] = ()
    drift: bool = False
    not_checked: str = ""
    note: str = ""
    previous_address: Address | None = None
    parts: tuple["Change", ...] = ()
    up_to: Action | None = None
    affects: tuple[Affected, ...] = ()

    @property
    def pending(self) -> bool:
        """Whether the world differs from what the file says (an `always` stage is outside of this)."""
        return self.action is not Action.NO_OP and not self.is_always

    @property
    def is_stopped(self) -> bool:
        """Whether it is known already that this ends at a gate: its own, or that of a model which it needs."""
        return any(reason.code in (ReasonCode.GATE_NOT_MET, ReasonCode.GATE_CLOSED) for reason in self.reasons)

    @property
    def may_run(self) -> bool:
        """Whether carrying this out may start a run of a stage."""
        return Action.RUN in (self.action, self.up_to)

    @property
    def is_always(self) -> bool:
        """Whether this is only the run of a stage marked `always: true`, or what may follow from one."""
        return (
            self.action in (Action.RUN, Action.UPDATE)
            and bool(self.reasons)
            and all(reason.code is ReasonCode.ALWAYS for reason in self.reasons)
        )
