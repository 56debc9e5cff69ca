"""On which nodes the pods of a pool may run: accelerators, capacity, the person's own selectors. Pure."""

from typing import Any

from mlstack.diagnostics import Diagnostic, did_you_mean
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.spec.spec import Pool

DEVICE_PLUGINS = {
    "nvidia": "nvidia.com/gpu",
    "amd": "amd.com/gpu",
    "intel": "gpu.intel.com/i915",
    "habana": "habana.ai/gaudi",
    "aws": "aws.amazon.com/neuron",
    "google": "google.com/tpu",
}
"""Who makes an accelerator (its name's first word) → what device plugins call it."""

PRODUCTS = {
    "nvidia-t4": ("Tesla-T4",),
    "nvidia-l4": ("NVIDIA-L4",),
    "nvidia-l40s": ("NVIDIA-L40S",),
    "nvidia-a10": ("NVIDIA-A10",),
    "nvidia-a10g": ("NVIDIA-A10G",),
    "nvidia-a100": ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    "nvidia-a100-40gb": ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"),
    "nvidia-a100-80gb": ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    "nvidia-h100": ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"),
    "nvidia-h200": ("NVIDIA-H200",),
    "nvidia-b200": ("NVIDIA-B200",),
    "nvidia-v100": ("Tesla-V100-SXM2-16GB", "Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-16GB"),
    "nvidia-p100": ("Tesla-P100-PCIE-16GB",),
}
"""Accelerators → what NVIDIA's GPU feature discovery writes as `nvidia.com/gpu.product`."""

_SPOT = (
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
"""How clouds label the nodes that they may take away again; two of them taint those as well."""
_RESERVED = (
    ("karpenter.sh/capacity-type", "reserved"),
    ("eks.amazonaws.com/capacityType", "CAPACITY_BLOCK"),
)
_RESERVATION = "cloud.google.com/reservation-name"
"""A label that only nodes of a reservation have, whatever its value."""
_SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


def gpu_name(pool: Pool, settings: KubernetesSettings) -> str:
    """Return the resource under which the cluster's device plugin offers the accelerators of a pool."""
    if settings.gpu_resource is not None:
        return settings.gpu_resource
    return DEVICE_PLUGINS.get(_maker(pool.accelerator[0]) if pool.accelerator else "nvidia", "nvidia.com/gpu")


def pod_placement(pool: Pool, settings: KubernetesSettings, *, gpu: bool, off_spot: bool = False) -> dict[str, Any]:
    """Return the fields of a pod's spec that say where it may run.

    `gpu`: it asks for accelerators. `off_spot`: not on nodes that can be taken away, though the pool would allow them.
    """
    found: dict[str, Any] = {}
    if settings.node_selector:
        found["nodeSelector"] = dict(settings.node_selector)
    tolerations = [dict(each) for each in settings.tolerations]
    if gpu:
        tolerations.append({"key": gpu_name(pool, settings), "operator": "Exists", "effect": "NoSchedule"})
    if "spot" in pool.capacity and not off_spot:
        tolerations += [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in _SPOT_TAINTS]
    if tolerations:
        found["tolerations"] = tolerations
    affinity = _affinity(pool, settings, gpu=gpu, off_spot=off_spot)
    if affinity:
        found["affinity"] = {"nodeAffinity": affinity}
    return found


def may_leave_spot(pool: Pool) -> bool:
    """Whether a pool that uses spot nodes has others as well: the last try of a run goes there."""
    return "spot" in pool.capacity and len(pool.capacity) > 1


def check_accelerators(pool: Pool, settings: KubernetesSettings) -> tuple[Diagnostic, ...]:
    """Return what is wrong with the names of a pool's accelerators."""
    known = [*PRODUCTS, *settings.accelerator_labels]
    return tuple(_unknown(name, pool, known) for name in pool.accelerator if name.lower() not in known)


def _affinity(pool: Pool, settings: KubernetesSettings, *, gpu: bool, off_spot: bool) -> dict[str, Any]:
    not_spot = off_spot or bool(pool.capacity and "spot" not in pool.capacity)
    only_spot = pool.capacity == ("spot",) and not off_spot
    avoided = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in _SPOT] if not_spot else []
    ranked = [_terms(name, settings) for name in pool.accelerator] if gpu else []
    terms = [[*term, *avoided] for each in ranked for term in each] or ([avoided] if avoided else [])
    if only_spot:
        spot = [{"key": key, "operator": "In", "values": [value]} for key, value in _SPOT]
        terms = [[*term, one] for term in terms or [[]] for one in spot]
    found: dict[str, Any] = {}
    if terms and all(terms):  # an empty term would mean "none" to the scheduler
        required = [{"matchExpressions": term} for term in terms]
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": required}
    preferred = _preferred(ranked, pool, off_spot=off_spot)
    if preferred:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return found


def _terms(accelerator: str, settings: KubernetesSettings) -> list[list[dict[str, Any]]]:
    """Return the alternatives by which nodes with an accelerator are known; an empty one is any node."""
    name = accelerator.lower()
    own = settings.accelerator_labels.get(name)
    if own is not None:
        return [[{"key": key, "operator": "In", "values": [value]} for key, value in sorted(own.items())]]
    model = name.partition("-")[2]
    labels: list[tuple[str, list[str]]] = [
        ("nvidia.com/gpu.product", list(PRODUCTS.get(name, (accelerator,)))),
        ("cloud.google.com/gke-accelerator", [name]),
        ("karpenter.k8s.aws/instance-gpu-name", [model]),
        ("eks.amazonaws.com/instance-gpu-name", [model]),
    ]
    return [[{"key": key, "operator": "In", "values": values}] for key, values in labels]


def _preferred(ranked: list[list[list[dict[str, Any]]]], pool: Pool, *, off_spot: bool) -> list[dict[str, Any]]:
    """Return the order of preference: of accelerators, then of kinds of capacity."""
    found = []
    if len(ranked) > 1:
        for place, alternatives in enumerate(ranked[:-1]):
            weight = max(10, 100 - 30 * place)
            found += [{"weight": weight, "preference": {"matchExpressions": term}} for term in alternatives if term]
    kinds = [kind for kind in pool.capacity if kind != "spot" or not off_spot]
    for place, kind in enumerate(reversed(kinds)):
        # Nothing is gained by the last one; all of them together count for less than an accelerator's place.
        found += [{"weight": 5 * place, "preference": {"matchExpressions": term}} for term in _nodes(kind) if place]
    return found


def _nodes(capacity: str) -> list[list[dict[str, Any]]]:
    """Return the alternatives by which nodes of a kind of capacity are known."""
    if capacity == "spot":
        return [[{"key": key, "operator": "In", "values": [value]}] for key, value in _SPOT]
    if capacity == "reserved":
        labelled = [[{"key": key, "operator": "In", "values": [value]}] for key, value in _RESERVED]
        return [*labelled, [{"key": _RESERVATION, "operator": "Exists"}]]
    others = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in (*_SPOT, *_RESERVED)]
    return [[*others, {"key": _RESERVATION, "operator": "DoesNotExist"}]]


def _maker(accelerator: str) -> str:
    return accelerator.partition("-")[0].lower()


def _unknown(name: str, pool: Pool, known: list[str]) -> Diagnostic:
    return Diagnostic(
        code="accelerator-unknown",
        summary="No node is known to have this accelerator",
        detail=f"`{name}` is none of {', '.join(known)}.",
        hint=did_you_mean(name.lower(), known)
        or f"Say by which labels its nodes are known: `accelerator_labels: {{{name}: {{LABEL: VALUE}}}}`.",
        address=pool.address,
    )
