"""What an update that was killed leaves behind: a lock of nobody's, and steps whose end was never written down.

A lock may go when its engine cannot be at work any more. mlstack holds the environment's own lock around every update,
so whoever made the lock is not an mlstack that goes on. What may still be there is an engine whose mlstack was killed:
on this machine it is seen, and waited for; an engine without its mlstack ends by itself. A lock of another machine goes
only if the state says that an mlstack had called that process, whose lock has lapsed since. Locks of somebody else
(`pulumi up` by hand) are left alone.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.pulumi.checkpoint import ITS_OWN, PROVIDER, Checkpoint
from mlstack.drivers.pulumi.names import name_of, object_name
from mlstack.drivers.pulumi.place import Place
from mlstack.drivers.pulumi.program import provider_settings
from mlstack.drivers.pulumi.versions import read_note
from mlstack.drivers.stacks import Provider, Unit

PATIENCE = 120.0
"""Seconds for which an engine of this machine that lost its mlstack is waited for."""
_LOOKS = 0.2


class _Lock(msgspec.Struct, frozen=True, kw_only=True):
    pid: int = 0
    username: str = ""
    hostname: str = ""
    timestamp: str = ""


def clear_locks(place: Place, stack: str, *, tell: Callable[[str], None] = lambda _: None) -> None:
    """Remove locks of a stack whose engines are gone. Raises `MlstackError` for one that is not ours to remove."""
    for key in place.records.keys(place.locks(stack)):
        found = place.records.get(key) if key.endswith(".json") else None
        if found is None:
            continue
        lock = _read_lock(found[0])
        where = place.records.location(key)
        if lock.hostname == socket.gethostname():
            _wait_for(lock, where, tell)
        elif not _is_ours(lock, place, stack):
            raise MlstackError(_locked(lock, where))
        place.records.delete(key)


def _read_lock(data: bytes) -> _Lock:
    try:
        return decoding.decode(data, _Lock)
    except msgspec.MsgspecError:  # then nobody knows whose it is, and nothing is assumed
        return _Lock()


def _is_ours(lock: _Lock, place: Place, stack: str) -> bool:
    note = read_note(place, stack)
    call = note.call if note is not None else None
    return call is not None and (call.pid, call.hostname) == (lock.pid, lock.hostname)


def _wait_for(lock: _Lock, where: str, tell: Callable[[str], None]) -> None:
    until = time.monotonic() + PATIENCE
    told = False
    while _is_at_work(lock):
        if not told:
            tell(f"waiting for an update that goes on without its mlstack (process {lock.pid})")
            told = True
        if time.monotonic() > until:
            raise MlstackError(_locked(lock, where))
        time.sleep(_LOOKS)


def _is_at_work(lock: _Lock) -> bool:
    from datetime import datetime

    import psutil

    try:
        process = psutil.Process(lock.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        made = datetime.fromisoformat(lock.timestamp).timestamp() if lock.timestamp else time.time()
        return bool(process.create_time() <= made + 1)  # a younger one only has the number of the one that made it
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True


def _locked(lock: _Lock, where: str) -> Diagnostic:
    who = f"{lock.username or 'Somebody'} on {lock.hostname or 'some machine'} (process {lock.pid or 'unknown'})"
    return Diagnostic(
        code="stack-locked",
        summary="Somebody else works on this Pulumi stack",
        detail=f"{who} since {lock.timestamp or 'some time'}; the lock is {where}. mlstack holds the environment's own "
        "lock, so it is not another mlstack.",
        hint="Wait until it is done. If that process is gone, delete the file.",
    )


# ---------------------------------------------------------------------------------------------------- pending steps


def repaired(checkpoint: Checkpoint, units: Sequence[Unit], providers: Mapping[str, Provider]) -> bytes | None:
    """Return the checkpoint in place of one with steps whose end is not known, or that is not whole; None otherwise.

    Its `providers` (by key) are reached as they are from here. A plugin would take another way for another cluster, on
    which all has to be made anew, and the engine would read by the old one.

    An engine that goes on after an error (`--continue-on-error`) may record a resource after one that it had needed is
    gone, and refuses to read that itself: what is not there is needed no more.

    What was being updated or deleted is read anew by the update's refresh. What was being made may be there or not: if
    the unit says by which ID its provider would know it (option `id`), it is noted as if it was, and the refresh drops
    it if it is not. Without an ID it is made again.
    """
    whole = msgspec.json.decode(checkpoint.data)
    deployment: dict[str, Any] = (whole.get("checkpoint") or {}).get("latest") or {}
    pending = deployment.pop("pending_operations", None) or []
    resources: list[dict[str, Any]] = deployment.get("resources") or []
    deployment["resources"] = resources
    is_elsewhere = _lead_from_here(resources, providers)
    if not _forget_what_is_gone(resources) and not pending and not is_elsewhere:
        return None
    ids = {object_name(unit.address, part.key): part.options.get("id", "") for unit in units for part in unit.objects}
    known = {each["urn"] for each in resources if not each.get("delete")}
    for each in pending:
        resource = each["resource"]
        identity = ids.get(resource["urn"].split("::", 3)[-1], "")
        if each["type"] == "creating" and identity and resource["urn"] not in known:
            resources.append(_as_made(resource, identity))
    return msgspec.json.encode(whole)


def _lead_from_here(resources: Sequence[dict[str, Any]], providers: Mapping[str, Provider]) -> bool:
    """Give the recorded providers the settings that they have now; return whether one had others."""
    found = False
    for each in resources:
        provider = providers.get(name_of(each["urn"])) if each["type"].startswith(PROVIDER) else None
        if provider is None:
            continue
        before = each.get("inputs") or {}
        wanted = {name: before[name] for name in ITS_OWN if name in before} | provider_settings(provider)
        if wanted != before:
            found = True
            each["inputs"] = wanted
            each["outputs"] = {name: value for name, value in wanted.items() if name != "__internal"}
    return found


def _forget_what_is_gone(resources: Sequence[dict[str, Any]]) -> bool:
    """Drop from each resource what it needs and does not come before it; return whether there was something."""
    known: set[str] = set()
    found = False
    for each in resources:
        inside = (urn for urns in (each.get("propertyDependencies") or {}).values() for urn in urns or ())
        needed = {*(each.get("dependencies") or ()), *inside}
        if not known.issuperset(needed):
            found = True
            each["dependencies"] = [urn for urn in each.get("dependencies") or () if urn in known]
            each["propertyDependencies"] = {
                name: [urn for urn in urns or () if urn in known]
                for name, urns in (each.get("propertyDependencies") or {}).items()
            }
        known.add(each["urn"])
    return found


def as_export(data: bytes) -> bytes:
    """Return a checkpoint in the form in which `pulumi stack import` takes it."""
    whole = msgspec.json.decode(data)
    return msgspec.json.encode({"version": whole["version"], "deployment": whole["checkpoint"]["latest"]})


def _as_made(resource: Mapping[str, Any], identity: str) -> dict[str, Any]:
    return {**resource, "id": identity, "outputs": resource.get("inputs", {})}
