"""Leaving mlstack: the program and the YAML that are written of units."""

import ast
from functools import partial
from pathlib import Path

import msgspec
import pytest
import yaml

from mlstack.drivers.shared_objects import gathered
from mlstack.drivers.stacks import Unit
from mlstack.render.eject import manifest_names, manifests, program_text, project_files, secret_names
from mlstack.render.eject_readme import readme
from mlstack.spec.address import Address
from tests.unit.drivers_kubernetes.kubernetes_projects import is_golden, write
from tests.unit.drivers_kubernetes.test_kubernetes_endpoint_units import ONE, TEXT
from tests.unit.drivers_kubernetes.test_kubernetes_endpoint_units import unit_of as endpoint_unit
from tests.unit.drivers_kubernetes.test_kubernetes_pool_units import unit_of as pool_unit

QUALITY = Address("endpoints.quality")


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    monkeypatch.setenv("QUALITY_TOKEN", "hush-hush-value")
    gateway = "gateway: {name: edge, hostname: ml.example}, image_pull_secret: login, remote_env: {AWS_REGION: eu}"
    text = TEXT.replace("namespace: ml", f"namespace: ml, {gateway}")
    secret = "model: models.wine, env: {TOKEN: {secret: 'env://QUALITY_TOKEN'}}"
    root = write(tmp_path, text + ONE.replace("model: models.wine", secret))
    pools = {unit.address: unit for unit in (pool_unit(root, "serve"), pool_unit(root, "gpu"))}
    return [*gathered(pools, newer=()), endpoint_unit(root)]


def test_the_program_is_the_golden_one(units: list[Unit]) -> None:
    text = program_text(units, project="wine", environment="local")
    ast.parse(text)
    assert "hush-hush-value" not in text
    pools = program_text(
        units[:3], project="wine", environment="local"
    )  # what its server is told changes with versions
    assert is_golden("eject.py.txt", pools)


def test_every_object_is_made_once_and_after_what_it_stands_on(units: list[Unit]) -> None:
    tree = ast.parse(program_text(units, project="wine", environment="local"))
    made: list[str] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            names = {each.id for each in ast.walk(statement.value) if isinstance(each, ast.Name)}
            assert names <= {*made, "k8s", "pulumi", "options"}, statement.targets[0].id
            made.append(statement.targets[0].id)
    assert len(made) == len(set(made)) == 1 + sum(len(unit.objects) for unit in units)


def test_endpoints_are_made_after_what_they_stand_on_and_protected_as_before(units: list[Unit]) -> None:
    text = program_text(units, project="wine", environment="local", protected={QUALITY})
    own, *others = [line.strip() for line in text.splitlines() if "opts=options(" in line][-len(units[3].objects) :]
    ground = "compute_kubernetes_dev_ml_namespace_ml, compute_serve_service_account_ml_mlstack_run_serve"
    pods = f"{ground}, compute_serve_priority_class_mlstack_wine_local_serve"
    assert own == f"opts=options(kubernetes_dev, {pods}, protect=True),"
    for line in others:
        assert line.endswith("compute_kubernetes_dev_ml_namespace_ml, protect=True),")
    assert text.count("protect=True") == len(units[3].objects)


def test_a_context_of_the_shell_is_no_setting_of_the_program(units: list[Unit]) -> None:
    ignored = 'ignore_changes=["kubeconfig"]'
    assert ignored in program_text(units[:1], project="wine", environment="local")
    provider = msgspec.structs.replace(units[0].provider, settings={"kubeconfig": "/etc/cluster"})
    named = msgspec.structs.replace(units[0], provider=provider)
    text = program_text([named], project="wine", environment="local")
    assert ignored not in text
    assert 'kubeconfig="/etc/cluster"' in text


def test_yaml_of_pools_comes_before_that_of_endpoints(units: list[Unit]) -> None:
    component = msgspec.structs.replace(units[3], address=Address("a/endpoints.quality"))
    names = list(manifest_names([*units[:3], component]).values())
    assert names == sorted(names)
    assert names[0] == "kubernetes-dev/1-compute.kubernetes-dev.ml.yaml", "the namespace, by a name for any shell"
    assert names[2].startswith("kubernetes-dev/3-")


def test_the_readme_says_each_step_and_what_is_left_to_do_by_hand(units: list[Unit]) -> None:
    versions = {"pulumi": "3.1", "pulumi-kubernetes": "4.2"}
    write_readme = partial(
        readme, units, project="wine", environment="prod", versions=versions, remote="s3://wine/store"
    )
    text = write_readme(protected={QUALITY}, pending=["`compute.gpu` will be created"], has_record=True)
    first = write_readme(protected=set(), pending=[], has_record=False)
    for line in ("stack init prod ", "stack import --file stack.json", "install ", "preview ", "up"):
        assert f"\npulumi {line}" in text
    assert "kubectl --context dev diff --server-side --force-conflicts -f kubernetes-dev/" in text
    assert "- `compute.gpu` will be created" in text
    assert "Protected, as mlstack had them: `endpoints.quality`" in text
    assert [name for name in secret_names(units) if f"- `{name}`" not in text] == []
    assert "`s3://wine/store`" in text
    assert "hush-hush-value" not in text
    assert "stack import" not in first
    assert "Protected" not in first


def test_types_that_pulumi_has_no_class_for_are_custom_resources(units: list[Unit]) -> None:
    text = program_text(units[3:], project="wine", environment="local")
    assert 'k8s.apiextensions.CustomResource(\n    "endpoints.quality#route",' in text
    assert 'kind="HTTPRoute"' in text


def test_yaml_is_what_kubectl_takes(units: list[Unit]) -> None:
    documents = list(yaml.safe_load_all(manifests(units[3])))
    assert [each["kind"] for each in documents] == ["Deployment", "Service", "HTTPRoute"]
    assert "pulumi.com" not in manifests(units[3])


def test_secrets_are_named_and_not_written(units: list[Unit]) -> None:
    (own, login, remote) = sorted(secret_names(units), key=lambda name: ("secrets" not in name, name))
    assert own.startswith("ml/quality-secrets-")
    assert (login, remote) == ("ml/login", "ml/mlstack-remote-serve")


def test_the_project_pins_what_it_was_written_for() -> None:
    files = project_files(project="wine", environment="prod", versions={"pulumi": "3.1", "pulumi-kubernetes": "4.2"})
    assert files["requirements.txt"] == "pulumi==3.1\npulumi-kubernetes==4.2\n"
    assert yaml.safe_load(files["Pulumi.yaml"])["runtime"]["name"] == "python"
