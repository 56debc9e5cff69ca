"""The plan: data that can be shown, saved, compared and carried out."""

from typing import Literal

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address

PLAN_FORMAT = "1.0"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What the person asked for beyond the file: part of what is approved."""

    targets: tuple[Address, ...] = ()
    excludes: tuple[Address, ...] = ()
    replace: tuple[Address, ...] = ()
    destroy: bool = False
    refresh: bool = True
    refresh_only: bool = False
    allow_replace: tuple[Address, ...] = ()
    allow_delete: tuple[Address, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether the plan leaves something out on purpose."""
        return bool(self.targets or self.excludes)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to carry out, after `needs` are done."""

    address: Address
    action: Action
    needs: tuple[Address, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done. `changes` are sorted by address, one each; `steps` are in a valid order.

    `digest` (SHA-256 hex) is what an approval is bound to: it covers the canonical changes, the content hashes of their
    inputs and the prior versions of the touched addresses; not the commit, the serial or volatile observations.
    """

    project: str
    environment: str
    profile: str | None
    mlstack_version: str
    created: str
    scope: Scope
    changes: tuple[Change, ...]
    steps: tuple[Step, ...]
    digest: str
    lineage: str | None
    serial: int
    commit: str | None
    dirty: bool
    diagnostics: tuple[Diagnostic, ...] = ()
    in_flight: tuple[str, ...] = ()
    versions: dict[str, str | None] = {}
    prior_versions: dict[Address, int] = {}
    format_version: str = PLAN_FORMAT

    @property
    def pending(self) -> tuple[Change, ...]:
        """The changes that are not no-ops."""
        return tuple(change for change in self.changes if change.pending)

    @property
    def errored(self) -> bool:
        """Whether the plan must not be applied."""
        return any(diagnostic.severity == "error" for diagnostic in self.diagnostics)

    def change(self, address: Address) -> Change | None:
        """Return the row of one address."""
        return next((change for change in self.changes if change.address == address), None)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of the last line. A replacement counts as one create and one destroy.

    `stopped` is what a gate is known to keep from being done; it counts as nothing else.
    """

    create: int = 0
    update: int = 0
    destroy: int = 0
    run: int = 0
    restore: int = 0
    other: int = 0
    stopped: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any((self.create, self.update, self.destroy, self.run, self.restore, self.other, self.stopped))


Counted = Literal["create", "update", "destroy", "run", "restore", "other", "stopped"]

COUNTS: dict[Action, tuple[Counted, ...]] = {
    Action.NO_OP: (),
    Action.CREATE: ("create",),
    Action.IMPORT: ("other",),
    Action.UPDATE: ("update",),
    Action.REPLACE: ("create", "destroy"),
    Action.DELETE: ("destroy",),
    Action.RUN: ("run",),
    Action.FOLLOW: ("run",),
    Action.RESTORE: ("restore",),
    Action.CANCEL: ("other",),
    Action.MOVE: ("other",),
    Action.ACCEPT: ("other",),
    Action.FORGET: ("other",),
}


def summarise(changes: tuple[Change, ...]) -> Summary:
    """Count the pending changes, as the last line of the plan states them."""
    counts: dict[str, int] = {}
    for change in changes:
        if change.pending:
            for word in ("stopped",) if change.is_stopped else COUNTS[change.action]:
                counts[word] = counts.get(word, 0) + 1
    return Summary(**counts)
