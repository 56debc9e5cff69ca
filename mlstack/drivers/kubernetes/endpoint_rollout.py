"""Waiting until what was applied is what runs: new pods are ready, and the endpoint says which model it serves."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.base import StepContext
from mlstack.drivers.kubernetes.endpoint_pod import FETCH, READY, SERVER, VERSION
from mlstack.drivers.kubernetes.refusals import Patience
from mlstack.drivers.stacks import Unit
from mlstack.spec.address import Address

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest

REVISION = "deployment.kubernetes.io/revision"
SLICE_OF = "kubernetes.io/service-name"
"""The label by which an EndpointSlice belongs to a Service."""
_LOOK_EVERY = (0.5, 3.0)
"""Seconds between two looks: at the beginning, and after a while."""
_GOES_ON = "The cluster goes on with it; nobody looks whether it gets ready."
OLD_PODS = "waiting until the Service sends nothing to old pods any more"
PATIENCE = 20.0
"""Seconds for which something may fail that is tried again by itself: a registry that hiccups."""
UNREACHABLE_FOR = 120.0
"""Seconds for which a cluster that does not answer is asked again before nobody waits for the rollout any more."""
_ANSWERS_WITHIN = 60.0
_LEAVES_WITHIN = 300.0
_CRASHES = {"OOMKilled": 2}
"""How often a container may end before it counts as failed, by the reason; 3 for any other."""
_REFUSED = 121
"""What the init container exits with when the content in the remote is not what was asked for (`runner/run.py`)."""

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def why_not_ready(deployment: "Manifest") -> str:
    """Say what a Deployment lacks to be ready; "" for one that is. Pods that are on their way out do not count."""
    wanted = int(deployment["spec"].get("replicas", 1))
    status = deployment.get("status") or {}
    available = int(status.get("availableReplicas", 0))
    if available < wanted:
        return f"{available} of {wanted} replicas are ready"
    return ""


def wait_until_left(client: "Kube", unit: Unit, context: StepContext) -> None:
    """Wait while a Deployment of that name ends: taken back, say, a moment ago. What is made over it goes with it.

    Raises `MlstackError`.
    """
    about = next(each.inputs["metadata"] for each in unit.objects if each.key == "deployment")
    began, is_told = time.monotonic(), False
    while True:
        found = client.get("Deployment", about["name"], about["namespace"])
        if found is None or not found["metadata"].get("deletionTimestamp"):
            return
        if not is_told:
            context.say(f"waiting until the Deployment {about['name']} of before has ended")
            is_told = True
        if time.monotonic() - began > _LEAVES_WITHIN:
            raise MlstackError(_still_there(unit.address, found))
        if context.stop.wait(_LOOK_EVERY[0]):
            raise MlstackError(interrupted(unit.address, "Nothing of it was made."), exit_code=ExitCode.INTERRUPTED)


def wait_for_rollout(client: "Kube", unit: Unit, context: StepContext) -> dict[str, Any]:
    """Wait until all pods of an endpoint are new and ready, and it says that it serves the model.

    Returns what was seen (`image_id`). Raises `MlstackError` as soon as it is known that it will not come to that.
    """
    deployment = next(each.inputs for each in unit.objects if each.key == "deployment")
    name, namespace = str(deployment["metadata"]["name"]), str(deployment["metadata"]["namespace"])
    watcher = _Watcher(client, unit.address, name, namespace)
    began, pause, said = time.monotonic(), _LOOK_EVERY[0], ""
    patience = Patience(UNREACHABLE_FOR)
    while (waits_for := _patiently(watcher.look, patience)) is not None:
        if waits_for != said:
            context.say(waits_for)
            said = waits_for
        if context.stop.wait(pause):
            raise MlstackError(interrupted(unit.address, _GOES_ON), exit_code=ExitCode.INTERRUPTED)
        pause = min(_LOOK_EVERY[1], max(pause, (time.monotonic() - began) / 10))
    version = str(deployment["spec"]["template"]["metadata"]["annotations"].get(VERSION, ""))
    service = next(each.inputs for each in unit.objects if each.key == "service")
    _ask(client, service, version, context, address=unit.address)
    return watcher.seen()


def _patiently(look: Callable[[], str | None], patience: Patience) -> str | None:
    """Look, and take a server that does not answer for one more thing to wait for, a while."""
    try:
        waits_for = look()
    except MlstackError as error:
        if not patience.has(error):
            raise
        return f"no answer, asking again: {error.diagnostics[0].detail}"
    patience.answered()
    return waits_for


class _Watcher:
    """Looks at one Deployment and its newest pods."""

    def __init__(self, client: "Kube", address: Address, name: str, namespace: str) -> None:
        self._client, self._address, self._name, self._namespace = client, address, name, namespace
        self._since: dict[str, float] = {}
        self._pods: list[Manifest] = []

    def look(self) -> str | None:
        """Return what is waited for; None when there is nothing left. Raises `MlstackError` when it is in vain."""
        found = self._client.get("Deployment", self._name, self._namespace)
        if found is None:
            raise MlstackError(_gone(self._address, self._name, self._namespace))
        spec, status = found["spec"], found.get("status") or {}
        if int(status.get("observedGeneration", 0)) < int(found["metadata"]["generation"]):
            return "waiting for the cluster to see the change"
        wanted, updated = int(spec.get("replicas", 1)), int(status.get("updatedReplicas", 0))
        available, total = int(status.get("availableReplicas", 0)), int(status.get("replicas", 0))
        self._pods = newest_pods(self._client, found)
        if updated >= wanted and available >= wanted and total <= updated:
            return self._sends_to_old_pods()
        if (problem := self._problem(status)) is not None:
            raise MlstackError(problem)
        waiting = next((text for pod in self._pods if (text := _waits_for_node(pod))), "")
        doing = next((text for pod in self._pods if (text := what_it_does(pod))), "")
        said = f"{min(available, updated)} of {wanted} new replicas are ready"
        return waiting or (f"{said}; {doing}" if doing else said)

    def seen(self) -> dict[str, Any]:
        """Return which image the pods run, as the nodes say."""
        ids = {
            str(each.get("imageID"))
            for pod in self._pods
            for each in (pod.get("status") or {}).get("containerStatuses") or ()
            if each["name"] == SERVER and each.get("imageID")
        }
        return {"image_id": ids.pop()} if len(ids) == 1 else {}

    def _sends_to_old_pods(self) -> str | None:
        """Say so while the Service still has others than the new pods: whoever asks now might get an old answer.

        Pods of others that have its labels, by design or not, are nothing to wait for: hence no longer than PATIENCE.
        """
        new = {str(pod["metadata"]["uid"]) for pod in self._pods}
        asked = ready_pods(self._client, self._name, self._namespace)
        if asked is None or asked <= new or self._is_lasting("old pods"):
            return None
        return OLD_PODS

    def _problem(self, status: Mapping[str, Any]) -> Diagnostic | None:
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        refused = conditions.get("ReplicaFailure", {})
        if refused.get("status") == "True":
            return self._lasting("pods", _refused(self._address, str(refused.get("message", ""))))
        for pod in self._pods:
            for key, problem in _problems_of(pod, self._address):
                if (lasting := self._lasting(key, problem)) is not None:
                    return lasting
        progress = conditions.get("Progressing", {})
        if progress.get("status") == "False" and progress.get("reason") == "ProgressDeadlineExceeded":
            return _too_slow(self._address, str(progress.get("message", "")))
        return None

    def _lasting(self, key: str, problem: Diagnostic) -> Diagnostic | None:
        """Return a problem once it has been there for long enough; one without a key is there to stay."""
        return problem if not key or self._is_lasting(key) else None

    def _is_lasting(self, key: str) -> bool:
        now = time.monotonic()
        return now - self._since.setdefault(key, now) >= PATIENCE


def newest_pods(client: "Kube", deployment: "Manifest") -> list["Manifest"]:
    """Return the pods of a Deployment's newest revision that are not on their way out."""
    namespace, labels = str(deployment["metadata"]["namespace"]), deployment["spec"]["selector"]["matchLabels"]
    revision = (deployment["metadata"].get("annotations") or {}).get(REVISION)
    owners = {
        each["metadata"]["uid"]
        for each in client.listing("ReplicaSet", namespace, labels=labels)
        if (each["metadata"].get("annotations") or {}).get(REVISION) == revision
    }
    return [
        pod
        for pod in client.listing("Pod", namespace, labels=labels)
        if not pod["metadata"].get("deletionTimestamp")
        and any(owner["uid"] in owners for owner in pod["metadata"].get("ownerReferences") or ())
    ]


