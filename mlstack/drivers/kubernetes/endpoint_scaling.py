"""What an autoscaler leaves to others: that it has enough to begin with, and to say when it does not work."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlstack.drivers.stacks import Unit

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube, Manifest

AUTOSCALER = "HorizontalPodAutoscaler"


def hold_replicas(client: "Kube", unit: Unit) -> None:
    """Keep as many replicas as there are while the number of them passes from the file to an autoscaler.

    A Deployment whose number nobody sets any more gets one replica, however many it had: so the number is set by us as
    well, before the engine lets go of it. The autoscaler takes it over with its first change.
    """
    name, namespace = _deployment(unit)
    found = client.get("Deployment", name, namespace)
    if _least(unit) and found is not None:
        about = {"name": name, "namespace": namespace}
        spec = {"replicas": int(found["spec"].get("replicas", 1))}
        client.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": spec})


def raise_to_least(client: "Kube", unit: Unit) -> None:
    """Give an endpoint the fewest replicas that its autoscaler will leave it, which would do so a while later."""
    least, (name, namespace) = _least(unit), _deployment(unit)
    found = client.get("Deployment", name, namespace) if least else None
    if found is not None and int(found["spec"].get("replicas", 1)) < least:
        client.patch("Deployment", name, namespace, {"spec": {"replicas": least}})


def metrics_api(autoscaler: Mapping[str, Any]) -> str:
    """Return the group of the API from which an autoscaler takes what it goes by."""
    kinds = {metric["type"] for metric in autoscaler["spec"]["metrics"]}
    return "custom.metrics.k8s.io" if "Pods" in kinds else "metrics.k8s.io"


def why_without_metrics(client: "Kube", unit: Unit) -> str:
    """Say that an endpoint does not grow because nobody serves what its autoscaler goes by; "" where that is not so.

    What the autoscaler itself says is no use right after a rollout: of new pods there are no metrics yet.
    """
    scaler = next((each.inputs for each in unit.objects if each.inputs["kind"] == AUTOSCALER), None)
    if scaler is None or client.has_api(api := metrics_api(scaler)):
        return ""
    least = scaler["spec"]["minReplicas"]
    return f"its autoscaler leaves it at {least}, whatever its load: the cluster does not serve {api}"


def why_not_scaled(autoscaler: "Manifest") -> str:
    """Say why an autoscaler does not work; "" for one that does, or has not said anything yet."""
    conditions: Sequence[Mapping[str, Any]] = (autoscaler.get("status") or {}).get("conditions") or ()
    for each in conditions:
        if each["type"] in ("AbleToScale", "ScalingActive") and each["status"] == "False":
            message = " ".join(str(each.get("message") or "").split()).rstrip(".")
            return f"its autoscaler does not scale ({each.get('reason')}: {message})"
    return ""


def _least(unit: Unit) -> int:
    """Return the fewest replicas that an autoscaler leaves; 0 where there is none."""
    return next(
        (int(each.inputs["spec"]["minReplicas"]) for each in unit.objects if each.inputs["kind"] == AUTOSCALER), 0
    )


def _deployment(unit: Unit) -> tuple[str, str]:
    about = next(each.inputs["metadata"] for each in unit.objects if each.key == "deployment")
    return str(about["name"]), str(about["namespace"])
