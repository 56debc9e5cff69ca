"""Whether the route of an endpoint is taken by who serves routes: what is applied may be served by nobody."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.base import StepContext
from mlstack.drivers.kubernetes.endpoint_rollout import interrupted
from mlstack.drivers.stacks import UNCONFIRMED, Unit
from mlstack.spec.address import Address

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest

SAID_WITHIN = 30.0
"""Seconds, from the beginning of the rollout, within which somebody who serves routes has said something of one."""
REFUSED_FOR = 15.0
"""Seconds for which a route may be refused: who serves it may see its Service a moment later."""
REFUSED_CODE = "endpoint-route-refused"
_LOOK_EVERY = 1.0
_NOT_LOOKED_AT = "Its pods are ready; nobody looks whether its route is taken."
_ROUTES = ("HTTPRoute", "Ingress")


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a route: it is taken, or refused, or (`is_taken` is None) nobody has said anything."""

    is_taken: bool | None
    text: str = ""


def wait_for_route(client: "Kube", unit: Unit, context: StepContext, *, began: float) -> str:
    """Wait until the route of an endpoint is taken by who serves it; return what nobody has confirmed, or "".

    `began` is when the rollout was begun (`time.monotonic`). What nobody has confirmed for the record is not waited for
    again. Raises `MlstackError` for a route that is refused.
    """
    route = next((each.inputs for each in unit.objects if each.inputs["kind"] in _ROUTES), None)
    if route is None:
        return ""
    kind, about = str(route["kind"]), route["metadata"]
    before = context.record.attributes if context.record is not None else {}
    is_other = (before.get("route") or {}).get("class", "") != route["spec"].get("ingressClassName", "")
    is_new = is_other or UNCONFIRMED in before
    refused_since: float | None = None
    while True:
        said = read_route(client, kind, str(about["name"]), str(about["namespace"]), is_new=is_new)
        if said.is_taken:
            return ""
        now = time.monotonic()
        if said.is_taken is None:
            refused_since = None
            if now - began >= SAID_WITHIN or said.text == before.get(UNCONFIRMED):
                return said.text
        else:
            refused_since = now if refused_since is None else refused_since
            if now - refused_since >= REFUSED_FOR:
                raise MlstackError(_refused(unit.address, kind, about, said.text))
        if context.stop.wait(_LOOK_EVERY):
            raise MlstackError(interrupted(unit.address, _NOT_LOOKED_AT), exit_code=ExitCode.INTERRUPTED)


def read_route(client: "Kube", kind: str, name: str, namespace: str, *, is_new: bool = False) -> Said:
    """Ask what is said of a route; `is_new`: somebody else than before is to serve it."""
    found = client.get(kind, name, namespace)
    if found is None:
        return Said(is_taken=False, text=f"its {kind} {name} is gone")
    return said_of_http_route(found) if kind == "HTTPRoute" else said_of_ingress(found, is_new=is_new)


def said_of_http_route(found: "Manifest") -> Said:
    """Return what the controllers of its Gateways have written into the status of an HTTPRoute, as it is now."""
    refusals = []
    for parent in (found.get("status") or {}).get("parents") or ():
        if not any(_is_same(parent.get("parentRef") or {}, each, found) for each in found["spec"]["parentRefs"]):
            continue
        current = {each["type"]: each for each in _current(parent.get("conditions"), found)}
        wrong = [each for each in current.values() if each["type"] in _MUST_HOLD and each["status"] == "False"]
        if wrong:
            refusals += [_reason(each) for each in wrong]
        elif (current.get("Accepted") or {}).get("status") == "True":
            return Said(is_taken=True)
    if refusals:
        return Said(is_taken=False, text=f"its HTTPRoute is refused ({'; '.join(dict.fromkeys(refusals))})")
    gateway = found["spec"]["parentRefs"][0]
    return Said(
        is_taken=None,
        text=f"no controller has accepted its HTTPRoute for the Gateway {gateway['name']}, so perhaps nobody serves it",
    )


_MUST_HOLD = ("Accepted", "ResolvedRefs")


def said_of_ingress(found: "Manifest", *, is_new: bool = False) -> Said:
    """Return whether a controller has written an address into the status of an Ingress, which knows no refusal.

    With `is_new` it is of another class than before, whose controller leaves its address behind: that does not count.
    """
    has_address = bool(((found.get("status") or {}).get("loadBalancer") or {}).get("ingress"))
    if has_address and is_new and _is_older(found):
        return Said(is_taken=None, text="its Ingress has the address of its class before, so perhaps nobody serves it")
    if has_address:
        return Said(is_taken=True)
    named = found["spec"].get("ingressClassName")
    who = f"of the class {named}" if named else "that serves Ingresses without a class"
    return Said(
        is_taken=None,
        text=f"no controller {who} has given its Ingress an address, so perhaps nobody serves it",
    )


def _current(conditions: Sequence[Mapping[str, Any]] | None, found: "Manifest") -> Iterator[Mapping[str, Any]]:
    """Yield the conditions that are of the object as it is now, and not of what it was."""
    generation = int(found["metadata"].get("generation", 0))
    for each in conditions or ():
        if int(each.get("observedGeneration", generation)) >= generation:
            yield each


def _is_older(found: "Manifest") -> bool:
    """Whether the status of an object was written before the rest of it was."""
    fields = found["metadata"].get("managedFields") or ()
    status = [each.get("time", "") for each in fields if each.get("subresource") == "status"]
    others = [each.get("time", "") for each in fields if each.get("subresource") != "status"]
    return max(status, default="") < max(others, default="")


def _is_same(said: Mapping[str, Any], asked: Mapping[str, Any], route: "Manifest") -> bool:
    """Whether two references mean the same parent; a namespace that is left out is the route's."""
    own = route["metadata"]["namespace"]
    return all(
        said.get(key, default) == asked.get(key, default)
        for key, default in (("name", ""), ("namespace", own), ("sectionName", None), ("port", None))
    )


def _reason(condition: Mapping[str, Any]) -> str:
    """Return why a condition does not hold; some controllers leave the message empty."""
    message = " ".join(str(condition.get("message") or "").split()).rstrip(".")
    return f"{condition.get('reason')}: {message}" if message else str(condition.get("reason"))


# ---------------------------------------------------------------------------------------------------- words


def _refused(address: Address, kind: str, about: Mapping[str, Any], said: str) -> Diagnostic:
    return Diagnostic(
        code=REFUSED_CODE,
        summary="The route of the endpoint is refused",
        detail=f"{address} in {about['namespace']}: {said}.",
        hint="The pods are ready, and nobody reaches them by their host. See that the Gateway has a listener for the "
        "host, and lets in routes of this namespace (`gateway: {name, namespace, hostname, section}`).",
        command=f"kubectl get {kind.lower()} {about['name']} -n {about['namespace']} -o yaml",
        address=address,
    )
