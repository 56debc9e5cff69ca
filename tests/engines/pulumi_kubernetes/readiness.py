"""Which kinds are waited for, and when they are ready. Workloads are in `workloads.py`."""

from __future__ import annotations

import time

from tests.engines.pulumi_kubernetes import workloads
from tests.engines.pulumi_kubernetes.values import Object
from tests.engines.pulumi_kubernetes.waiting import SETTLED, Look, Verdict, Wait, found


def _service() -> Look:
    """Ready once its endpoints have been the same for ten seconds and none of them is still coming up."""
    last: list[object] = [None, time.monotonic()]

    def look(wait: Wait, live: Object) -> Verdict:
        spec = live.get("spec") or {}
        kind = spec.get("type", "ClusterIP")
        served = kind != "LoadBalancer" or bool(found(live, "status", "loadBalancer", "ingress"))
        if kind == "ExternalName" or spec.get("clusterIP") == "None" or not spec.get("selector"):
            return Verdict(ready=served, reasons=[])
        endpoints = next((e for e in wait.items("Endpoints") if e["metadata"]["name"] == live["metadata"]["name"]), {})
        subsets = endpoints.get("subsets") or []
        version = found(endpoints, "metadata", "resourceVersion")
        if version != last[0]:
            last[:] = [version, time.monotonic()]
        settled = wait.settled or (version is not None and time.monotonic() - float(str(last[1])) >= SETTLED)
        pending = any(each.get("notReadyAddresses") for each in subsets)
        reasons = []
        if not any(each.get("addresses") for each in subsets):
            reasons.append(
                "Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not "
                "match labels on any Pods"
            )
        if not served:
            reasons.append("Service was not allocated an IP address; does your cloud provider support this?")
        done = served and not pending
        return Verdict(ready=done and settled, reasons=reasons, good_enough=done)

    return look


def _ingress() -> Look:
    """Ready once it has an address and each service that it names has endpoints."""
    started = time.monotonic()

    def look(wait: Wait, live: Object) -> Verdict:
        endpoints = {each["metadata"]["name"] for each in wait.items("Endpoints")}
        external = {e["metadata"]["name"] for e in wait.items("Service") if e["spec"].get("type") == "ExternalName"}
        named = {
            name
            for rule in found(live, "spec", "rules") or []
            for path in found(rule, "http", "paths") or []
            if (name := found(path, "backend", "service", "name"))
        }
        settled = wait.settled or time.monotonic() - started >= SETTLED
        targets = settled or not (named - endpoints - external)
        address = bool(found(live, "status", "loadBalancer", "ingress"))
        reasons = [] if targets else ["Ingress has at least one rule with an unavailable target endpoint."]
        if not address:
            reasons.append("Ingress .status.loadBalancer field was not updated with a hostname/IP address.")
        return Verdict(ready=targets and address, reasons=reasons)

    return look


def _resource_quota(_wait: Wait, live: Object) -> Verdict:
    """Ready once the controller has taken its limits over."""
    return Verdict(ready=found(live, "spec", "hard") == found(live, "status", "hard"), reasons=[])


def _claim(wait: Wait, live: Object) -> Verdict:
    """Ready once bound, or once it waits for its first consumer."""
    phase = found(live, "status", "phase")
    name = found(live, "spec", "storageClassName")
    late = False
    if name and phase == "Pending":
        path = wait.cluster.path("storage.k8s.io/v1", "StorageClass", "", name)
        late = wait.cluster.request("GET", path).get("volumeBindingMode") == "WaitForFirstConsumer"
    return Verdict(ready=phase == "Bound" or late, reasons=[])


def _volume(_wait: Wait, live: Object) -> Verdict:
    return Verdict(ready=found(live, "status", "phase") in ("Available", "Bound"), reasons=[])


def look_at(obj: Object) -> Look | None:
    """What to look for in objects of this kind after they were made or changed; None: they are ready at once."""
    match (obj["apiVersion"], obj["kind"]):
        case ("apps/v1", "Deployment"):
            return workloads.deployment
        case ("batch/v1", "Job"):
            return workloads.job
        case ("v1", "Pod"):
            return workloads.pod
        case ("v1", "Service"):
            return _service()
        case ("networking.k8s.io/v1", "Ingress"):
            return _ingress()
        case ("v1", "ResourceQuota"):
            return _resource_quota
        case ("v1", "PersistentVolumeClaim"):
            return _claim
        case ("v1", "PersistentVolume"):
            return _volume
        case _:
            return None


READ_TOO = {("apps/v1", "Deployment"), ("batch/v1", "Job"), ("v1", "Pod"), ("v1", "Service")} | {
    ("networking.k8s.io/v1", "Ingress")
}
"""Kinds of which a refresh says, too, that they are not ready."""
