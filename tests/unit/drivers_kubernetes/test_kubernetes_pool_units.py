"""Pools on Kubernetes: what is made for them, and what is said of them without a cluster."""

from pathlib import Path
from typing import Any

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.amounts import cpu_text, memory_text
from mlstack.drivers.kubernetes.check_pools import check_pool
from mlstack.drivers.kubernetes.placement import gpu_name
from mlstack.drivers.kubernetes.pools import KubernetesPools
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.drivers.registry import check_units
from mlstack.drivers.stacks import StackDriver, Unit
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Pool
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, as_yaml, graph_of, is_golden, write

TWO = """\
targets: {kubernetes: {context: dev, namespace: ml}}
compute:
  gpu:
    target: kubernetes
    accelerator: [nvidia-l4]
    limits: {cpu: 16, memory: 64Gi, gpu: 4}
    each: {cpu: 2, memory: 8Gi, gpu: 1}
    settings: {priority: 100, queue: training, cluster_queue: team, egress: ["10.1.0.0/16:5432"]}
  serve: {target: kubernetes, limits: {cpu: 4, memory: 16Gi}, each: {cpu: 500m, memory: 512Mi}}
""" + STAGES.replace("POOL", "gpu")


def unit_of(root: Path, name: str) -> Unit:
    graph = graph_of(root)
    driver = KubernetesPools(root=root)
    pool = graph.resources[Address(f"compute.{name}")]
    return driver.unit(pool, graph, driver.desired(pool, graph, {}), images={})


def keys(unit: Unit) -> list[str]:
    return [each.key for each in unit.objects]


def inputs(unit: Unit, key: str) -> dict[str, Any]:
    return next(each.inputs for each in unit.objects if each.key == key)


def codes(root: Path, name: str) -> list[str]:
    graph = graph_of(root)
    pool = graph.resources[Address(f"compute.{name}")]
    assert isinstance(pool, Pool)
    return [problem.code for problem in check_pool(pool, graph, root=root)]


def test_it_is_a_driver_of_stacks() -> None:
    driver: StackDriver = KubernetesPools()
    assert driver.stack == "platform"


def test_what_is_made_for_two_pools_in_one_namespace(tmp_path: Path) -> None:
    root = write(tmp_path, TWO)
    assert is_golden("pools.yaml", as_yaml([unit_of(root, "gpu"), unit_of(root, "serve")]))


def test_all_pools_of_a_namespace_have_it_together_and_describe_it_the_same_way(tmp_path: Path) -> None:
    """It is nobody's own, so that it stays whoever of them comes or goes (`drivers/shared_objects.py`)."""
    root = write(tmp_path, TWO)
    gpu, serve = unit_of(root, "gpu"), unit_of(root, "serve")
    shared = {each.key: each for each in gpu.objects if each.shared}
    assert [*shared] == ["namespace-ml", "deny", "limits", "queue-training"]
    assert {each.key: each for each in serve.objects if each.shared} == {
        key: each for key, each in shared.items() if key != "queue-training"
    }
    for unit in (gpu, serve):
        standing = {each.key: each.needs for each in unit.objects}
        alone = {key for key, needs in standing.items() if not needs}
        assert {key.partition("-mlstack")[0] for key in alone} == {"namespace-ml", "priority-class"}
        assert {needs for needs in standing.values() if needs} == {("namespace-ml",)}


def test_a_unit_is_the_same_every_time(tmp_path: Path) -> None:
    root = write(tmp_path, TWO)
    assert unit_of(root, "gpu") == unit_of(root, "gpu")


def test_nothing_of_a_namespace_is_made_that_somebody_else_has(tmp_path: Path) -> None:
    root = write(tmp_path, TWO.replace("namespace: ml", "namespace: team, create_namespace: false"))
    unit = unit_of(root, "gpu")
    assert not {"namespace-team", "limits"} & set(keys(unit))
    # What is denied by default is denied to our own pods alone.
    assert inputs(unit, "deny-team.gpu")["spec"]["podSelector"]["matchLabels"]["mlstack.dev/project"] == "wine"
    assert inputs(unit, "deny-team.gpu")["spec"]["podSelector"]["matchLabels"]["mlstack.dev/pool"] == "compute.gpu"
    assert all(each.needs == () for each in unit.objects)


