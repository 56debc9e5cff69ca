"""Endpoints of this machine, in processes and in containers of a real engine: the same rules for both."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import SECRETS_VERSION, Absent, Present
from mlstack.drivers.docker.endpoints import DockerEndpoints
from mlstack.drivers.local.endpoint_process import birth_of, stop_process, wait_until
from mlstack.drivers.local.endpoints import LocalEndpoints
from mlstack.graph.change import Action
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Resources, SecretRef
from mlstack.state.state import Record
from tests.contract.serving_image import build_serving_image
from tests.engines.ports import free_port
from tests.unit.serving.constant_clients import Client, ask_all_the_time, seen_by_all
from tests.unit.serving.serving_project import Project, ask_server

if TYPE_CHECKING:
    from docker import DockerClient

INFER = "/v2/models/wine/infer"
ROW = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}


class Processes:
    """The project as it is: its servers are processes."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def there(self) -> list[str]:
        """The servers that are there, whoever knows of them."""
        return [str(pid) for pid in self.project.servers()]

    def name(self, record: Record) -> str:
        return str(record.attributes["pid"])

    def kill(self, record: Record) -> None:
        """End it so that it does not come back."""
        pid = record.attributes["pid"]
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: birth_of(pid) is None, seconds=120)

    def end_all(self) -> None:
        end_processes(self.project)


class Containers:
    """The project with a pool of containers."""

    def __init__(self, project: Project, client: "DockerClient", host: str, image: str) -> None:
        self.project, self.client = project, client
        project.driver = DockerEndpoints(start_timeout=240, stop_grace=60, patience=60)
        project.pool = Pool(address=Address("compute.local"), target="docker", settings={"host": host})
        project.image = image

    def there(self) -> list[str]:
        label = f"dev.mlstack.endpoint={self.project.root / '.mlstack/containers/local/endpoints.quality'}"
        return sorted(
            str(found.name)
            for found in self.client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        )

    def name(self, record: Record) -> str:
        return str(record.attributes["container"])

    def kill(self, record: Record) -> None:
        self.client.api.remove_container(self.name(record), force=True)

    def end_all(self) -> None:
        end_processes(self.project)  # of the test that goes there and back
        for name in self.there():
            self.client.api.remove_container(name, force=True)


def end_processes(project: Project) -> None:
    for pid in project.servers():
        stop_process(pid, birth_of(pid) or "", grace=1)


Housed = Processes | Containers


@pytest.fixture(scope="session")
def serving_image(docker_engine: Any, base_image: str) -> str:
    return build_serving_image(docker_engine.client, base_image, tag="mlstack-test-endpoint-contract")


@pytest.fixture(params=["processes", "containers"])
def housed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Processes | Containers]:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))
    project = Project(tmp_path / "project")
    found: Housed
    if request.param == "processes":
        found = Processes(project)
    else:
        engine = request.getfixturevalue("docker_engine")
        found = Containers(project, engine.client, engine.host, request.getfixturevalue("serving_image"))
    yield found
    found.end_all()


def answer(record: Record) -> str:
    status, body = ask_server(record.attributes["url"], INFER, ROW)
    assert status == 200, body
    return str(body["outputs"][0]["data"][0])


def test_made_read_and_removed(housed: Housed) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    assert answer(record) == "one"
    seen = project.driver.read(project.endpoint, record)
    assert isinstance(seen, Present)
    assert seen.attributes["ready"] is True
    assert housed.there() == [housed.name(record)]
    project.delete(record)
    assert housed.there() == []
    assert isinstance(project.driver.read(None, record), Absent)
    assert not list((project.root / ".mlstack").rglob("server.json"))
    project.delete(record)  # gone already: succeeds


def test_desired_is_the_recorded(housed: Housed) -> None:
    project = housed.project
    project.declare(env={"A": "1"}, resources=Resources(cpu=0.5, memory=2**28))
    desired = project.driver.desired(project.endpoint, project.graph(), {project.model.address: project.version})
    record = project.apply(action=Action.CREATE)
    stored = msgspec.json.decode(msgspec.json.encode(record.attributes))
    assert {name: stored[name] for name in desired} == desired


def test_killed_is_down_and_comes_back_where_it_was(housed: Housed) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    housed.kill(record)
    seen = project.driver.read(project.endpoint, record)
    assert isinstance(seen, Absent)
    assert housed.name(record) in seen.reason
    again = project.apply(record, action=Action.CREATE)
    assert again.attributes["url"] == record.attributes["url"]
    assert answer(again) == "one"


def test_forced_replacement_starts_another(housed: Housed) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    again = project.apply(record, action=Action.REPLACE)
    assert housed.there() == [housed.name(again)] != [housed.name(record)]
    assert answer(again) == "one"


def test_server_of_an_apply_that_died_is_adopted(housed: Housed) -> None:
    project = housed.project
    lost = project.apply(action=Action.CREATE)  # its record never got written
    record = project.apply(None, action=Action.CREATE)
    assert housed.there() == [housed.name(record)] == [housed.name(lost)]
    assert "serves this already" in project.said[-1]


