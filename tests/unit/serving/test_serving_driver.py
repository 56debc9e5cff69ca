"""Endpoints on this machine, with real processes."""

import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent, NotChecked, Present
from mlstack.drivers.local.endpoint_client import endpoint_status
from mlstack.drivers.local.endpoint_process import birth_of, is_same_process, stop_process, wait_until
from mlstack.graph.change import Action
from mlstack.spec.spec import Range, SecretRef, Variant
from tests.engines.ports import free_port

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project

Ask = Callable[..., tuple[int, Any]]
ROW = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}
INFER = "/v2/models/wine/infer"


def answer(ask: Ask, url: str) -> Any:
    status, body = ask(url, INFER, ROW)
    assert status == 200, body
    return body["outputs"][0]["data"][0]


def test_create_read_delete(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    url = record.attributes["url"]
    assert answer(ask, url) == "one"
    seen = project.driver.read(project.endpoint, record)
    assert isinstance(seen, Present)
    assert seen.attributes["ready"] is True
    assert os.getsid(record.attributes["pid"]) != os.getsid(0)
    assert ask(url, "/v2/models/wine")[1]["versions"] == [project.version]
    status = endpoint_status(record, seen)
    assert (status.state, status.url, status.model, status.version) == ("up", url, "wine", project.version)
    project.delete(record)
    assert project.servers() == []
    assert isinstance(project.driver.read(None, record), Absent)
    assert not (project.root / ".mlstack/endpoints/local/endpoints.quality").exists()
    project.delete(record)  # gone already: succeeds


def test_killed_is_down_and_comes_back_on_the_same_port(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    os.kill(record.attributes["pid"], signal.SIGKILL)
    assert wait_until(lambda: birth_of(record.attributes["pid"]) is None, seconds=120)
    seen = project.driver.read(project.endpoint, record)
    assert seen == Absent(reason=f"process {record.attributes['pid']} is gone")
    assert endpoint_status(record, seen).state == "down"
    again = project.apply(record, action=Action.CREATE)
    assert again.attributes["url"] == record.attributes["url"]
    assert answer(ask, again.attributes["url"]) == "one"


def test_apply_of_what_runs_already_starts_nothing(project: "Project") -> None:
    record = project.apply(action=Action.CREATE)
    project.declare(replicas=Range(1, 9))
    again = project.apply(record)
    assert again.attributes["pid"] == record.attributes["pid"]
    assert again.attributes["replicas"] == {"min": 1, "max": 9}
    assert again.attributes["started"] == record.attributes["started"]


def test_forced_replacement_starts_another(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    again = project.apply(record, action=Action.REPLACE)
    assert again.attributes["pid"] != record.attributes["pid"]
    assert project.servers() == [again.attributes["pid"]]
    assert answer(ask, again.attributes["url"]) == "one"


def test_server_of_an_apply_that_died_is_adopted(project: "Project") -> None:
    lost = project.apply(action=Action.CREATE)  # its record never got written
    record = project.apply(None, action=Action.CREATE)
    assert record.attributes["pid"] == lost.attributes["pid"]
    assert "serves this already" in project.said[-1]


def test_stray_server_of_another_version_is_ended(project: "Project", ask: Ask) -> None:
    lost = project.apply(action=Action.CREATE)
    project.put(b"two")
    record = project.apply(None, action=Action.CREATE)
    assert project.servers() == [record.attributes["pid"]] != [lost.attributes["pid"]]
    assert answer(ask, record.attributes["url"]) == "two"


def test_stray_server_on_a_declared_port_is_replaced_not_complained_about(project: "Project", ask: Ask) -> None:
    project.declare(port=free_port())
    project.apply(action=Action.CREATE)
    project.put(b"two")
    record = project.apply(None, action=Action.CREATE)
    assert answer(ask, record.attributes["url"]) == "two"
    assert project.servers() == [record.attributes["pid"]]


def test_changed_class_is_served_from_its_own_copy(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    before = project.driver.desired(project.endpoint, project.graph(), {project.model.address: project.version})
    project.write_code((project.root / "wine.py").read_text().replace("self.text for", "self.text + '!' for"))
    assert answer(ask, record.attributes["url"]) == "one"
    after = project.driver.desired(project.endpoint, project.graph(), {project.model.address: project.version})
    assert before["variants"]["main"]["code"] != after["variants"]["main"]["code"]
    again = project.apply(record)
    assert answer(ask, again.attributes["url"]) == "one!"


def test_model_that_does_not_load_leaves_the_old_one(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    project.write_code(
        "class Wine:\n    def load(self, path): raise KeyError('no such grape')\n    def predict(self, i): ...\n"
    )
    with pytest.raises(MlstackError) as caught:
        project.apply(record)
    problem = caught.value.diagnostics[0]
    assert problem.code == "endpoint-model-load"
    assert "KeyError: 'no such grape'" in problem.detail
    assert (
        "Traceback (most recent call last)"
        in (project.root / ".mlstack/endpoints/local/endpoints.quality/failed.log").read_text()
    )
    assert "wine.py" in problem.detail
    assert project.servers() == [record.attributes["pid"]]
    assert answer(ask, record.attributes["url"]) == "one"
    assert isinstance(project.driver.read(project.endpoint, record), Present)


def test_missing_package_is_named(project: "Project") -> None:
    project.write_code("import nowhere_to_be_found\nclass Wine:\n    def load(s, p): ...\n    def predict(s, i): ...\n")
    with pytest.raises(MlstackError) as caught:
        project.apply(action=Action.CREATE)
    assert "no nowhere_to_be_found" in caught.value.diagnostics[0].hint
    assert project.servers() == []


def test_content_that_is_nowhere_names_the_way_out(project: "Project") -> None:
    project.version = "0" * 32
    with pytest.raises(MlstackError) as caught:
        project.apply(action=Action.CREATE)
    assert caught.value.diagnostics[0].code == "model-not-here"
    assert "mlstack push" in caught.value.diagnostics[0].hint
    assert project.servers() == []


def test_workspace_is_used_only_if_its_hash_fits(project: "Project", ask: Ask) -> None:
    (project.root / "models").mkdir()
    (project.root / "models/wine.txt").write_bytes(b"one")
    project.object(project.version).unlink()
    record = project.apply(action=Action.CREATE)
    assert answer(ask, record.attributes["url"]) == "one"
    (project.root / "models/wine.txt").write_bytes(b"other")
    project.delete(record)
    with pytest.raises(MlstackError, match="not on this machine"):
        project.apply(action=Action.CREATE)


def test_damaged_cache_object_is_not_served(project: "Project") -> None:
    project.object(project.version).write_bytes(b"tampered")
    with pytest.raises(MlstackError, match="not on this machine"):
        project.apply(action=Action.CREATE)


def test_folder_model(project: "Project", ask: Ask) -> None:
    project.write_code(CLASS_OF_FOLDER)
    project.declare_model(out="models/wine")
    project.put_folder({"a.txt": b"A", "sub/b.txt": b"B", "sub-c.txt": b"C"})
    record = project.apply(action=Action.CREATE)
    assert answer(ask, record.attributes["url"]) == "ABC"
    project.delete(record)  # the read-only tree goes as well
    assert list((project.root / ".mlstack/endpoints").rglob("*.txt")) == []


CLASS_OF_FOLDER = """
import pathlib
class Wine:
    def load(self, path):
        self.text = "".join(sorted(p.read_text() for p in pathlib.Path(path).rglob("*.txt")))
    def predict(self, inputs):
        return [self.text]
"""


def test_declared_port_of_somebody_else(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        project.declare(port=port)
        with pytest.raises(MlstackError) as caught:
            project.apply(record)
    problem = caught.value.diagnostics[0]
    assert problem.code == "port-in-use"
    assert str(port) in problem.detail
    assert f"process {os.getpid()}" in problem.detail
    assert answer(ask, record.attributes["url"]) == "one"


def test_moving_to_a_declared_port(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    port = free_port()
    project.declare(port=port)
    again = project.apply(record)
    assert again.attributes["url"] == f"http://127.0.0.1:{port}"
    assert project.servers() == [again.attributes["pid"]]
    assert answer(ask, again.attributes["url"]) == "one"


def test_another_machine_is_not_checked_not_deleted_and_not_replaced(project: "Project") -> None:
    record = project.apply(action=Action.CREATE)
    elsewhere = msgspec.structs.replace(record, attributes=record.attributes | {"machine": "x", "host": "tower"})
    assert project.driver.read(None, elsewhere) == NotChecked(reason="it runs on tower, not here")
    with pytest.raises(MlstackError, match="tower"):
        project.delete(elsewhere)
    with pytest.raises(MlstackError, match="tower"):
        project.apply(elsewhere)
    assert project.servers() == [record.attributes["pid"]]


def test_process_with_a_recycled_id_is_never_touched(project: "Project") -> None:
    own = os.getpid()
    stop_process(own, "another-boot:1", grace=0.1)
    assert is_same_process(own, birth_of(own) or "")


def test_stopped_process_is_not_ready_and_is_replaced(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    project.driver = project.make_driver(patience=1)
    os.kill(record.attributes["pid"], signal.SIGSTOP)
    seen = project.driver.read(project.endpoint, record)
    assert isinstance(seen, Present)
    assert seen.attributes["ready"] is False
    status = endpoint_status(record, seen)
    assert status.state == "not-ready"
    assert "does not answer" in status.detail
    again = project.apply(record)
    assert project.servers() == [again.attributes["pid"]]
    assert answer(ask, again.attributes["url"]) == "one"


def test_interrupted_start_leaves_the_old_one(project: "Project", ask: Ask) -> None:
    record = project.apply(action=Action.CREATE)
    project.write_code(
        "import time\nclass Wine:\n    def load(self, path): time.sleep(60)\n    def predict(self, i): ...\n"
    )
    project.stop.set()
    with pytest.raises(MlstackError, match="Stopped while"):
        project.apply(record)
    assert project.servers() == [record.attributes["pid"]]
    assert answer(ask, record.attributes["url"]) == "one"


def test_secret_reaches_the_model_and_not_the_files(
    project: "Project", ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_HERE", "s3cr3t-value")
    monkeypatch.setenv("UNRELATED", "leaks")
    project.write_code(
        "import os\nclass Wine:\n    def load(self, path): print('loaded with', os.environ['TOKEN'])\n"
        "    def predict(self, i):\n"
        "        return [os.environ['TOKEN'] + os.environ['LITERAL'] + os.environ.get('UNRELATED', '')]\n"
    )
    project.declare(secrets={"TOKEN": SecretRef("env://TOKEN_HERE")}, env={"LITERAL": "-lit"})
    record = project.apply(action=Action.CREATE)
    assert answer(ask, record.attributes["url"]) == "s3cr3t-value-lit"
    files = [path for path in (project.root / ".mlstack").rglob("*") if path.is_file()]
    assert any("loaded with ***" in path.read_text(errors="replace") for path in files if path.name == "server.log")
    assert not any(b"s3cr3t" in path.read_bytes() for path in files)
    assert "s3cr3t" not in str(record.attributes)


def test_desired_is_the_recorded(project: "Project") -> None:
    project.declare(env={"A": "1"}, port=None)
    desired = project.driver.desired(project.endpoint, project.graph(), {project.model.address: project.version})
    record = project.apply(action=Action.CREATE)
    stored = msgspec.json.decode(msgspec.json.encode(record.attributes))
    assert {name: stored[name] for name in desired} == desired


def test_what_this_machine_cannot_do(project: "Project") -> None:
    project.declare(
        variants={"a": Variant(model=project.model.address), "b": Variant(model=project.model.address, weight=0)},
        replicas=Range(2, 3),
    )
    project.declare_model(framework="onnx")
    codes = {problem.code for problem in project.driver.check(project.endpoint, project.graph())}
    assert codes == {"traffic-split-unsupported", "replicas-on-one-machine", "framework-unsupported"}


def test_pinned_version(project: "Project", ask: Ask) -> None:
    pinned = project.version
    project.put(b"two")
    project.declare(variants={"main": Variant(model=project.model.address, version=pinned)})
    record = project.apply(action=Action.CREATE)
    assert answer(ask, record.attributes["url"]) == "one"
