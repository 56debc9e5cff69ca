"""Images: one is built when something that will run or be made needs it, and it is not there yet."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from mlstack.drivers.base import Absent, ImageReading, NotChecked, Present
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.graph.images import wants_pin
from mlstack.spec.address import Address, Kind
from mlstack.state.state import Record

LookAt = Callable[[ImagePlan, Record | None], ImageReading]
"""Says whether a recorded image is where it is needed, and what would build it. Asked only when it is needed."""

_STARTS = (Action.CREATE, Action.UPDATE, Action.REPLACE)
"""What makes the container of an endpoint."""


def never_looked(_plan: ImagePlan, record: Record | None) -> ImageReading:
    """What is known without asking: what is recorded is there."""
    return ImageReading(observation=Absent(reason="never made") if record is None else Present())


def asked_once(look_at: LookAt) -> LookAt:
    """Return the same with a memory: each image is asked for once."""
    seen: dict[Address, ImageReading] = {}

    def look(plan: ImagePlan, record: Record | None) -> ImageReading:
        if plan.address not in seen:
            seen[plan.address] = look_at(plan, record)
        return seen[plan.address]

    return look


def diff_images(
    graph: ResourceGraph,
    changes: Mapping[Address, Change],
    records: Mapping[Address, Record],
    *,
    asked: Collection[Address] = (),
    forced: Collection[Address] = (),
    look_at: LookAt = never_looked,
) -> dict[Address, Change]:
    """Return the row of every image, given the rows of those that run in them.

    `asked` are images that the person names as targets: they are built although nothing needs them. `forced` are built
    again although they are there.
    """
    rows = {}
    for address, plan in graph.images.items():
        users = [user for user in plan.users if _starts(changes.get(user))]
        if users or address in asked or address in forced:
            record = records.get(address)
            rows[address] = _row(plan, record, look_at(plan, record), users=users, forced=address in forced)
        else:
            code = ReasonCode.UP_TO_DATE if _is_recorded(plan, records.get(address)) else ReasonCode.NOT_NEEDED
            rows[address] = _no_op(address, Reason(code=code))
    return rows


def built_again(rows: Mapping[Address, Change], graph: ResourceGraph, users: Collection[Address]) -> frozenset[Address]:
    """Return the images of these users that are built although their record fits: gone, or forced.

    What runs in them gets a digest that nobody knows yet.
    """
    used = {of.get(user) for user in users for of in (graph.image_of, graph.runner_of)}
    return frozenset(
        each
        for each, row in rows.items()
        if each in used and row.before is not None and row.action in _STARTS and not row.fields
    )


def image_attributes(plan: ImagePlan) -> dict[str, Any]:
    """Return the attributes that an image should have; what only a build can tell is left out."""
    return {"tag": plan.tag, "reference": plan.reference, "platform": plan.platform}


def _starts(change: Change | None) -> bool:
    """Whether a change makes a container. A run that goes on already has its image, and a new definition needs none."""
    if change is None:
        return False
    return change.may_run or (change.kind is Kind.ENDPOINT and (change.action in _STARTS or change.up_to in _STARTS))


def _is_recorded(plan: ImagePlan, record: Record | None) -> bool:
    return record is not None and image_attributes(plan).items() <= record.attributes.items()


def _row(
    plan: ImagePlan, record: Record | None, reading: ImageReading, *, users: list[Address], forced: bool
) -> Change:
    before = dict(record.attributes) if record is not None else None
    desired = image_attributes(plan)
    not_checked = reading.observation.reason if isinstance(reading.observation, NotChecked) else ""
    fields = tuple(
        FieldDiff(path=name, before=(before or {}).get(name), after=value)
        for name, value in desired.items()
        if (before or {}).get(name) != value
    )
    action, drift = Action.UPDATE, False
    needed = tuple(Reason(code=ReasonCode.NEEDED_BY, subject=user) for user in users)
    if record is None:
        action, reasons = Action.CREATE, needed or (Reason(code=ReasonCode.NOT_BUILT),)
    elif fields:
        reasons = (Reason(code=ReasonCode.CONTENTS_CHANGED), *needed)
    elif isinstance(reading.observation, Absent):
        reasons, drift = (Reason(code=ReasonCode.GONE, subject=reading.observation.reason), *needed), True
    elif forced:
        action, reasons = Action.REPLACE, (Reason(code=ReasonCode.FORCED),)
    else:
        return msgspec.structs.replace(
            _no_op(plan.address, Reason(code=ReasonCode.UP_TO_DATE)), before=before, not_checked=not_checked
        )
    return Change(
        address=plan.address,
        kind=Kind.IMAGE,
        action=action,
        reasons=reasons,
        fields=fields,
        before=before,
        after=desired,
        drift=drift,
        note="; ".join(said for said in (reading.builder, _unpinned(plan)) if said),
        not_checked=not_checked or reading.missing,
    )


def _unpinned(plan: ImagePlan) -> str:
    if plan.base is None or plan.pinned is not None or not wants_pin(plan.base):
        return ""
    return f"{plan.base} is not pinned: `mlstack lock` does it"


def forget_image(address: Address, record: Record | None, code: ReasonCode) -> Change:
    """Return the row of an image that is not managed any more: its bytes stay, since others may run in them."""
    if record is None:
        return _no_op(address, Reason(code=ReasonCode.UP_TO_DATE))
    return Change(
        address=address,
        kind=Kind.IMAGE,
        action=Action.FORGET,
        reasons=(Reason(code=code),),
        before=dict(record.attributes),
    )


def _no_op(address: Address, reason: Reason) -> Change:
    return Change(address=address, kind=Kind.IMAGE, action=Action.NO_OP, reasons=(reason,))