def ready_pods(client: "Kube", service: str, namespace: str) -> set[str] | None:
    """Return the uids of the pods that a Service sends to; None if that is not told.

    Two lists have them, which two controllers write, one a moment after the other. Nodes and gateways go by
    EndpointSlices; by Endpoints goes the API server, by way of which `mlstack predict` asks.
    """
    if not client.may("list", "EndpointSlice", namespace):
        return None
    slices = client.listing("EndpointSlice", namespace, labels={SLICE_OF: service})
    sliced = [
        each
        for one in slices
        for each in one.get("endpoints") or ()
        if (each.get("conditions") or {}).get("ready", True)
    ]
    may_see = client.may("get", "Endpoints", namespace)
    subsets = (client.get("Endpoints", service, namespace) or {}).get("subsets") or () if may_see else ()
    listed = [each for one in subsets for each in one.get("addresses") or ()]
    return {str(each["targetRef"]["uid"]) for each in (*sliced, *listed) if each.get("targetRef")}


def _problems_of(pod: "Manifest", address: Address) -> Iterator[tuple[str, Diagnostic]]:
    """Yield what keeps a pod from getting ready; a problem with a key may still pass."""
    status, name = pod.get("status") or {}, str(pod["metadata"]["name"])
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state, before = each.get("state") or {}, (each.get("lastState") or {}).get("terminated") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        reason, said = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        key = f"{name}/{each['name']}"
        if reason in _IMAGE:
            yield ("" if reason == "InvalidImageName" else f"{key}/image"), _no_image(address, str(each["image"]), said)
        elif reason in _CONTAINER:
            yield f"{key}/{reason}", _no_container(address, reason, said)
        last = ended or before
        if each["name"] == FETCH and last.get("exitCode") == _REFUSED:
            yield "", _no_model(address, str(last.get("message", "")))
        elif last.get("exitCode") and int(each.get("restartCount", 0)) >= _CRASHES.get(str(last.get("reason")), 3):
            yield "", _crashes(address, each["name"], last)


