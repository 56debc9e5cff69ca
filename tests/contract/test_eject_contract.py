"""Leaving mlstack, on the real engine and a real API server: the files are taken, and take over what is there."""

import os
import runpy
from pathlib import Path

import pytest
import yaml

from mlstack.render.eject import manifests, program_text
from tests.contract.test_kubernetes_units_contract import QUALITY, SERVE, Project, project
from tests.engines.kube_client import KubeApi
from tests.engines.stacks import collected

pytestmark = pytest.mark.e2e
__all__ = ["project"]


@pytest.fixture
def stack_environment(
    tmp_path: Path, pulumi_cli: Path, pulumi_home: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    monkeypatch.setenv("PATH", f"{pulumi_cli.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "stacks").mkdir()
    return {
        "PULUMI_HOME": str(pulumi_home),
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'stacks'}",
        "PULUMI_CONFIG_PASSPHRASE": "leaving",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }


def test_kubectl_takes_the_yaml(project: Project, kube_api: KubeApi) -> None:
    project.apply(SERVE)
    for address in (SERVE, QUALITY):
        for document in yaml.safe_load_all(manifests(project.unit(address))):
            project.client().apply(document, dry_run=True)
    assert kube_api.call("GET", f"/api/v1/namespaces/{project.namespace}/services")["items"] == []


def test_the_program_takes_over_what_is_there_and_leaves_it_as_it_is(
    project: Project, kube_api: KubeApi, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    from pulumi import automation

    project.apply(SERVE, QUALITY)
    place = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/quality"
    before = kube_api.call("GET", place)
    units = [project.unit(SERVE), project.unit(QUALITY)]
    program = tmp_path / "__main__.py"
    program.write_text(program_text(units, project="wine", environment="local"))
    (tmp_path / "work").mkdir()
    options = automation.LocalWorkspaceOptions(work_dir=str(tmp_path / "work"), env_vars=stack_environment)

    def run() -> None:
        runpy.run_path(str(program))

    with collected():
        stack = automation.create_or_select_stack("left", project_name="wine", program=run, opts=options)
        stack.set_config("adopt", automation.ConfigValue("true"))
        wanted = sum(len(unit.objects) for unit in units) + 2  # the stack itself and its provider
        assert stack.preview().change_summary == {automation.OpType.CREATE: wanted}
        stack.up()
        after = kube_api.call("GET", place)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"], "no pod was started anew"
        assert stack.preview(refresh=True).change_summary == {automation.OpType.SAME: wanted}
