"""Why an endpoint did not get ready: the last events and log lines of its newest pods, for whoever has to find out."""

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import StepContext
from mlstack.drivers.kubernetes.endpoint_pod import FETCH, SERVER
from mlstack.drivers.kubernetes.endpoint_rollout import newest_pods
from mlstack.drivers.kubernetes.endpoint_routing import REFUSED_CODE
from mlstack.drivers.secrets import Masker, resolve_secrets
from mlstack.drivers.stacks import StepTrouble, Unit
from mlstack.spec.spec import Endpoint

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest

EVENTS, LINES = 5, 20
"""How many events and log lines are shown."""


def explain_rollout(client: "Kube", unit: Unit, problem: Diagnostic, context: StepContext) -> StepTrouble:
    """Return the problem with the last events of the newest pods, and the last lines that they wrote.

    What cannot be had is left out: this is asked when something went wrong already. Where a route is refused, the pods
    are well, and have nothing to say.
    """
    if problem.code == REFUSED_CODE:
        return StepTrouble(diagnostic=problem)
    deployment = next(each.inputs for each in unit.objects if each.key == "deployment")
    name, namespace = str(deployment["metadata"]["name"]), str(deployment["metadata"]["namespace"])
    try:
        found = client.get("Deployment", name, namespace)
        if found is None:
            return StepTrouble(diagnostic=problem)
        pods = sorted(newest_pods(client, found), key=_is_ready)
        events = _events(client, name, pods, namespace)
        lines = pod_lines(client, pods[0], namespace) if pods else []
    except MlstackError:
        return StepTrouble(diagnostic=problem)
    masker = _masker(context)
    told = msgspec.structs.replace(problem, detail=masker.text("\n".join([problem.detail, *events])))
    return StepTrouble(diagnostic=told, log_tail=tuple(masker.text(line) for line in lines))


def pod_lines(client: "Kube", pod: "Manifest", namespace: str, *, lines: int = LINES) -> list[str]:
    """Return the last lines of a pod: of its server, also of the one before that ended; else of its init container."""
    for container, previous in ((SERVER, False), (SERVER, True), (FETCH, False), (FETCH, True)):
        with suppress(MlstackError):  # a container that has not begun is refused
            found = list(
                client.log(pod["metadata"]["name"], namespace, container=container, tail=lines, previous=previous)
            )
            if found:
                return [line.decode(errors="replace").rstrip() for line in found][-lines:]
    return []


def _events(client: "Kube", name: str, pods: list["Manifest"], namespace: str) -> list[str]:
    found = [each for pod in pods[:1] for each in client.events_of(pod["metadata"]["name"], namespace)]
    found = found or client.events_of(name, namespace)
    said = [f"{each.get('reason')}: {' '.join(str(each.get('message', '')).split())}" for each in found]
    shown = list(dict.fromkeys(reversed(said)))[:EVENTS][::-1]
    return ["The last events of its newest pod:", *(f"  {line}" for line in shown)] if shown else []


def _is_ready(pod: "Manifest") -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _masker(context: StepContext) -> Masker:
    endpoint = context.resource
    values: dict[str, str] = {}
    if isinstance(endpoint, Endpoint):
        with suppress(MlstackError):
            secrets = resolve_secrets(
                endpoint.secrets, address=endpoint.address, root=context.root, environment=os.environ
            )
            values = secrets.reveal()
    return Masker(values.values())
