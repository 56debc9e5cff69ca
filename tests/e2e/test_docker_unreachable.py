"""`target: docker` on a machine without an engine: planning works; apply says what is missing and changes nothing."""

import pytest

from mlstack.drivers.docker.engine import engine_unreachable
from tests.e2e.conftest import Start
from tests.e2e.workspace import Workspace

FILE = """\
version: 1
project: no-engine
python: {system: true}
compute: {box: {target: TARGET, settings: SETTINGS}}
stages:
  first: {cmd: echo 1 > out/first.txt, outs: [out/first.txt]}
  second: {cmd: cp out/first.txt out/second.txt, deps: [stages.first], outs: [out/second.txt]}
"""
DOCKER = ("docker", "{host: 'unix:///nowhere/docker.sock'}")


@pytest.fixture
def project(start: Start) -> Workspace:
    workspace = start("quickstart")
    (workspace.root / "mlstack.yaml").write_text(FILE, encoding="utf-8")
    return workspace


def use(workspace: Workspace, target: str, settings: str) -> None:
    file = workspace.root / "mlstack.yaml"
    file.write_text(FILE.replace("TARGET", target).replace("SETTINGS", settings), encoding="utf-8")


def test_planning_works_and_nothing_is_changed_before_what_is_missing_is_said(project: Workspace) -> None:
    use(project, *DOCKER)
    project.init()
    assert {address: action for address, action in project.actions().items() if address.startswith("stages")} == {
        "stages.first": "run",
        "stages.second": "run",
    }
    before = project.mlstack("history", "--json").stdout
    for command in (["apply", "--yes"], ["run"]):
        done = project.mlstack(*command, code=1)
        assert "The Docker engine cannot be reached" in done.stderr
        assert "/nowhere/docker.sock" in done.stderr
        assert done.stderr.count("cannot be reached") == 1  # both stages, and their image, miss the same one
    assert not (project.root / "out").exists()
    assert not (project.root / "dvc.yaml").exists()
    assert project.git("status", "--porcelain") == ""
    assert project.mlstack("history", "--json").stdout == before


def test_what_was_trained_in_a_process_needs_no_engine(project: Workspace) -> None:
    use(project, "local", "{}")
    project.init()
    project.mlstack("apply", "--yes")
    project.commit("Results")
    use(project, *DOCKER)
    assert project.actions() == {}
    project.mlstack("apply", "--yes")


def test_an_engine_that_one_may_not_speak_to_is_not_to_be_started() -> None:
    found = engine_unreachable("unix:///run/docker.sock", PermissionError(13, "Permission denied"))
    assert "group of that socket" in found.hint
    assert "Start Docker" not in found.hint
