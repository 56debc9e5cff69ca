"""Issue 4, "Done when": the quickstart with `target: docker`, one value changed, on a real engine."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.drivers.local.endpoint_process import servers_below, wait_until
from tests.e2e.conftest import Start
from tests.e2e.workspace import BIN, Workspace
from tests.unit.serving.constant_clients import Client

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.e2e

PATIENT = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
INPUTS = {"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 10], "data": PATIENT}]}
ENDPOINT = "endpoints.progression"
BASES = "python:3.11-slim", "python:3.12-slim"
"""What images begin with by default: the project's Python, and that of the runner."""


@pytest.fixture
def client(docker_engine: Any, base_image: str) -> "DockerClient":
    """The engine, with an image under the names that images of mlstack begin with: nothing comes from Docker Hub."""
    from docker.errors import ImageNotFound

    found: DockerClient = docker_engine.client
    for each in BASES:
        try:
            found.images.get(each)
        except ImageNotFound:
            found.images.pull(base_image).tag(*each.split(":"))
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
    found = client.containers.list(all=True, filters={"label": "dev.mlstack"}, ignore_removed=True)
    return [each for each in found if Path(each.labels["dev.mlstack.folder"]).is_relative_to(project.root)]


def images(project: Workspace) -> dict[str, str]:
    """The images that the project has had made, by address."""
    state = json.loads((project.root / ".mlstack/state/local/state.json").read_text(encoding="utf-8"))
    resources = state["resources"].items()
    return {name: it["attributes"]["image_id"] for name, it in resources if name.startswith("images.")}


def apply_under_load(project: Workspace) -> list[float]:
    """Apply while the endpoint is asked all the time; none of it is lost. Returns the answers, in order."""
    place = project.url(ENDPOINT).removeprefix("http://")
    asking = Client(place, "progression", keep_alive=False, inputs=INPUTS, patience=120)
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

    built = images(project)
    assert set(built) == {"images.python", "images.serve"}
    with (project.root / "src" / "train.py").open("a", encoding="utf-8") as script:
        script.write("# a comment\n")
    assert not [address for address in project.actions() if address.startswith("images.")]
    project.mlstack("apply", "--yes")
    assert images(project) == built, "code is in no image"
    project.assert_settled()


def test_down_is_said_and_mended_and_everything_can_go_back(quickstart: Workspace, client: "DockerClient") -> None:
    project = quickstart
    project.edit("mlstack.yaml", "target: local", "target: docker")
    project.init()
    project.mlstack("apply", "--yes")
    assert all(ran_in(project, "stages.train"))
    url = project.url(ENDPOINT)
    assert "loaded in" in project.mlstack("logs", ENDPOINT).stdout
    rows = json.dumps([PATIENT])
    shown = project.mlstack("predict", ENDPOINT, "--data", rows, "--json").stdout

    (served,) = containers(client, project)
    served.remove(force=True)
    assert "down" in project.mlstack("status", code=1).stdout
    assert f"container {served.name} is gone" in " ".join(project.mlstack("plan").stdout.split())
    assert list(project.actions()) == [ENDPOINT]
    project.mlstack("apply", "--yes")
    assert project.url(ENDPOINT) == url
    assert project.mlstack("predict", ENDPOINT, "--data", rows, "--json").stdout == shown
    project.assert_settled()
    project.commit("Results")

    project.edit("mlstack.yaml", "target: docker", "target: local")
    assert project.actions() == {ENDPOINT: "update", "images.python": "forget", "images.serve": "forget"}
    assert len(set(apply_under_load(project))) == 1
    assert containers(client, project) == []
    project.assert_settled()

    project.edit("mlstack.yaml", "target: local", "target: docker")
    project.mlstack("apply", "--yes")
    assert len(containers(client, project)) == 1
    project.mlstack("destroy", "--yes")
    assert containers(client, project) == []
    assert project.processes() == []


KILLED = """\
version: 1
project: killed
compute: {here: {target: docker}}
images: {plain: {base: "python:3.11-slim", python: system}}
stages:
  slow:
    image: plain
    cmd: python3 src/slow.py
    deps: [src/slow.py]
    outs: [out/number.txt]
"""
SLOW = """\
import pathlib, random, time
number = str(random.random())
print("number", number, flush=True)
while not pathlib.Path("src/go").exists():
    time.sleep(0.2)
pathlib.Path("out/number.txt").write_text(number)
"""


def test_run_in_a_container_is_found_again_after_a_kill(quickstart: Workspace, client: "DockerClient") -> None:
    project = quickstart
    (project.root / "mlstack.yaml").write_text(KILLED, encoding="utf-8")
    (project.root / "src" / "slow.py").write_text(SLOW, encoding="utf-8")
    project.init()
    applying = subprocess.Popen(
        [BIN / "mlstack", "apply", "--yes"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert wait_until(lambda: "number" in project.mlstack("logs", "stages.slow", code=None).stdout, seconds=300, tick=1)
    applying.kill()
    applying.wait()
    said = project.mlstack("logs", "stages.slow").stdout
    (container,) = containers(client, project)
    assert project.actions() == {"stages.slow": "follow"}
    (project.root / "src" / "go").touch()
    project.mlstack("apply", "--yes")
    number = (project.root / "out" / "number.txt").read_text(encoding="utf-8")
    assert said == f"number {number}\n" == project.mlstack("logs", "stages.slow").stdout, "it ran once"
    assert containers(client, project) == []
    assert container.labels["dev.mlstack.address"] == "stages.slow"
    project.assert_settled()
