"""A project with an image, through the command line: locked, planned, built, run in, and planned again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

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


def test_a_base_that_has_vanished_is_named_with_its_pin_and_the_way_out(
    workspace: Workspace, docker_engine: DockerEngine, registry: str, base_image: str, tmp_path: Path
) -> None:
    base = f"{registry}/vanishing/base:1"
    first = push_base(docker_engine, base, base_image, tmp_path / "base", "first")
    workspace.edit("mlstack.yaml", base_image, base)
    workspace.mlstack("lock")
    manifest = f"http://{registry}/v2/vanishing/base/manifests/{first}"
    assert requests.delete(manifest, timeout=60).status_code == 202
    workspace.mlstack("plan")
    failed = workspace.mlstack("apply", "--yes", code=1)
    said = " ".join(failed.stderr.split())
    assert "What an image begins with cannot be had" in said
    assert f"{base}@{first}, as mlstack.lock pins it" in said
    assert "images.mine" in said
    assert "mlstack lock --upgrade images.mine" in said
    assert not (workspace.root / "dvc.lock").exists()

    second = push_base(docker_engine, base, base_image, tmp_path / "base", "second")
    workspace.mlstack("lock", "--upgrade", "images.mine")
    workspace.mlstack("apply", "--yes")
    assert json.loads((workspace.root / "mlstack.lock").read_text())["images"][base]["digest"] == second != first
    workspace.mlstack("plan", "--detailed-exitcode")


def push_base(engine: DockerEngine, name: str, base: str, folder: Path, label: str) -> str:
    """Push an image under this name that no builder but this engine's has seen; return its digest."""
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM {base}\nLABEL of={label}-{folder.parent.name}\n")
    engine.client.images.build(path=str(folder), tag=name, rm=True)
    repository, _, tag = name.rpartition(":")
    said = engine.client.images.push(repository, tag, stream=True, decode=True)
    (digest,) = [line["aux"]["Digest"] for line in said if "aux" in line]
    return str(digest)


def test_doctor_says_which_engine_answers_and_what_would_build(
    workspace: Workspace, docker_engine: DockerEngine, buildkit: BuildKit
) -> None:
    checks = json.loads(workspace.mlstack("doctor", "--json", code=None).stdout)["checks"]
    found = {check["name"]: (check["status"], check["found"]) for check in checks}
    version = docker_engine.client.version()["Version"]
    assert found["docker engine"] == ("ok", f"Docker {version} at {docker_engine.host}")
    assert found["image builder"][0] == "ok"
    assert buildkit.address in found["image builder"][1]


def test_an_engine_that_is_not_there_is_one_error_before_anything_is_changed(workspace: Workspace) -> None:
    path = workspace.root / "mlstack.yaml"
    lines = [line.replace("host: 'unix://", "host: 'unix:///nowhere") for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    workspace.mlstack("plan")
    failed = workspace.mlstack("apply", "--yes", code=1)
    assert failed.stderr.count("error: ") == 1
    assert "The Docker engine cannot be reached" in failed.stderr
    assert not (workspace.root / "dvc.lock").exists()
