"""Where the scheduler of a real control plane puts pods of pools that say which capacity they prefer."""

import secrets
from typing import Any

import pytest

from mlstack.drivers.kubernetes.placement import pod_placement
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool
from tests.engines.kube_client import MERGE, KubeApi
from tests.engines.kubernetes import PlayedNodes

pytestmark = pytest.mark.e2e

SPOT = "cloud.google.com/gke-spot"
CASES = [
    (("spot", "on-demand"), False, {"spot"}),
    (("on-demand", "spot"), False, {"on-demand"}),
    (("spot", "reserved"), False, {"spot"}),
    (("reserved", "spot"), False, {"reserved"}),
    (("reserved", "on-demand", "spot"), False, {"reserved"}),
    (("on-demand", "reserved"), False, {"on-demand"}),
    (("spot",), False, {"spot"}),
    (("on-demand",), False, {"on-demand", "reserved"}),
    (("spot", "on-demand"), True, {"on-demand", "reserved"}),
    (("spot", "reserved", "on-demand"), True, {"reserved"}),
]
"""What a pool prefers, whether this try has to be off spot, and the nodes one of which its pod is put on."""


def test_pods_go_where_their_pool_prefers(kube_api: KubeApi, kwok_nodes: PlayedNodes, kube_namespace: str) -> None:
    for labels in (
        {SPOT: "true"},
        {"karpenter.sh/capacity-type": "reserved"},
        {"karpenter.sh/capacity-type": "on-demand"},
    ):
        kwok_nodes.add(1, labels=labels)
    kinds = {}
    for node in kwok_nodes.wait_until_ready():
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        kinds[name] = labels.get("karpenter.sh/capacity-type", "spot")
        if kinds[name] == "spot":  # as this cloud has it
            taint = {"key": SPOT, "value": "true", "effect": "NoSchedule"}
            kube_api.call(
                "PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": [*node["spec"]["taints"], taint]}}, kind=MERGE
            )

    place = kwok_nodes.placement
    settings = KubernetesSettings(node_selector=place["nodeSelector"], tolerations=place["tolerations"])
    pods = f"/api/v1/namespaces/{kube_namespace}/pods"
    main = {"containers": [{"name": "main", "image": "registry.invalid/none"}]}

    def put(name: str, spec: dict[str, Any]) -> str:
        """Return the node that a pod is put on."""
        kube_api.call("POST", pods, {"metadata": {"name": name}, "spec": {**main, **spec}})
        return str(kube_api.wait(f"{pods}/{name}", lambda pod: "nodeName" in pod["spec"])["spec"]["nodeName"])

    for name in kinds:  # of one that the scheduler does not know to be ready yet it would think the next best
        only = {"nodeSelector": {"kubernetes.io/hostname": name}}
        put(f"on-{name}", {**only, "tolerations": [*place["tolerations"], {"key": SPOT, "operator": "Exists"}]})
    for capacity, off_spot, expected in CASES:
        pool = Pool(address=Address("compute.gpu"), target="kubernetes", capacity=capacity)
        spec = pod_placement(pool, settings, gpu=False, off_spot=off_spot)
        assert kinds[put(f"pod-{secrets.token_hex(4)}", spec)] in expected, (capacity, off_spot)