def test_stray_server_of_another_version_is_replaced(housed: Housed) -> None:
    project = housed.project
    project.apply(action=Action.CREATE)
    project.put(b"two")
    record = project.apply(None, action=Action.CREATE)
    assert housed.there() == [housed.name(record)]
    assert answer(record) == "two"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise KeyError('no such grape')", "KeyError: 'no such grape'"),
        ("os._exit(7)", "ended"),
    ],
)
def test_model_that_does_not_load_leaves_the_old_one(housed: Housed, code: str, said: str) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    project.write_code(f"import os\nclass Wine:\n    def load(self, path): {code}\n    def predict(self, i): ...\n")
    with pytest.raises(MlstackError) as caught:
        project.apply(record)
    assert said in caught.value.diagnostics[0].detail
    assert housed.there() == [housed.name(record)]
    assert answer(record) == "one"


def test_interrupted_start_leaves_the_old_one(housed: Housed) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    project.write_code(
        "import time\nclass Wine:\n    def load(self, path): time.sleep(60)\n    def predict(s, i): ...\n"
    )
    project.stop.set()
    with pytest.raises(MlstackError, match="Stopped while"):
        project.apply(record)
    assert housed.there() == [housed.name(record)]
    assert answer(record) == "one"


def test_secret_reaches_the_model_and_no_file(housed: Housed, monkeypatch: pytest.MonkeyPatch) -> None:
    project = housed.project
    monkeypatch.setenv("TOKEN_HERE", "s3cr3t-value")
    project.write_code(
        "import os\nclass Wine:\n    def load(self, path): print('loaded with', os.environ['TOKEN'])\n"
        "    def predict(self, i): return [os.environ['TOKEN'] + os.environ['LITERAL']]\n"
    )
    project.declare(secrets={"TOKEN": SecretRef("env://TOKEN_HERE")}, env={"LITERAL": "-lit"})
    record = project.apply(action=Action.CREATE)
    assert answer(record) == "s3cr3t-value-lit"
    files = [path for path in (project.root / ".mlstack").rglob("*") if path.is_file()]
    assert any("loaded with ***" in path.read_text(errors="replace") for path in files if path.name == "server.log")
    assert not any(b"s3cr3t" in path.read_bytes() for path in files)
    assert "s3cr3t" not in str(record.attributes)


def test_another_value_of_a_secret_is_another_server(housed: Housed, monkeypatch: pytest.MonkeyPatch) -> None:
    project = housed.project
    monkeypatch.setenv("TOKEN_HERE", "the-first-value")
    project.write_code(
        "import os\nclass Wine:\n    def load(self, path): pass\n"
        "    def predict(self, i): return [os.environ['TOKEN']]\n"
    )
    project.declare(secrets={"TOKEN": SecretRef("env://TOKEN_HERE")})
    record = project.apply(action=Action.CREATE)
    version = record.attributes[SECRETS_VERSION]
    monkeypatch.delenv("TOKEN_HERE")
    assert SECRETS_VERSION not in project.driver.desired(project.endpoint, project.graph(), {})

    monkeypatch.setenv("TOKEN_HERE", "the-second-value")
    assert project.driver.desired(project.endpoint, project.graph(), {})[SECRETS_VERSION] != version
    again = project.apply(record)

    assert answer(again) == "the-second-value"
    assert housed.there() == [housed.name(again)]


def test_moving_to_a_declared_port(housed: Housed) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    for _ in range(5):  # somebody else may take a free port meanwhile
        port = free_port()
        project.declare(port=port)
        try:
            again = project.apply(record)
        except MlstackError as error:
            if error.diagnostics[0].code != "port-in-use":
                raise
        else:
            break
    assert again.attributes["url"] == f"http://127.0.0.1:{port}"
    assert housed.there() == [housed.name(again)]
    assert answer(again) == "one"


def test_replacement_under_load_loses_no_request(housed: Housed) -> None:
    project = housed.project
    record = project.apply(action=Action.CREATE)
    place = record.attributes["url"].removeprefix("http://")

    def replace_twice(clients: list[Client]) -> None:
        seen_by_all(clients, "one")
        before = record
        for text in ("two", "three"):
            project.put(text.encode())
            before = project.apply(before)
            assert before.attributes["url"] == f"http://{place}"
            seen_by_all(clients, text)
        assert housed.there() == [housed.name(before)]

    for client in ask_all_the_time(place, replace_twice):
        assert client.faults == []
        assert list(dict.fromkeys(client.answers)) == ["one", "two", "three"]


def test_moving_between_processes_and_containers_loses_no_request(
    housed: Housed, docker_engine: Any, serving_image: str
) -> None:
    project = housed.project
    if isinstance(housed, Processes):
        pytest.skip("begins with a process in any case: once is enough")
    docker, pool = project.driver, project.pool
    local = LocalEndpoints(find_python=project.find_python, start_timeout=240, stop_grace=60, patience=60)
    project.driver, project.pool = local, Pool(address=pool.address)
    first = project.apply(action=Action.CREATE)
    place = first.attributes["url"].removeprefix("http://")

    def there_and_back(clients: list[Client]) -> None:
        seen_by_all(clients, "one")
        project.driver, project.pool = docker, pool
        project.put(b"two")
        second = project.move(first, maker=local)
        assert second.attributes["url"] == first.attributes["url"]
        assert housed.there() == [housed.name(second)]
        assert project.servers() == []
        seen_by_all(clients, "two")
        project.driver, project.pool = local, Pool(address=pool.address)
        project.put(b"three")
        third = project.move(second, maker=docker)
        assert housed.there() == []
        assert project.servers() == [third.attributes["pid"]]
        seen_by_all(clients, "three")

    for client in ask_all_the_time(place, there_and_back):
        assert client.faults == []
        assert list(dict.fromkeys(client.answers)) == ["one", "two", "three"]
