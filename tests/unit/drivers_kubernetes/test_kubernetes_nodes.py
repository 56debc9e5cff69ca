"""Whether any node could ever take what a pool is asked for."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from mlstack.diagnostics import Severity
from mlstack.drivers.kubernetes.placement import pod_placement
from mlstack.drivers.kubernetes.preflight_nodes import check_nodes, takes, why_on_no_node
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Range, Resources, Stage

GI = 2**30


def node(labels: dict[str, str] | None = None, taints: list[dict[str, str]] | None = None) -> dict[str, Any]:
    room = {"cpu": "4", "memory": "16Gi", "pods": "110"}
    return {"metadata": {"labels": labels or {}}, "spec": {"taints": taints or []}, "status": {"allocatable": room}}


def gpu_node(labels: dict[str, str] | None = None, count: str = "4") -> dict[str, Any]:
    found = node(labels)
    found["status"]["allocatable"]["nvidia.com/gpu"] = count
    return found


def stage(**resources: Any) -> Stage:
    pool = Address("compute.p")
    return Stage(address=Address("stages.train"), cmd="true", pool=pool, resources=Resources(**resources))


def pool(**fields: Any) -> Pool:
    return Pool(address=Address("compute.p"), target="kubernetes", **fields)


def why(user: Stage, of: Pool, *nodes: dict[str, Any]) -> str:
    found = why_on_no_node(user, of, nodes)
    return "" if found is None else found.detail


def test_what_fits_on_one_node_is_fine() -> None:
    assert why(stage(cpu=4, memory=16 * GI), pool(), node()) == ""


def test_what_is_larger_than_the_largest_node_is_named() -> None:
    assert "needs 32 GiB of memory, and the largest node that it may run on has 16 GiB" in why(
        stage(memory=32 * GI), pool(), node(), node()
    )


def test_amounts_have_to_be_on_one_node() -> None:
    small, large = node(), node()
    small["status"]["allocatable"] |= {"cpu": "64", "memory": "1Gi"}
    assert "no single node has 32 cores and 8 GiB of memory" in why(stage(cpu=32, memory=8 * GI), pool(), small, large)


def test_an_accelerator_that_no_node_has() -> None:
    a100 = pool(accelerator=("nvidia-a100",))
    assert "no node that it may run on has nvidia-a100 (as `nvidia.com/gpu`)" in why(
        stage(), a100, gpu_node({"nvidia.com/gpu.product": "NVIDIA-L4"}), node()
    )
    assert why(stage(), a100, gpu_node({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"})) == ""
    assert "8 GPUs" in why(stage(gpu=8), a100, gpu_node({"nvidia.com/gpu.product": "NVIDIA-A100-PCIE-40GB"}))


def test_taints_and_selectors_keep_pods_away() -> None:
    taint = {"key": "team", "value": "other", "effect": "NoSchedule"}
    assert "lets it on (taints)" in why(stage(cpu=1), pool(), node(taints=[taint]))
    tolerant = pool(settings={"tolerations": [{"key": "team", "operator": "Exists"}]})
    assert why(stage(cpu=1), tolerant, node(taints=[taint])) == ""
    selective = pool(settings={"node_selector": {"disk": "ssd"}})
    assert why(stage(cpu=1), selective, node()) != ""
    assert why(stage(cpu=1), selective, node({"disk": "ssd"})) == ""


def test_what_passes_by_itself_does_not_count() -> None:
    assert (
        why(stage(cpu=1), pool(), node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])) == ""
    )


def test_nodes_that_come_when_they_are_needed_are_waited_for() -> None:
    found = why_on_no_node(stage(cpu=96), pool(nodes=Range(0, 4)), [node()])
    assert found is not None
    assert found.severity is Severity.WARNING


@pytest.mark.parametrize(("capacity", "is_taken"), [(("spot",), True), (("on-demand",), False), ((), True)])
def test_nodes_that_may_be_taken_away(capacity: tuple[str, ...], is_taken: bool) -> None:
    placement = pod_placement(pool(capacity=capacity), KubernetesSettings(), gpu=False)
    assert takes(node({"karpenter.sh/capacity-type": "spot"}), placement) is is_taken


class Cluster:
    """Nodes that may be seen, and how often they were asked for."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes, self.listed = list(nodes), 0

    def may(self, verb: str, kind: str) -> bool:
        return (verb, kind) == ("list", "Node")

    def listing(self, kind: str) -> list[dict[str, Any]]:
        assert kind == "Node"
        self.listed += 1
        return self.nodes


def test_those_that_ask_for_the_same_are_told_as_one() -> None:
    sizes = {"a": 32, "b": 32, "c": 1, "d": 64, "e": 32}
    asking: list[Stage | Pool] = [
        msgspec.structs.replace(stage(memory=size * GI), address=Address(f"stages.{name}"))
        for name, size in sizes.items()
    ]
    graph = SimpleNamespace(resources={each.address: each for each in (pool(), *asking)})
    cluster = Cluster(node(), node())

    found = list(check_nodes(cast("Any", cluster), [pool()], cast("Any", graph)))

    assert [each.code for each in found] == ["no-node-fits", "no-node-fits"]
    assert found[0].detail.startswith("stages.a in compute.p: it needs 32 GiB")
    assert found[0].detail.endswith(" 2 more of its pool ask for the same.")
    assert found[1].detail.startswith("stages.d in compute.p: it needs 64 GiB")
    assert "more of its pool" not in found[1].detail
    assert cluster.listed == 1
