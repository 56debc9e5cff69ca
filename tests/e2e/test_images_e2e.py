"""A project with an image, through the command line: locked, planned, built, run in, and planned again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.image_projects import ImageProject
from tests.e2e.workspace import Workspace, clean_environment
from tests.engines.fixtures import BuildKit, DockerEngine

pytestmark = pytest.mark.e2e


@pytest.fixture
def workspace(
    tmp_path: Path,
    docker_engine: DockerEngine,
    buildkit: BuildKit,
    docker_shell: dict[str, str],
    registry: str,
    base_image: str,
) -> Workspace:
    project = ImageProject(
        tmp_path / "project",
        base_image,
        docker_engine.host,
        registry=f"{registry}/e2e",
        settings={"builder": buildkit.address},
    )
    code = f"open('out.txt', 'w').write('{tmp_path.name}')\n"
    (project.root / "src" / "train.py").write_text(code)
    (tmp_path / "home").mkdir()
    environment = clean_environment(tmp_path / "home", tmp_path / "cache") | docker_shell
    found = Workspace(project.root, environment)
    found.git("init", "-q")
    found.mlstack("init")
    found.git("add", "-A")
    found.git("commit", "-qm", "begin")
    return found


def test_locked_planned_built_run_and_planned_again(workspace: Workspace, base_image: str, tmp_path: Path) -> None:
    workspace.mlstack("lock")
    lock = workspace.root / "mlstack.lock"
    whole = lock.read_text()
    pins = json.loads(whole)["images"]
    assert pins[base_image]["digest"].startswith("sha256:")
    lock.write_text(json.dumps({name: value for name, value in json.loads(whole).items() if name != "images"}))
    refused = workspace.mlstack("plan", "--locked", code=1)
    assert f"The content of the base image {base_image} is not pinned." in " ".join(refused.stderr.split())
    lock.write_text(whole)
    planned = workspace.mlstack("plan", "--locked").stdout
    assert "images.mine will be created (because stages.train needs it)" in planned
    workspace.mlstack("apply", "--yes")
    assert (workspace.root / "out.txt").read_text() == tmp_path.name
    workspace.mlstack("plan", "--detailed-exitcode")
    assert pins[base_image]["digest"] in inspected(workspace)
    (workspace.root / "src" / "train.py").write_text("open('out.txt', 'w').write('edited')\n")
    edited = json.loads(workspace.mlstack("plan", "--json").stdout)
    doing = {row["address"] for row in edited["resource_changes"] if row["change"]["actions"] != ["no-op"]}
    assert doing == {"stages.train"}


def inspected(workspace: Workspace) -> str:
    """Return everything that Docker tells of the image, among it the content of its base."""
    state = json.loads((workspace.root / ".mlstack/state/local/state.json").read_text())
    image = state["resources"]["images.mine"]
    docker = shutil.which("docker", path=workspace.environment["PATH"])
    assert docker is not None
    command = [docker, "image", "inspect", image["attributes"]["image_id"]]
    return subprocess.run(command, env=workspace.environment, capture_output=True, text=True, check=True).stdout


def test_an_engine_that_is_not_there_is_one_error_before_anything_is_changed(workspace: Workspace) -> None:
    path = workspace.root / "mlstack.yaml"
    lines = [line.replace("host: 'unix://", "host: 'unix:///nowhere") for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    workspace.mlstack("plan")
    failed = workspace.mlstack("apply", "--yes", code=1)
    assert failed.stderr.count("error: ") == 1
    assert "The Docker engine cannot be reached" in failed.stderr
    assert not (workspace.root / "dvc.lock").exists()
