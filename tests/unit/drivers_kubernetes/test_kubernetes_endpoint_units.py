"""Endpoints on Kubernetes: what is made for them, and what is said of them without a cluster."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.drivers.kubernetes.endpoint_pod import FETCH_FORMAT, VERSION, secret_name_of
from mlstack.drivers.kubernetes.endpoint_rollout import what_it_does
from mlstack.drivers.kubernetes.endpoints import RUNNER_IMAGE, KubernetesEndpoints
from mlstack.drivers.stacks import StackDriver, Unit
from mlstack.serving.guard import is_open
from mlstack.serving.settings import load_settings
from mlstack.spec.address import Address
from mlstack.spec.spec import TOKEN_VARIABLE, Endpoint
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, as_yaml, graph_of, is_golden, write

WINE, QUALITY = Address("models.wine"), Address("endpoints.quality")
VERSIONS: dict[str, str | None] = {WINE: "0123456789abcdef0123456789abcdef"}
DIGEST = "sha256:" + "d" * 64

TEXT = """\
targets: {kubernetes: {context: dev, namespace: ml}}
compute:
  gpu: {target: kubernetes, accelerator: [nvidia-l4], limits: {gpu: 4}, each: {gpu: 1, memory: 8Gi}}
  serve: {target: kubernetes, limits: {cpu: 4, memory: 16Gi}, each: {cpu: 500m, memory: 512Mi}}