def test_people_without_rights_over_the_cluster_name_what_is_there(tmp_path: Path) -> None:
    own = "priority_class: batch, service_account: ml-runner, queue: theirs"
    root = write(tmp_path, TWO.replace("priority: 100, queue: training, cluster_queue: team", own))
    unit = unit_of(root, "gpu")
    assert not [key for key in keys(unit) if key.startswith(("priority-class", "service-account", "queue"))]
    assert inputs(unit, "quota")["spec"]["scopeSelector"]["matchExpressions"][0]["values"] == ["batch"]


def test_policies_open_the_way_to_the_remote_by_its_address_and_port(tmp_path: Path) -> None:
    inside = 'remote_url_inside: "http://10.9.8.7:9000"'
    root = write(tmp_path, TWO.replace("priority: 100, queue: training, cluster_queue: team", inside))
    rules = inputs(unit_of(root, "gpu"), "traffic-ml.gpu")["spec"]["egress"]
    assert {"ports": [{"protocol": "TCP", "port": 9000}], "to": [{"ipBlock": {"cidr": "10.9.8.7/32"}}]} in rules
    assert {"ports": [{"protocol": "TCP", "port": 443}]} not in rules


def test_a_registry_and_a_remote_are_asked_for(tmp_path: Path) -> None:
    root = write(tmp_path, TWO)
    assert codes(root, "gpu") == []
    file = root / "mlstack.yaml"
    file.write_text(file.read_text().replace("registry: registry.invalid/team\nremote: s3://acme/store\n", ""))
    assert codes(root, "gpu") == ["registry-missing", "remote-missing"]
    assert codes(root, "serve") == []  # nobody uses it


def test_a_folder_is_no_remote_for_pods(tmp_path: Path) -> None:
    root = write(tmp_path, TWO)
    file = root / "mlstack.yaml"
    file.write_text(file.read_text().replace("s3://acme/store", "/srv/store"))
    assert codes(root, "gpu") == ["remote-missing"]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ("egress: [anywhere]", "anywhere"),
        ("egress: ['10.0.0.0/8:0']", "10.0.0.0/8:0"),
        ("ingress: {host: a.example}, gateway: {name: g}", "ingress"),
        ("ingress: {class: nginx}", "host"),
        ("cluster_queue: team", "queue"),
        ("autoscale: {on: gpu}", "autoscale"),
        ("user: root", "root"),
        ("user: 0", "root"),
        ("user: '0:0'", "root"),
        ("storage: much", "`storage`: `much`"),
        ("keep_failed: soon", "`keep_failed`: `soon`"),
        ("priority: 2000000000", "2000000000"),
        ("service_account: My_Account", "My_Account"),
        ("priority_class: ''", "priority_class"),
        ("image_pull_secret: a b", "a b"),
        ("queue: Team", "Team"),
        ("gateway: {name: G}", "gateway.name"),
        ("gateway: {name: g, hostname: 'a..b'}", "a..b"),
        ("ingress: {host: 'NOT A HOST'}", "NOT A HOST"),
        ("gpu_resource: some gpu", "some gpu"),
        ("node_selector: {a b: c}", "a b"),
        ("node_selector: {a: b c}", "b c"),
        ("node_selector: {a: 5}", "is to be text, and is a whole number"),
        ("accelerator_labels: {mine: {a: /}}", "accelerator_labels.mine"),
        ("tolerations: [{key: a, operator: Maybe}]", "tolerations[0].operator"),
        ("tolerations: [{key: a, effekt: NoSchedule}]", "effekt"),
        ("tolerations: [{key: a, tolerationSeconds: long}]", "tolerationSeconds"),
        ("tolerations: [{effect: NoSchedule}]", "has no `key`"),
        ("context: 5", "`context` is to be text, and is a whole number"),
        ("remote_env: {A B: c}", "A B"),
        ("remote_env: {A: {secret: a-value-that-stands-here}}", "remote_env.A"),
        ("remote_env: {AWS_REGION: 3}", "remote_env.AWS_REGION"),
        ("names_space: x", "names_space"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, settings: str, word: str) -> None:
    root = write(tmp_path, TWO.replace("context: dev, namespace: ml", f"namespace: ml, {settings}"))
    graph = graph_of(root)
    pool = graph.resources[Address("compute.serve")]
    assert isinstance(pool, Pool)
    found = check_pool(pool, graph, root=root)
    assert found
    assert word in found[0].detail
    assert not any("a-value-that-stands-here" in str(problem) for problem in found)


@pytest.mark.parametrize("name", ["", "My.NS", "a" * 64, "-a"])
def test_a_namespace_that_no_cluster_has_is_wrong(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, TWO.replace("namespace: ml", f"namespace: {name!r}"))
    assert codes(root, "serve") == ["kubernetes-setting-wrong"]


