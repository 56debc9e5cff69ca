"""The records of an environment as the record of one stack of a user's own (`pulumi stack import`)."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from mlstack.drivers.pulumi.checkpoint import FORMAT, NO_MANIFEST, Checkpoint
from mlstack.drivers.pulumi.names import COMPONENT, name_of, place_of
from mlstack.drivers.pulumi.place import place_of_stacks
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec

_STACK: Final = "pulumi:pulumi:Stack"
_PROVIDER: Final = "pulumi:providers:"


def record_to_leave_with(spec: Spec, root: Path, *, protected: Collection[Address]) -> bytes | None:
    """Return what the stacks of an environment hold as `pulumi stack import` takes it; None where nothing is recorded.

    The stack is called like the environment. Only what is there is in it, without mlstack's components; what belongs to
    a `protected` address is protected by Pulumi.
    """
    place = place_of_stacks(spec, root)
    found = [each for stack in ("platform", "serving") if (each := place.checkpoint(stack)) is not None]
    return own_record(found, project=spec.project, stack=spec.environment, protected=protected)


def own_record(
    checkpoints: Iterable[Checkpoint], *, project: str, stack: str, protected: Collection[Address]
) -> bytes | None:
    """Return the resources of several stacks as those of one, in the order in which they were made."""
    start = f"urn:pulumi:{stack}::{project}::"
    root = f"{start}{_STACK}::{project}-{stack}"
    resources: dict[str, dict[str, Any]] = {root: {"urn": root, "custom": False, "type": _STACK}}
    renamed: dict[str, str] = {}
    for checkpoint in checkpoints:
        latest = msgspec.json.decode(checkpoint.data)["checkpoint"].get("latest") or {}
        for each in latest.get("resources") or ():
            kind, urn = each["type"], each["urn"]
            if kind in (_STACK, COMPONENT):
                renamed[urn] = root
                continue
            new = f"{start}{kind}::{name_of(urn)}"
            renamed[urn] = new
            if kind.startswith(_PROVIDER):
                # Every stack has a provider of its own: the first stands for all of one name.
                first = resources.setdefault(new, each)
                renamed[f"{urn}::{each['id']}"] = f"{new}::{first['id']}"
                continue
            place = place_of(urn)
            is_protected = not each.get("delete") and place is not None and place.address in protected
            resources[f"{new} {len(resources)}" if new in resources else new] = {**each, "protect": is_protected}
    if len(resources) == 1:
        return None
    deployment = {"manifest": NO_MANIFEST, "resources": [_renamed(each, renamed) for each in resources.values()]}
    return msgspec.json.format(msgspec.json.encode({"version": FORMAT, "deployment": deployment}), indent=2) + b"\n"


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {key: _renamed(each, names) for key, each in value.items()}
    return [_renamed(each, names) for each in value] if isinstance(value, list) else value