def _waits_for_node(pod: "Manifest") -> str:
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False" and each.get("reason") == "Unschedulable":
            return f"waiting for a node: {str(each.get('message', '')).rstrip('.')}"
    return ""


def what_it_does(pod: "Manifest") -> str:
    """Say how far a pod is on its way to be ready; "" for one that is, or of which nothing is known yet."""
    status = pod.get("status") or {}
    if any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ()):
        return ""
    both = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = {each["name"]: each.get("state") or {} for each in both}
    if "running" in states.get(SERVER, {}):
        return "one loads its model"
    if "running" in states.get(FETCH, {}):
        return "one fetches its model"
    node = (pod.get("spec") or {}).get("nodeName")
    return f"one starts on {node}" if node else ""


def _ask(client: "Kube", service: "Manifest", version: str, context: StepContext, *, address: Address) -> None:
    """Have the endpoint itself say, through its Service, that it is ready and which model it serves."""
    about = service["metadata"]
    began, patience = time.monotonic(), Patience(UNREACHABLE_FOR)
    while True:
        try:
            answer = client.through_service(about["name"], about["namespace"], "http", READY)
        except MlstackError as error:
            if not patience.has(error):
                raise
        else:
            began += patience.answered() * _ANSWERS_WITHIN  # it has its time anew
            if answer.status == 403:
                context.say("not asked whether it is ready: no right to `services/proxy`")
                return
            serves = answer.headers.get("mlstack-model-version", "")
            if answer.status == 200 and serves == version:
                return
            if time.monotonic() - began > _ANSWERS_WITHIN:
                raise MlstackError(_no_answer(address, answer.status, serves, version))
        if context.stop.wait(1.0):
            raise MlstackError(interrupted(address, _GOES_ON), exit_code=ExitCode.INTERRUPTED)