def test_settings_as_people_write_them_are_right(tmp_path: Path) -> None:
    settings = """namespace: ml,
      node_selector: {example.com/gpu.product: NVIDIA-L4, spot: ''}, gpu_resource: amd.com/gpu,
      tolerations: [{key: a, operator: Equal, value: b, effect: NoSchedule}, {operator: Exists}],
      egress: [':443', '10.0.0.0/8:5432', 'fd00::/8:53'], gateway: {name: g, hostname: '*.ml.example.com'},
      user: '1000:1000', priority: -5, service_account: train.er, keep_failed: 1h, storage: 10Gi,
      remote_env: {A_1: b, C: {secret: env://C}}"""
    root = write(tmp_path, TWO.replace("namespace: ml", settings))
    assert codes(root, "serve") == []


def test_a_pool_that_leaves_is_asked_for_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    graph = graph_of(write(tmp_path, "compute: {gpu: {target: local}}\n" + STAGES.replace("POOL", "gpu")))
    pool = Address("compute.gpu")
    row = Change(address=pool, kind=Kind.POOL, action=Action.DELETE, reasons=(), before={"target": "kubernetes"})
    (problem,) = check_units([row], graph, root=tmp_path, is_planning=False)
    assert problem.code == "kubeconfig-missing"


def test_a_typing_error_in_a_setting_gets_a_hint(tmp_path: Path) -> None:
    root = write(tmp_path, TWO.replace("context: dev", "contxt: dev"))
    graph = graph_of(root)
    with pytest.raises(MlstackError) as raised:
        KubernetesPools(root=root).desired(graph.resources[Address("compute.gpu")], graph, {})
    assert "context" in raised.value.diagnostics[0].hint


def test_a_quota_that_is_too_small_is_known_at_plan_time(tmp_path: Path) -> None:
    text = TWO + "endpoints:\n" + "".join(f"  e{n}: {{compute: serve, model: models.wine}}\n" for n in range(3))
    root = write(tmp_path, text.replace("limits: {cpu: 4, memory: 16Gi}", "limits: {cpu: 1}"))
    assert codes(root, "serve") == ["pool-quota-too-small"]


def test_a_stage_of_many_nodes_has_to_fit(tmp_path: Path) -> None:
    root = write(tmp_path, TWO.replace("{compute: gpu, cmd", "{compute: gpu, nodes: 9, cmd"))
    assert codes(root, "gpu") == ["pool-quota-too-small"] * 3


def test_amounts_are_written_as_the_api_server_writes_them() -> None:
    assert [cpu_text(each) for each in (2, 0.5, 1.25, 0.0001)] == ["2", "500m", "1250m", "1m"]
    assert [memory_text(each) for each in (2**34, 3 * 2**29, 5 * 10**8, 1001)] == ["16Gi", "1536Mi", "500M", "1001"]


def test_device_plugins_are_known_by_the_maker() -> None:
    def name(*accelerator: str, **settings: str) -> str:
        pool = Pool(address=Address("compute.x"), accelerator=accelerator)
        return gpu_name(pool, KubernetesSettings(gpu_resource=settings.get("gpu_resource")))

    assert name("nvidia-l4") == name() == "nvidia.com/gpu"
    assert name("amd-mi300x") == "amd.com/gpu"
    assert name("nvidia-a100", gpu_resource="nvidia.com/mig-1g.10gb") == "nvidia.com/mig-1g.10gb"


def test_a_store_that_only_this_machine_is_told_of_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, TWO)
    assert codes(root, "gpu") == []
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert codes(root, "gpu") == ["remote-endpoint-not-for-pods"]
    assert codes(root, "serve") == [], "nothing runs there"
    for told in ("remote_url_inside: http://minio:9000", "remote_env: {AWS_ENDPOINT_URL: http://minio:9000}"):
        write(root, TWO.replace("namespace: ml", f"namespace: ml, {told}"))
        assert codes(root, "gpu") == []
    write(root, TWO)
    (root / ".dvc").mkdir()
    remote = "['remote \"mlstack\"']\n    url = s3://acme/store\n"
    (root / ".dvc" / "config").write_text(remote, encoding="utf-8")
    assert codes(root, "gpu") == ["remote-endpoint-not-for-pods"]
    (root / ".dvc" / "config").write_text(f"{remote}    endpointurl = http://minio:9000\n", encoding="utf-8")
    assert codes(root, "gpu") == []
