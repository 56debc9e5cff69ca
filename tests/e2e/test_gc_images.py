"""`mlstack gc` of images on a real engine: what nothing refers to goes, when asked, and nothing of others."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.workspace import Workspace, clean_environment

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.e2e

NAME = f"gc-of-images-{token_hex(4)}"  # an engine may have those of an earlier run
FILE = f"""
version: 1
project: {NAME}
compute: {{box: {{target: docker}}}}
images: {{box: {{dockerfile: docker/Dockerfile, context: docker}}}}
stages:
  make: {{compute: box, image: box, cmd: echo made > out/made.txt, outs: [out/made.txt]}}
"""
NOW = ("--older-than", "0")


@pytest.fixture
def project(tmp_path: Path, docker_engine: Any, base_image: str) -> Iterator[Workspace]:
    (tmp_path / "home").mkdir()
    environment = clean_environment(tmp_path / "home", tmp_path / "cache")
    workspace = Workspace(tmp_path / "project", environment | {"DOCKER_HOST": docker_engine.host})
    (workspace.root / "docker").mkdir(parents=True)
    (workspace.root / "docker" / "Dockerfile").write_text(f"FROM {base_image}\nLABEL try=0\n")
    (workspace.root / "mlstack.yaml").write_text(FILE)
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    yield workspace
    client = docker_engine.client
    for project in (NAME, f"not-{NAME}"):
        for name in names(client, project):
            client.images.remove(name, force=True)


def applied(project: Workspace, number: int) -> str:
    """Apply with another image; return its name."""
    project.edit("docker/Dockerfile", f"try={number - 1}", f"try={number}")
    project.mlstack("apply", "--yes")
    return str(
        json.loads(project.mlstack("show", "images.box", "--json").stdout)["recorded"]["attributes"]["reference"]
    )


def names(client: "DockerClient", project: str) -> set[str]:
    found = client.images.list(filters={"label": f"dev.mlstack.project={project}"})
    return {tag for image in found for tag in image.tags}


def unused(project: Workspace, *arguments: str) -> list[str]:
    found = json.loads(project.mlstack("gc", "--json", *arguments).stdout)
    (place,) = (each for each in found["places"] if each["kind"] == "images")
    assert place["not_checked"] is None
    return list(place["unused"]["names"])


def test_images_that_nothing_refers_to_are_removed_when_asked(project: Workspace, docker_engine: Any) -> None:
    client = docker_engine.client
    dockerfile = f"FROM scratch\nLABEL dev.mlstack.project=not-{NAME} dev.mlstack.digests=\n".encode()
    client.images.build(fileobj=io.BytesIO(dockerfile), tag=f"not-{NAME}/box:1", rm=True)
    committed = applied(project, 1)
    project.commit("first")
    live = applied(project, 2)
    kept = {committed, live}
    project.edit("docker/Dockerfile", "try=2", "try=3")
    project.mlstack("run")
    (tried,) = names(client, NAME) - kept
    project.edit("docker/Dockerfile", "try=3", "try=2")
    assert unused(project) == [], "too new to tell"
    assert unused(project, *NOW) == [tried], "of a try, recorded nowhere"
    held = client.containers.create(tried)
    assert unused(project, *NOW) == [], "somebody has a container of it"
    held.remove()
    assert "images on the Docker engine" in project.mlstack("gc", *NOW).stdout
    assert names(client, NAME) == {*kept, tried}, "it only shows"
    assert "Removed" in project.mlstack("gc", *NOW, "--yes").stdout
    assert names(client, NAME) == kept
    assert names(client, f"not-{NAME}") == {f"not-{NAME}/box:1"}
    assert unused(project, *NOW) == []
    client.images.get(live).tag(f"{NAME}/other-name", "1")
    client.images.remove(live)
    project.git("checkout", "-q", "dvc.lock")
    assert unused(project, *NOW) == [], "what the state names by its content"


def test_an_engine_that_does_not_answer_is_not_checked(project: Workspace, tmp_path: Path) -> None:
    nobody = Workspace(project.root, {**project.environment, "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"})
    said = nobody.mlstack("gc", "--yes", *NOW).stdout
    assert "images on the Docker engine" in said
    assert f"Not checked: unix://{tmp_path}/nobody.sock" in said