""" + STAGES.replace("POOL", "gpu")
HALF = "{model: models.wine, weight: 50}"
ONE = "endpoints:\n  quality: {compute: serve, model: models.wine}\n"


def unit_of(
    root: Path,
    name: str = "quality",
    versions: dict[str, str | None] = VERSIONS,
    images: dict[Address, str] | None = None,
) -> Unit:
    graph = graph_of(root)
    driver = KubernetesEndpoints(root=root)
    endpoint = graph.resources[Address(f"endpoints.{name}")]
    if images is None:
        images = {address: f"{plan.name}@{DIGEST}" for address, plan in graph.images.items()}
        images[RUNNER_IMAGE] = f"registry.invalid/team/wine/runner@{DIGEST}"
    return driver.unit(endpoint, graph, driver.desired(endpoint, graph, versions), images=images)


def inputs(unit: Unit, key: str) -> dict[str, Any]:
    return next(each.inputs for each in unit.objects if each.key == key)


def pod(unit: Unit) -> dict[str, Any]:
    found: dict[str, Any] = inputs(unit, "deployment")["spec"]["template"]
    return found


def problems(root: Path, name: str = "quality") -> list[str]:
    graph = graph_of(root)
    endpoint = graph.resources[Address(f"endpoints.{name}")]
    assert isinstance(endpoint, Endpoint)
    return [problem.code for problem in KubernetesEndpoints(root=root).check(endpoint, graph)]


def test_it_is_a_driver_of_stacks() -> None:
    driver: StackDriver = KubernetesEndpoints()
    assert driver.stack == "serving"


def test_what_is_made_for_the_smallest_endpoint(tmp_path: Path) -> None:
    unit = unit_of(write(tmp_path, TEXT + ONE))
    assert unit.is_known
    assert is_golden("endpoint_small.yaml", as_yaml([unit]))


def test_what_is_made_for_one_that_grows_and_has_a_way_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALITY_TOKEN", "hush-hush-value")
    more = "replicas: {min: 2, max: 6}, env: {THREADS: '2', TOKEN: {secret: 'env://QUALITY_TOKEN'}}"
    settings = "ingress: {class: nginx, host: '*.ml.example', tls: ml-cert}, image_pull_secret: login, storage: 10Gi"
    remote = "remote_url_inside: 'http://10.1.2.3:9000', remote_env: {AWS_REGION: eu-west-1}"
    text = TEXT.replace("namespace: ml", f"namespace: ml, {settings}, {remote}")
    unit = unit_of(write(tmp_path, text + ONE.replace("model: models.wine", f"model: models.wine, {more}")))
    assert is_golden("endpoint_full.yaml", as_yaml([unit]))
    assert "hush-hush-value" not in msgspec.json.encode(unit).decode()


def test_what_is_known_only_after_apply_makes_the_unit_unknown(tmp_path: Path) -> None:
    root = write(tmp_path, TEXT + ONE)
    assert not unit_of(root, versions={WINE: None}).is_known
    assert not unit_of(root, images={}).is_known


def test_the_server_understands_what_it_is_told(tmp_path: Path) -> None:
    server = pod(unit_of(write(tmp_path / "project", TEXT + ONE)))
    task = json.loads(next(each["value"] for each in server["spec"]["initContainers"][0]["env"][1:]))
    assert task["format"] == FETCH_FORMAT
    assert task["inputs"] == [{"path": "model/wine.joblib", "md5": VERSIONS[WINE]}]
    assert task["remote"]["url"] == "s3://acme/store"
    place = tmp_path / "server.json"
    place.write_text(task["texts"]["server.json"])
    settings = load_settings(place)
    assert (settings.host, settings.port, settings.linger) == ("0.0.0.0", 8080, 5.5)
    assert settings.model.md5 == VERSIONS[WINE] == server["metadata"]["annotations"][VERSION]
    # Whoever ends it waits for longer than it takes to answer what was asked.
    grace = server["spec"]["terminationGracePeriodSeconds"]
    sleep = server["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace > sleep + settings.grace


def test_code_of_a_model_is_fetched_by_hash_as_well(tmp_path: Path) -> None:
    text = TEXT.replace("framework: sklearn", "framework: python, class: 'src.predictor:Wine'") + ONE
    root = write(tmp_path, text)
    (root / "src" / "predictor.py").write_text("class Wine:\n    pass\n")
    task = json.loads(pod(unit_of(root))["spec"]["initContainers"][0]["env"][1]["value"])
    assert "code/src/predictor.py" in [each["path"] for each in task["inputs"]]
    settings = json.loads(task["texts"]["server.json"])
    assert settings["model"]["code"] == "src.predictor:Wine"
    assert settings["model"]["code_paths"][0] == "code/."


def test_pods_with_accelerators_are_replaced_one_by_one_and_without_one_more(tmp_path: Path) -> None:
    root = write(tmp_path, TEXT + ONE.replace("compute: serve", "compute: gpu"))
    deployment = inputs(unit_of(root), "deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    server = deployment["template"]["spec"]["containers"][0]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in deployment["template"]["spec"]["initContainers"][0]["resources"]["requests"]
    assert problems(root) == ["endpoint-replaced-with-a-gap"]


def test_a_full_pool_has_no_room_for_one_more(tmp_path: Path) -> None:
    text = TEXT.replace("limits: {cpu: 4, memory: 16Gi}", "limits: {cpu: 500m}")
    root = write(tmp_path, text + ONE)
    assert inputs(unit_of(root), "deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    assert problems(root) == ["endpoint-replaced-with-a-gap"]


def test_replicas_are_the_autoscaler_s_to_say_where_there_is_one(tmp_path: Path) -> None:
    fixed = unit_of(write(tmp_path / "fixed", TEXT + ONE.replace("wine}", "wine, replicas: {min: 3, max: 3}}")))
    grows = unit_of(write(tmp_path / "grows", TEXT + ONE.replace("wine}", "wine, replicas: {min: 1, max: 3}}")))
    assert inputs(fixed, "deployment")["spec"]["replicas"] == 3
    assert "replicas" not in inputs(grows, "deployment")["spec"]
    assert [each.key for each in fixed.objects] == ["deployment", "service", "disruptions"]
    assert [each.key for each in grows.objects] == ["deployment", "service", "autoscaler"]


def test_requests_in_flight_can_decide_about_replicas(tmp_path: Path) -> None:
    text = TEXT.replace("namespace: ml", "namespace: ml, autoscale: {on: requests, target: 20}")
    unit = unit_of(write(tmp_path, text + ONE.replace("wine}", "wine, replicas: {min: 1, max: 3}}")))
    metric = inputs(unit, "autoscaler")["spec"]["metrics"][0]
    assert metric["pods"] == {
        "metric": {"name": "mlstack_requests_in_flight"},
        "target": {"type": "AverageValue", "averageValue": "20"},
    }
    assert pod(unit)["metadata"]["annotations"]["prometheus.io/path"] == "/metrics"


def test_a_gateway_is_a_way_as_well(tmp_path: Path) -> None:
    gateway = "gateway: {name: edge, namespace: infra, hostname: '*.ml.example', section: https, https: true}"
    root = write(tmp_path, TEXT.replace("namespace: ml", f"namespace: ml, {gateway}") + ONE)
    route = inputs(unit_of(root), "route")
    assert route["kind"] == "HTTPRoute"
    assert route["spec"]["hostnames"] == ["quality.ml.example"]
    assert route["spec"]["parentRefs"][0]["sectionName"] == "https"
    graph = graph_of(root)
    driver = KubernetesEndpoints(root=root)
    assert driver.desired(graph.resources[QUALITY], graph, VERSIONS)["url"] == "https://quality.ml.example"


def test_two_endpoints_cannot_have_one_host(tmp_path: Path) -> None:
    two = ONE + "  second: {compute: serve, model: models.wine}\n"
    root = write(tmp_path, TEXT.replace("namespace: ml", "namespace: ml, ingress: {host: ml.example}") + two)
    assert problems(root) == []
    assert problems(root, "second") == ["endpoint-host-taken"]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("model: models.wine}", "model: models.wine, replicas: {min: 9, max: 9}}", "endpoint-exceeds-pool"),
        ("context: dev", "contxt: dev", "kubernetes-setting-unknown"),
        ("model: models.wine}", f"variants: {{a: {HALF}, b: {HALF}}}}}", "traffic-split-unsupported"),
    ],
)
def test_what_cannot_be_is_known_at_plan_time(tmp_path: Path, old: str, new: str, code: str) -> None:
    found = problems(write(tmp_path, (TEXT + ONE).replace(old, new)))
    assert found[0] == code


def test_a_rotated_secret_is_another_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT + ONE.replace("wine}", "wine, env: {TOKEN: {secret: 'env://QUALITY_TOKEN'}}}")
    root = write(tmp_path, text)
    names = []
    for value in ("one-value", "another-value", "one-value"):
        monkeypatch.setenv("QUALITY_TOKEN", value)
        names.append(secret_name_of(pod(unit_of(root))))
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("quality-secrets-") for name in names)


def test_the_token_of_an_endpoint_comes_from_its_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALITY_TOKEN", "t0k3n-itself")
    unit = unit_of(
        write(tmp_path, TEXT + ONE.replace("wine}", "wine, auth: {token: {secret: 'env://QUALITY_TOKEN'}}}"))
    )
    (server,) = pod(unit)["spec"]["containers"]
    (variable,) = [each for each in server["env"] if "valueFrom" in each]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": secret_name_of(pod(unit)), "key": TOKEN_VARIABLE}
    (fetch,) = pod(unit)["spec"]["initContainers"]
    assert TOKEN_VARIABLE in str(fetch["env"]), "the server is told that there is one"
    assert "t0k3n" not in str(unit)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert is_open(server[probe]["httpGet"]["path"])


def test_without_the_values_nothing_is_said_of_a_secret_s_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUALITY_TOKEN", raising=False)
    root = write(tmp_path, TEXT + ONE.replace("wine}", "wine, env: {TOKEN: {secret: 'env://QUALITY_TOKEN'}}}"))
    graph = graph_of(root)
    known = KubernetesEndpoints(root=root).desired(graph.resources[QUALITY], graph, VERSIONS)
    assert "secrets_version" not in known
    assert known["secrets"] == {"TOKEN": "env://QUALITY_TOKEN"}


@pytest.mark.parametrize(
    ("fetch", "server", "is_ready", "said"),
    [
        ({"waiting": {"reason": "PodInitializing"}}, {"waiting": {}}, False, "one starts on n-1"),
        ({"running": {}}, {"waiting": {}}, False, "one fetches its model"),
        ({"terminated": {}}, {"waiting": {}}, False, "one starts on n-1"),
        ({"terminated": {}}, {"running": {}}, False, "one loads its model"),
        ({"terminated": {}}, {"running": {}}, True, ""),
    ],
)
def test_it_is_said_what_a_pod_does_until_it_is_ready(
    fetch: dict[str, Any], server: dict[str, Any], is_ready: bool, said: str
) -> None:
    status = {
        "conditions": [{"type": "Ready", "status": str(is_ready)}],
        "initContainerStatuses": [{"name": "model", "state": fetch}],
        "containerStatuses": [{"name": "server", "state": server}],
    }
    assert what_it_does({"spec": {"nodeName": "n-1"}, "status": status}) == said
    assert what_it_does({"spec": {}}) == ""
