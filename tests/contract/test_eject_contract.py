"""Leaving mlstack, on the real engine and a real API server: the files are taken, and take over what is there."""

import json
import os
import runpy
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
import yaml

from mlstack.drivers.pulumi.engine import PulumiEngine
from mlstack.drivers.registry import record_to_leave_with
from mlstack.drivers.stacks import Unit
from mlstack.render.eject import manifests, program_text
from mlstack.spec.spec import Spec
from tests.contract.cluster_units import QUALITY, SERVE, Project
from tests.contract.test_kubernetes_units_contract import project
from tests.engines.kube_client import KubeApi
from tests.engines.stacks import collected
from tests.unit.drivers_kubernetes.kubernetes_projects import graph_of

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

    project.write("priority_class: system-cluster-critical")  # one of mlstack's own would be the whole cluster's
    spec = graph_of(project.root).spec
    units = [project.unit(SERVE), project.unit(QUALITY)]
    made(units, spec, project.root, stack_environment["PULUMI_HOME"])
    place = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/quality"
    before = kube_api.call("GET", place)
    program = tmp_path / "__main__.py"
    program.write_text(program_text(units, project="wine", environment="local", protected={QUALITY}))
    record = record_to_leave_with(spec, root=project.root, protected={QUALITY})
    assert record is not None
    (tmp_path / "work").mkdir()
    options = automation.LocalWorkspaceOptions(work_dir=str(tmp_path / "work"), env_vars=stack_environment)

    def run() -> None:
        runpy.run_path(str(program))

    with collected():
        stack = automation.create_or_select_stack("local", project_name="wine", program=run, opts=options)
        stack.import_stack(automation.Deployment(**json.loads(record)))
        wanted = sum(len(unit.objects) for unit in units) + 2  # the stack itself and its provider
        assert stack.preview().change_summary == {automation.OpType.SAME: wanted}
        assert stack.preview(refresh=True).change_summary == {automation.OpType.SAME: wanted}

        program.write_text(program.read_text().replace('"revisionHistoryLimit": 3', '"revisionHistoryLimit": 4'))
        assert stack.up().summary.resource_changes == {"same": wanted - 1, "update": 1}
        after = kube_api.call("GET", place)
        assert after["spec"]["revisionHistoryLimit"] == 4
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["spec"]["template"] == before["spec"]["template"], "pods were started anew"

        with pytest.raises(automation.CommandError, match="protected"):
            stack.destroy()
        assert "deletionTimestamp" not in kube_api.call("GET", place)["metadata"]


def made(units: Sequence[Unit], spec: Spec, root: Path, home: str) -> None:
    """Make each unit as apply does, in the stack to which it belongs."""
    engine = PulumiEngine(spec, root=root, environ={**os.environ, "PULUMI_HOME": home})
    for unit in units:
        results = engine.up(unit.stack, [unit], tell=lambda _address, _line: None, stop=Event())
        assert [each.problem for each in results.values()] == [None]
