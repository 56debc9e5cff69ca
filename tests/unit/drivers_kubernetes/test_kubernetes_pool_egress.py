"""Where the pods of a pool may go: read from the settings as the runner reads them."""

from pathlib import Path
from typing import Any

import pytest

from mlstack.drivers.kubernetes.pool_egress import egress_of, egress_rule
from mlstack.drivers.kubernetes.settings import read_settings
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

ONE = """\
targets: {kubernetes: {context: dev, namespace: ml}}
compute:
  gpu: {target: kubernetes, each: {cpu: 2, memory: 8Gi}, settings: {SETTINGS}}
""" + STAGES.replace("POOL", "gpu")
KEYS = 'AWS_ACCESS_KEY_ID: {secret: "env://POD_KEY"}'


def egress(folder: Path, settings: str, *, store: str = "s3://acme/store") -> list[str]:
    root = write(folder, ONE.replace("SETTINGS", settings))
    file = root / "mlstack.yaml"
    file.write_text(file.read_text().replace("s3://acme/store", store))
    spec = graph_of(root).spec
    return egress_of(read_settings(spec.of(Pool)[Address("compute.gpu")]), spec, root=root)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (f"remote_env: {{{KEYS}}}", [":443"]),
        ('remote_url_inside: "http://10.9.8.7:9000"', ["10.9.8.7/32:9000"]),
        # The runner finds the store by these variables before all else.
        (f'remote_env: {{{KEYS}, AWS_ENDPOINT_URL: "http://10.9.8.7:9911"}}', ["10.9.8.7/32:9911"]),
        ('remote_env: {AWS_ENDPOINT: "https://10.9.8.7"}', ["10.9.8.7/32:443"]),
        (
            'remote_url_inside: "http://10.0.0.1:9000", remote_env: {MLSTACK_STORE_AWS_ENDPOINT_URL: "http://[fd00::7]:80"}',
            ["fd00::7/128:80"],
        ),
        ('remote_url_inside: "https://minio.example.com"', [":443"]),
    ],
)
def test_the_remote_is_reached_where_the_runner_looks_for_it(
    tmp_path: Path, settings: str, expected: list[str]
) -> None:
    assert egress(tmp_path, settings) == expected


@pytest.mark.parametrize(
    ("host", "namespace"),
    [
        ("minio", "ml"),
        ("minio.storage", "storage"),
        ("minio.storage.svc", "storage"),
        ("minio.storage.svc.cluster.local", "storage"),
    ],
)
def test_a_service_of_the_cluster_is_reached_by_its_namespace(tmp_path: Path, host: str, namespace: str) -> None:
    """The port of a Service is not the one that its pods listen on, which policies see."""
    assert f"namespace/{namespace}" in egress(tmp_path, f'remote_url_inside: "http://{host}"')


@pytest.mark.parametrize(
    ("settings", "store", "expected"),
    [
        ("priority: 0", "s3://acme/store", ["169.254.169.254/32:80", "169.254.170.23/32:80", ":443"]),
        ("priority: 0", "gs://acme/store", ["169.254.169.252/32:988", "169.254.169.254/32:80", ":443"]),
        ("service_account: trainer", "gs://acme/store", ["169.254.169.252/32:988", "169.254.169.254/32:80", ":443"]),
        (f"remote_env: {{{KEYS}}}, service_account: trainer", "s3://acme/store", [":443"]),
        ('remote_url_inside: "http://10.9.8.7:9000"', "s3://acme/store", ["10.9.8.7/32:9000"]),
    ],
)
def test_pods_without_credentials_of_their_own_may_ask_for_those_of_their_role(
    tmp_path: Path, settings: str, store: str, expected: list[str]
) -> None:
    assert egress(tmp_path, settings, store=store) == expected


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (":443", {"ports": [{"protocol": "TCP", "port": 443}]}),
        (
            "10.0.0.0/8:5432",
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP", "port": 5432}]},
        ),
        (
            "namespace/storage",
            {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}]},
        ),
    ],
)
def test_a_destination_as_a_rule(text: str, rule: dict[str, Any]) -> None:
    assert egress_rule(text) == rule
