"""Images, built by every builder there is, pushed to a real registry, and run."""

import os
import subprocess
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent, NotChecked, Present
from mlstack.drivers.docker.images import DockerImages
from mlstack.graph.change import Action, Change
from mlstack.graph.images import reference_to_run
from mlstack.spec.address import Kind
from tests.contract.image_projects import MINE, ImageProject
from tests.engines.fixtures import BuildKit, DockerEngine

BUILDERS = ("buildctl", "buildx", "buildx-in-engine", "classic")
PINNED = "{base: BASE, python: {lock: requirements.txt, version: '3.11'}}"


@pytest.fixture(params=BUILDERS)
def builder(request: pytest.FixtureRequest, buildkit: BuildKit, docker_shell: dict[str, str], shell: None) -> str:
    """The setting that chooses a builder. All four are asked for by the tests that name it."""
    del shell
    match request.param:
        case "buildctl":
            return buildkit.address
        case "buildx":
            command = ["docker", "buildx", "create", "--name", "daemon", "--driver", "remote", buildkit.address]
            subprocess.run(command, env={**os.environ, **docker_shell}, check=True, capture_output=True)
            return "daemon"
        case "buildx-in-engine":
            return "default"
        case _:
            return "classic"


@pytest.fixture
def shell(docker_shell: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mlstack find what a person's shell would find."""
    for name, value in docker_shell.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project(tmp_path: Path, docker_engine: DockerEngine, base_image: str, shell: None) -> ImageProject:
    del shell
    return ImageProject(tmp_path / "project", base_image, docker_engine.host)


def run_in(engine: DockerEngine, reference: str, *command: str) -> str:
    output = engine.client.containers.run(reference, list(command), remove=True, network_mode="none")
    return str(output.decode())


# -------------------------------------------------------------------------------------------- every builder


def test_every_builder_builds_pushes_and_lets_it_run_by_digest(
    builder: str, project: ImageProject, registry: str, docker_engine: DockerEngine, request: pytest.FixtureRequest
) -> None:
    project.registry = f"{registry}/contract-{request.node.callspec.params['builder']}"
    project.settings["builder"] = builder

    project.write()
    record = project.apply(fresh=True)
    attributes = record.attributes
    assert attributes["tag"] == project.plan().tag
    assert attributes["reference"] == f"{project.registry}/demo/mine:{attributes['tag']}"
    reference = reference_to_run(attributes)
    assert reference == f"{project.registry}/demo/mine@{attributes['digest']}"
    assert run_in(docker_engine, reference, "cat", "/opt/files/assets/words.txt") == "one two\n"
    assert run_in(docker_engine, reference, "id", "-u") == "65532\n"
    assert DockerImages().look_at(project.plan(), project.graph(), record).observation == Present()
    assert any("assets" in line or "files" in line for line in project.said), "progress is told"


def test_every_builder_hands_on_what_a_failing_command_said(builder: str, project: ImageProject) -> None:
    project.settings["builder"] = builder
    project.image = "{dockerfile: assets/Dockerfile}"
    project.write()
    (project.root / "assets/Dockerfile").write_text(f"FROM {project.base}\nRUN echo before; echo no liberror; exit 3\n")
    with pytest.raises(MlstackError) as caught:
        project.apply(fresh=True)
    (found,) = caught.value.diagnostics
    assert found.code == "image-build-failed"
    assert found.detail.splitlines()[-2:] == ["│ before", "│ no liberror"]


def test_every_builder_builds_for_the_engine_alone(
    builder: str, project: ImageProject, docker_engine: DockerEngine
) -> None:
    project.image = f"{{base: BASE, python: system, files: [assets], description: {builder[-8:]!r}}}"
    project.settings["builder"] = builder
    project.write()
    record = project.apply(fresh=True)
    assert record.attributes["digest"] is None
    assert str(docker_engine.client.images.get(record.attributes["reference"]).id) == record.attributes["image_id"]
    assert run_in(docker_engine, record.attributes["image_id"], "cat", "/opt/files/assets/words.txt") == "one two\n"
    plan, graph = project.plan(), project.graph()
    assert DockerImages().look_at(plan, graph, record).observation == Present()
    docker_engine.client.images.remove(record.attributes["image_id"], force=True)
    gone = DockerImages().look_at(plan, graph, record).observation
    assert isinstance(gone, Absent)


def test_locked_packages_are_installed_and_importable(
    project: ImageProject, buildkit: BuildKit, docker_engine: DockerEngine
) -> None:
    project.image = PINNED
    project.settings["builder"] = buildkit.address
    project.write()
    record = project.apply(fresh=True)
    said = run_in(
        docker_engine, record.attributes["image_id"], "python", "-c", "import iniconfig as i; print(i.__file__)"
    )
    assert said.startswith("/opt/venv/")


# ------------------------------------------------------------------------------------------ reproducible


def test_buildkit_builds_twice_from_two_paths_to_one_digest(
    project: ImageProject, buildkit: BuildKit, registry: str, tmp_path: Path
) -> None:
    project.image = PINNED
    project.registry = f"{registry}/contract-twice"
    project.settings["builder"] = buildkit.address
    project.write()
    other = project.copy_to(tmp_path / "elsewhere" / "project")
    (other.root / "requirements.txt").chmod(0o600)
    assert other.plan().tag == project.plan().tag
    first, second = project.apply(fresh=True), other.apply(fresh=True)
    assert first.attributes == second.attributes
    assert first.attributes["digest"].startswith("sha256:")


def test_an_image_that_has_the_tag_is_not_built_again(
    project: ImageProject, buildkit: BuildKit, registry: str, docker_engine: DockerEngine
) -> None:
    project.registry = f"{registry}/contract-reused"
    project.settings["builder"] = buildkit.address
    project.write()
    first = project.apply()
    docker_engine.client.images.remove(reference_to_run(first.attributes), force=True)
    project.settings["builder"] = "unix:///nowhere"
    project.write()
    second = project.apply()
    assert {**second.attributes, "builder": ""} == {**first.attributes, "builder": ""}
    assert run_in(docker_engine, str(reference_to_run(second.attributes)), "true") == ""


# ------------------------------------------------------------------------------------------ what is missing


def test_planning_works_without_engine_and_builder_and_says_so(project: ImageProject) -> None:
    project.host = "unix:///nowhere.sock"
    project.settings["builder"] = "classic"
    project.write()
    reading = DockerImages().look_at(project.plan(), project.graph(), None)
    assert reading.observation == Absent(reason="never made")
    assert (reading.builder, reading.missing) == ("", "the Docker engine does not answer: No such file or directory")


def test_preflight_says_all_that_is_missing_before_anything_is_changed(project: ImageProject) -> None:
    project.registry = "localhost:1/nobody-listens"
    project.write()
    rows = [Change(address=MINE, kind=Kind.IMAGE, action=Action.CREATE, reasons=())]
    (problem,) = DockerImages().preflight(rows, project.graph())
    assert (problem.code, problem.address) == ("registry-unreachable", MINE)
    assert "localhost:1: Connection refused" in problem.detail
    with pytest.raises(MlstackError, match="localhost:1"):
        project.apply()


def test_what_cannot_be_asked_is_not_checked(project: ImageProject, buildkit: BuildKit) -> None:
    project.settings["builder"] = buildkit.address
    project.write()
    record = project.apply()
    project.host = "unix:///nowhere.sock"
    project.write()
    reading = DockerImages().look_at(project.plan(), project.graph(), record)
    assert isinstance(reading.observation, NotChecked)
