"""Where pods may run."""

from typing import Any

from mlstack.drivers.kubernetes.placement import check_accelerators, gpu_name, may_leave_spot, pod_placement
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool

NOTHING = KubernetesSettings()


def pool(*accelerator: str, capacity: tuple[str, ...] = ()) -> Pool:
    """Return a pool."""
    return Pool(address=Address("compute.gpu"), target="kubernetes", accelerator=accelerator, capacity=capacity)


def fits(placement: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether the scheduler would take a node with these labels: one of the terms holds in full."""
    affinity = placement.get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms")
    selected = all(labels.get(key) == value for key, value in placement.get("nodeSelector", {}).items())
    return selected and (
        terms is None
        or any(
            all(
                (labels.get(each["key"]) in each["values"]) is (each["operator"] == "In")
                for each in term["matchExpressions"]
            )
            for term in terms
        )
    )


def test_nothing_asked_is_nothing_said() -> None:
    """A plain pool runs anywhere."""
    assert pod_placement(pool(), NOTHING, gpu=False) == {}


def test_an_accelerator_is_found_by_the_labels_of_all_clouds() -> None:
    """Whoever labelled the node."""
    placement = pod_placement(pool("nvidia-l4", "nvidia-a10g"), NOTHING, gpu=True)
    assert fits(placement, {"nvidia.com/gpu.product": "NVIDIA-L4"})
    assert fits(placement, {"cloud.google.com/gke-accelerator": "nvidia-l4"})
    assert fits(placement, {"karpenter.k8s.aws/instance-gpu-name": "a10g"})
    assert not fits(placement, {"nvidia.com/gpu.product": "NVIDIA-H200"})
    assert not fits(placement, {})
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in placement["tolerations"]


def test_the_first_accelerator_is_preferred() -> None:
    """A list is an order."""
    preferred = pod_placement(pool("nvidia-l4", "nvidia-a10g", "nvidia-t4"), NOTHING, gpu=True)["affinity"][
        "nodeAffinity"
    ]["preferredDuringSchedulingIgnoredDuringExecution"]
    weights = {
        each["preference"]["matchExpressions"][0]["values"][0]: each["weight"]
        for each in preferred
        if each["preference"]["matchExpressions"][0]["key"] == "cloud.google.com/gke-accelerator"
    }
    assert weights == {"nvidia-l4": 100, "nvidia-a10g": 70}


def test_ones_own_labels_count_instead() -> None:
    """For clusters that nobody has labelled as usual; none at all is an answer, too."""
    own = KubernetesSettings(accelerator_labels={"nvidia-l4": {"rack": "7"}, "acme-1": {}}, gpu_resource="acme/gpu")
    assert fits(pod_placement(pool("nvidia-l4"), own, gpu=True), {"rack": "7"})
    assert not fits(pod_placement(pool("nvidia-l4"), own, gpu=True), {"nvidia.com/gpu.product": "NVIDIA-L4"})
    assert fits(pod_placement(pool("acme-1"), own, gpu=True), {})
    assert fits(pod_placement(pool("nvidia-l4", "acme-1"), own, gpu=True), {})
    assert gpu_name(pool("acme-1"), own) == "acme/gpu"
    assert gpu_name(pool("amd-mi300x"), NOTHING) == "amd.com/gpu"
    assert check_accelerators(pool("acme-1"), own) == ()


def test_an_unknown_accelerator_is_said() -> None:
    """With the one that was meant."""
    (found,) = check_accelerators(pool("nvidia-l4", "nvidia-a10gg"), NOTHING)
    assert found.code == "accelerator-unknown"
    assert "nvidia-a10g" in found.hint


def test_the_last_try_is_off_spot() -> None:
    """Where the pool has other nodes as well."""
    both = pool(capacity=("spot", "on-demand"))
    spot = {"karpenter.sh/capacity-type": "spot"}
    assert may_leave_spot(both)
    assert not may_leave_spot(pool(capacity=("spot",)))
    assert fits(pod_placement(both, NOTHING, gpu=False), spot)
    assert fits(pod_placement(both, NOTHING, gpu=False), {})
    assert not fits(pod_placement(both, NOTHING, gpu=False, off_spot=True), spot)
    assert fits(pod_placement(both, NOTHING, gpu=False, off_spot=True), {})


def test_capacity_decides_about_nodes() -> None:
    """Only spot, never spot."""
    spot = {"cloud.google.com/gke-spot": "true"}
    assert not fits(pod_placement(pool(capacity=("on-demand",)), NOTHING, gpu=False), spot)
    assert fits(pod_placement(pool(capacity=("spot",)), NOTHING, gpu=False), spot)
    assert not fits(pod_placement(pool(capacity=("spot",)), NOTHING, gpu=False), {})
    gpu_on_spot = pod_placement(pool("nvidia-l4", capacity=("spot",)), NOTHING, gpu=True)
    assert fits(gpu_on_spot, spot | {"cloud.google.com/gke-accelerator": "nvidia-l4"})
    assert not fits(gpu_on_spot, {"cloud.google.com/gke-accelerator": "nvidia-l4"})