# ---------------------------------------------------------------------------------------------------- words


def _still_there(address: Address, deployment: "Manifest") -> Diagnostic:
    about = deployment["metadata"]
    holders = about.get("finalizers") or ()
    return Diagnostic(
        code="endpoint-still-ends",
        summary="What has the endpoint's name does not end",
        detail=f"The Deployment {about['name']} in {about['namespace']} is being removed since "
        f"{about['deletionTimestamp']}" + (f"; {', '.join(holders)} holds it." if holders else "."),
        hint="Look at its pods: one on a node that does not answer stays until the node is removed. Then apply again.",
        command=f"kubectl get pods --namespace {about['namespace']}",
        address=address,
    )


def _gone(address: Address, name: str, namespace: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-gone",
        summary="The endpoint went away while it was waited for",
        detail=f"There is no Deployment {name} in {namespace} any more: somebody has removed it.",
        hint="Apply again.",
        address=address,
    )


def _refused(address: Address, said: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-pods-refused",
        summary="The cluster refuses the pods of the endpoint",
        detail=f"{said.rstrip('.')}.",
        hint="Raise the `limits` of the pool, or lower what the endpoint asks for; it may be another quota's as well.",
        command="mlstack show " + address,
        address=address,
    )


def _no_image(address: Address, image: str, said: str) -> Diagnostic:
    return Diagnostic(
        code="image-not-pulled",
        summary="A node cannot pull an image",
        detail=f"{image}: {said.rstrip('.') or 'the registry did not give it'}.",
        hint="See that nodes reach the registry, and may read there: `image_pull_secret` names a Secret with a login.",
        address=address,
    )


def _no_container(address: Address, reason: str, said: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-container-refused",
        summary="A node cannot make the container of the endpoint",
        detail=f"{reason}: {said.rstrip('.')}.",
        hint="Correct that and apply again.",
        address=address,
    )


def _no_model(address: Address, said: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-model-refused",
        summary="The pods cannot get the model",
        detail=f"{(said.strip().splitlines() or ['The remote does not have it'])[-1].rstrip('.')}.",
        hint="Push it from where it is; then apply again.",
        command="mlstack push",
        address=address,
    )


def _crashes(address: Address, container: str, last: Mapping[str, Any]) -> Diagnostic:
    why = str(last.get("reason", ""))
    lines: Sequence[str] = str(last.get("message", "")).strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    is_memory = why == "OOMKilled"
    return Diagnostic(
        code="endpoint-out-of-memory" if is_memory else "endpoint-crashes",
        summary="The endpoint needs more memory than it gets" if is_memory else "The endpoint keeps ending",
        detail=f"Its container `{container}` ends with exit code {last.get('exitCode')}{said}.",
        hint="Raise `resources.memory` of the endpoint."
        if is_memory
        else "The end of its log says why; correct that, and apply again.",
        address=address,
    )


def _too_slow(address: Address, said: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-not-ready",
        summary="The endpoint did not get ready in time",
        detail=f"{said.rstrip('.')}.",
        hint="Its events say what it waits for: a node, an image, a model that takes long to load.",
        address=address,
    )


def _no_answer(address: Address, status: int, serves: str, wanted: str) -> Diagnostic:
    what = f"it serves version {serves or 'unknown'} instead of {wanted}" if status == 200 else f"HTTP {status}"
    return Diagnostic(
        code="endpoint-not-answering",
        summary="The endpoint's pods are ready, and it does not answer as it should",
        detail=f"Asked through the API server: {what}.",
        hint="Something else may have its Service's labels, or a policy is in the way.",
        address=address,
    )


def interrupted(address: Address, detail: str) -> Diagnostic:
    """Say that nobody waits for an endpoint any more."""
    return Diagnostic(
        code="interrupted",
        summary="Stopped while the endpoint started",
        detail=detail,
        hint="Apply again to see.",
        address=address,
    )
