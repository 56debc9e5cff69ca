"""What only containers do: the engine brings a server back, ends, or publishes its port."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent, Present
from mlstack.drivers.docker.endpoints import DockerEndpoints
from mlstack.drivers.local.endpoint_process import servers_below, wait_until
from mlstack.graph.change import Action
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Resources
from mlstack.state.state import Record
from tests.contract.serving_image import build_serving_image
from tests.engines.own import OwnDocker
from tests.engines.session import Session
from tests.unit.serving.serving_project import Project, ask_server

if TYPE_CHECKING:
    from docker import DockerClient

ROW = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}


@pytest.fixture(scope="session")
def serving_image(docker_engine: Any, base_image: str) -> str:
    return build_serving_image(docker_engine.client, base_image, tag="mlstack-test-endpoint-containers")


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker_engine: Any, serving_image: str
) -> Iterator[Project]:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))
    made = Project(tmp_path / "project")
    made.driver = DockerEndpoints(start_timeout=240, stop_grace=60, patience=60)
    made.pool = Pool(address=Address("compute.local"), target="docker", settings={"host": docker_engine.host})
    made.image = serving_image
    yield made
    for container in containers(docker_engine.client, made):
        container.remove(force=True)


def containers(client: "DockerClient", project: Project) -> list[Any]:
    label = f"dev.mlstack.endpoint={project.root / '.mlstack/containers/local/endpoints.quality'}"
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def use(project: Project, **settings: Any) -> None:
    pool = project.pool
    project.pool = Pool(address=pool.address, target="docker", settings={**pool.settings, **settings})


def answer(record: Record) -> str:
    status, body = ask_server(record.attributes["url"], "/v2/models/wine/infer", ROW)
    assert status == 200, body
    return str(body["outputs"][0]["data"][0])


def is_ready(project: Project, record: Record) -> bool:
    seen = project.driver.read(project.endpoint, record)
    return isinstance(seen, Present) and seen.attributes["ready"]


def test_engine_starts_a_server_again_that_fails(project: Project, docker_engine: Any) -> None:
    first = project.apply(action=Action.CREATE)
    project.put(b"two")
    record = project.apply(first)  # one that has taken over a socket: nobody is there to take it from when it restarts
    for pid in servers_below(project.root / ".mlstack" / "containers"):
        with suppress(ProcessLookupError):  # the first of a container takes the others along
            os.kill(pid, signal.SIGKILL)
    (container,) = containers(docker_engine.client, project)

    def restarted() -> bool:
        container.reload()
        return bool(container.attrs["RestartCount"])

    assert wait_until(restarted, seconds=120, tick=0.1)
    assert wait_until(lambda: is_ready(project, record), seconds=120, tick=0.1)
    assert answer(record) == "two"
    assert project.apply(record).attributes["instance"] == record.attributes["instance"]


def test_container_gets_no_more_than_declared(project: Project, docker_engine: Any) -> None:
    project.declare(resources=Resources(cpu=0.5, memory=2**28))
    project.apply(action=Action.CREATE)
    (container,) = containers(docker_engine.client, project)
    told = container.attrs["HostConfig"]
    assert (told["NanoCpus"], told["Memory"], told["MemorySwap"]) == (500_000_000, 2**28, 2**28)
    assert told["ReadonlyRootfs"] is True
    assert told["CapDrop"] == ["ALL"]
    assert container.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    folder = project.root / ".mlstack/containers/local/endpoints.quality/0001"
    mounts = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
    assert mounts == {str(folder): True, str(folder / "model"): False, str(folder / "code"): False}


def test_published_port_is_replaced_with_a_gap_that_the_plan_tells_of(project: Project, docker_engine: Any) -> None:
    use(project, network="bridge")
    (warned,) = project.driver.check(project.endpoint, project.graph())
    assert warned.code == "endpoint-replaced-with-a-gap"
    record = project.apply(action=Action.CREATE)
    assert answer(record) == "one"
    project.put(b"two")
    again = project.apply(record)
    assert again.attributes["url"] == record.attributes["url"]
    assert answer(again) == "two"
    assert len(containers(docker_engine.client, project)) == 1
    project.write_code("class Wine:\n    def load(self, path): raise KeyError\n    def predict(self, i): ...\n")
    with pytest.raises(MlstackError):
        project.apply(again)
    assert wait_until(lambda: is_ready(project, again), seconds=120), "the one before has come back"
    assert answer(again) == "two"


def test_no_network_is_refused(project: Project) -> None:
    use(project, network="none")
    with pytest.raises(MlstackError, match="needs a network"):
        project.apply(action=Action.CREATE)


def test_missing_image_is_named(project: Project, docker_engine: Any) -> None:
    project.image = "sha256:" + "0" * 64
    with pytest.raises(MlstackError) as caught:
        project.apply(action=Action.CREATE)
    assert caught.value.diagnostics[0].code == "image-not-had"
    assert containers(docker_engine.client, project) == []


def test_engine_that_stops_is_said_and_brings_the_endpoint_back(
    project: Project, docker_engine: Any, serving_image: str, engines_session: Session
) -> None:
    engine = OwnDocker(engines_session)
    try:
        engine.start()
        engine.take_image(docker_engine.client, serving_image)
        use(project, host=engine.host)
        record = project.apply(action=Action.CREATE)
        assert answer(record) == "one"
        engine.stop()
        seen = project.driver.read(project.endpoint, record)
        assert isinstance(seen, Absent)
        assert "the Docker engine cannot be reached" in seen.reason
        with pytest.raises(MlstackError, match="cannot be reached"):
            project.apply(record, action=Action.CREATE)
        engine.start()
        assert wait_until(lambda: is_ready(project, record), seconds=120, tick=0.2), "it comes back with the engine"
        assert answer(record) == "one"
    finally:
        engine.remove()
