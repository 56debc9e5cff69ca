"""Issue 4, "Done when": the quickstart with `target: docker`, one value changed, on a real engine."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.drivers.local.endpoint_process import servers_below, wait_until
from tests.e2e.conftest import Start
from tests.e2e.workspace import Workspace

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.e2e

PATIENT = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
BODY = json.dumps({"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 10], "data": PATIENT}]})
ENDPOINT = "endpoints.progression"
BASE = "python:3.11-slim"


@pytest.fixture
def client(docker_engine: Any, base_image: str) -> "DockerClient":
    """The engine, with an image under the name that images of mlstack begin with: nothing comes from Docker Hub."""
    from docker.errors import ImageNotFound

    found: DockerClient = docker_engine.client
    try:
        found.images.get(BASE)
    except ImageNotFound:
        found.images.pull(base_image).tag(*BASE.split(":"))
    return found


@pytest.fixture
def quickstart(start: Start, client: "DockerClient", docker_shell: dict[str, str]) -> Iterator[Workspace]:
    """The quickstart with one pool, on this machine."""
    project = start("quickstart")
    tools = docker_shell["PATH"].partition(":")[0]
    around = project.environment
    project.environment = {**around, **docker_shell, "PATH": f"{around['PATH']}:{tools}"}
    project.edit("mlstack.yaml", "version: 1\n", "version: 1\ncompute: {here: {target: local}}\n")
    yield project
    for container in containers(client, project):
        container.remove(force=True)


def containers(client: "DockerClient", project: Workspace) -> list[Any]:
    """What of the project is in containers, running or not."""
    found = client.containers.list(all=True, filters={"label": "dev.mlstack"})
    return [each for each in found if Path(each.labels["dev.mlstack.folder"]).is_relative_to(project.root)]


class Client(threading.Thread):
    """Asks the endpoint again and again, each time on a connection of its own."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.place = url.removeprefix("http://")
        self.ended = threading.Event()
        self.answers: list[float] = []
        self.faults: list[str] = []

    def run(self) -> None:
        while not self.ended.is_set():
            connection = HTTPConnection(self.place, timeout=120)
            try:
                connection.request("POST", "/v2/models/progression/infer", body=BODY)
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    self.answers.append(json.loads(body)["outputs"][0]["data"][0])
                else:
                    self.faults.append(f"{response.status} {body!r}")
            except (OSError, HTTPException) as error:
                self.faults.append(repr(error))
            finally:
                connection.close()


def apply_under_load(project: Workspace) -> list[float]:
    """Apply while the endpoint is asked all the time; none of it is lost. Returns the answers, in order."""
    asking = Client(project.url(ENDPOINT))
    asking.start()
    try:
        project.mlstack("apply", "--yes")
        last = len(asking.answers)
        assert wait_until(lambda: len(asking.answers) > last + 3 or bool(asking.faults), seconds=180)
    finally:
        asking.ended.set()
        asking.join()
    assert asking.faults == []
    return asking.answers


def ran_in(project: Workspace, stage: str) -> set[str]:
    """The containers in which the runs of a stage were; "" for a process."""
    orders = (project.root / ".mlstack" / "runs" / stage).glob("*/order.json")
    return {json.loads(order.read_text(encoding="utf-8")).get("container", "") for order in orders}


def test_one_value_changed(quickstart: Workspace, client: "DockerClient") -> None:
    project = quickstart
    project.init()
    project.mlstack("apply", "--yes")
    project.commit("Results")
    url = project.url(ENDPOINT)

    project.edit("mlstack.yaml", "target: local", "target: docker")
    assert project.actions() == {"images.serve": "create", ENDPOINT: "update"}, "nothing is trained again"
    before = apply_under_load(project)
    assert len(set(before)) == 1, "the same model answers as before"
    assert project.url(ENDPOINT) == url
    (served,) = containers(client, project)
    assert served.labels["dev.mlstack.address"] == ENDPOINT
    assert served.attrs["HostConfig"]["ReadonlyRootfs"] is True
    assert servers_below(project.root / ".mlstack" / "endpoints") == {}, "the process has ended"
    project.assert_settled()
    project.commit("In containers")

    project.edit("mlstack.yaml", "trees: 150", "trees: 60")
    assert {address: action for address, action in project.actions().items() if action == "run"} == {
        "stages.train": "run",
        "stages.evaluate": "run",
    }
    answers = apply_under_load(project)
    assert answers[0] == before[0] != answers[-1]
    assert any(ran_in(project, "stages.train"))
    assert ran_in(project, "stages.prepare") == {""}, "it ran before, in a process"
    assert [each.labels["dev.mlstack"] for each in containers(client, project)] == ["endpoint"]
    project.assert_settled()
    project.commit("Other parameters")

    built = {image.id for image in client.images.list()}
    with (project.root / "src" / "train.py").open("a", encoding="utf-8") as script:
        script.write("# a comment\n")
    assert not [address for address in project.actions() if address.startswith("images.")]
    project.mlstack("apply", "--yes")
    assert {image.id for image in client.images.list()} - built == set(), "code is in no image"
    project.assert_settled()
