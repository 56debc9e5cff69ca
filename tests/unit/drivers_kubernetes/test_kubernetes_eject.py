"""Leaving mlstack: the program and the YAML that are written of units."""

import ast
from pathlib import Path

import pytest
import yaml

from mlstack.drivers.stacks import Unit
from mlstack.render.eject import manifests, program_text, project_files, secret_names
from tests.unit.drivers_kubernetes.kubernetes_projects import is_golden, write
from tests.unit.drivers_kubernetes.test_kubernetes_endpoint_units import ONE, TEXT
from tests.unit.drivers_kubernetes.test_kubernetes_endpoint_units import unit_of as endpoint_unit
from tests.unit.drivers_kubernetes.test_kubernetes_pool_units import unit_of as pool_unit


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    monkeypatch.setenv("QUALITY_TOKEN", "hush-hush-value")
    gateway = "gateway: {name: edge, hostname: ml.example}, image_pull_secret: login, remote_env: {AWS_REGION: eu}"
    text = TEXT.replace("namespace: ml", f"namespace: ml, {gateway}")
    secret = "model: models.wine, env: {TOKEN: {secret: 'env://QUALITY_TOKEN'}}"
    root = write(tmp_path, text + ONE.replace("model: models.wine", secret))
    return [pool_unit(root, "serve"), pool_unit(root, "gpu"), endpoint_unit(root)]


def test_the_program_is_the_golden_one(units: list[Unit]) -> None:
    text = program_text([*units[:2], units[2]], project="wine", environment="local")
    ast.parse(text)
    assert "hush-hush-value" not in text
    pools = program_text(
        units[:2], project="wine", environment="local"
    )  # what its server is told changes with versions
    assert is_golden("eject.py.txt", pools)


def test_every_object_is_made_once_and_after_what_it_stands_on(units: list[Unit]) -> None:
    order = [units[1], units[0], units[2]]
    tree = ast.parse(program_text(order, project="wine", environment="local"))
    made: list[str] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            names = {each.id for each in ast.walk(statement.value) if isinstance(each, ast.Name)}
            assert names <= {*made, "k8s", "pulumi", "options", "ADOPT"}, statement.targets[0].id
            made.append(statement.targets[0].id)
    assert len(made) == len(set(made)) == 1 + 1 + sum(len(unit.objects) for unit in order)


def test_types_that_pulumi_has_no_class_for_are_custom_resources(units: list[Unit]) -> None:
    text = program_text(units[2:], project="wine", environment="local")
    assert 'k8s.apiextensions.CustomResource(\n    "endpoints.quality#route",' in text
    assert 'kind="HTTPRoute"' in text


def test_yaml_is_what_kubectl_takes(units: list[Unit]) -> None:
    documents = list(yaml.safe_load_all(manifests(units[2])))
    assert [each["kind"] for each in documents] == ["Deployment", "Service", "HTTPRoute"]
    assert "pulumi.com" not in manifests(units[2])


def test_secrets_are_named_and_not_written(units: list[Unit]) -> None:
    (own, login, remote) = sorted(secret_names(units), key=lambda name: ("secrets" not in name, name))
    assert own.startswith("ml/quality-secrets-")
    assert (login, remote) == ("ml/login", "ml/mlstack-remote-serve")


def test_the_project_pins_what_it_was_written_for() -> None:
    files = project_files(project="wine", environment="prod", versions={"pulumi": "3.1", "pulumi-kubernetes": "4.2"})
    assert files["requirements.txt"] == "pulumi==3.1\npulumi-kubernetes==4.2\n"
    assert yaml.safe_load(files["Pulumi.yaml"])["runtime"]["name"] == "python"
