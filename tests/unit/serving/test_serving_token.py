"""Endpoints that ask for a token: who does not show it gets no answer, and nothing tells what it is."""

import json
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest

from mlstack.cli.predict import token_of
from mlstack.diagnostics import MlstackError
from mlstack.drivers.local.endpoint_client import predict
from mlstack.graph.change import Action
from mlstack.serving import settings
from mlstack.serving.faults import RequestError, StartError
from mlstack.serving.guard import check_token, check_usable, is_open
from mlstack.spec.address import Address
from mlstack.spec.spec import TOKEN_VARIABLE, SecretRef
from mlstack.state.state import Record

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project

TOKEN = "t0k3n-of-quality"
ROWS = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}
CLASS = f"""
import os
class Wine:
    def load(self, path): print("the model has", os.environ.get("{TOKEN_VARIABLE}"))
    def predict(self, inputs): return inputs["x"]
"""


def asked(url: str, path: str, *, body: Any = None, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=120)
    data = json.dumps(body).encode() if body is not None else None
    connection.request("GET" if body is None else "POST", path, body=data, headers=headers)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.headers.items()}, json.loads(answer.read())
    connection.close()
    return found


@pytest.fixture
def url(project: "Project", monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QUALITY_TOKEN", TOKEN)
    project.write_code(CLASS)
    project.declare(secrets={TOKEN_VARIABLE: SecretRef("env://QUALITY_TOKEN")})
    return str(project.apply(action=Action.CREATE).attributes["url"])


def test_only_who_shows_the_token_is_answered(project: "Project", url: str) -> None:
    infer = "/v2/models/wine/infer"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/wine/ready"):
        assert asked(url, path)[0] == 200, "probes have no token"
    for path, body in ((infer, ROWS), ("/v2/models/wine", None), ("/v2", None), ("/else", None)):
        for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": f"Basic {TOKEN}"}):
            status, answered, said = asked(url, path, body=body, **headers)
            assert (status, answered["www-authenticate"]) == (401, 'Bearer realm="mlstack"')
            assert TOKEN not in said["error"]
    for name in ("Authorization", "X-Mlstack-Authorization"):
        assert asked(url, infer, body=ROWS, **{name: f"bearer {TOKEN}"})[2]["outputs"][0]["data"] == [1.5]
    assert predict(url, "wine", ROWS, token=TOKEN)["outputs"][0]["data"] == [1.5]
    with pytest.raises(MlstackError) as failure:
        predict(url, "wine", ROWS)
    assert failure.value.diagnostics[0].code == "prediction-refused"

    files = [path for path in (project.root / ".mlstack").rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    log = "".join(path.read_text(errors="replace") for path in files if path.name == "server.log")
    assert "the model has None" in log


def test_without_a_token_in_the_file_everybody_is_answered(project: "Project", ask: Callable[..., Any]) -> None:
    project.write_code(CLASS)
    record = project.apply(action=Action.CREATE)
    assert ask(record.attributes["url"], "/v2/models/wine/infer", ROWS)[0] == 200


def test_predict_finds_the_token_where_the_endpoint_got_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {TOKEN_VARIABLE: "env://QUALITY_TOKEN", "OTHER": "env://OTHER"}
    record = Record(address=Address("endpoints.quality"), driver="local", version=1, attributes={"secrets": secrets})
    monkeypatch.setenv("QUALITY_TOKEN", TOKEN)
    assert token_of(record, tmp_path) == TOKEN
    assert token_of(msgspec.structs.replace(record, attributes={}), tmp_path) is None
    monkeypatch.delenv("QUALITY_TOKEN")
    with pytest.raises(MlstackError, match="QUALITY_TOKEN is not set"):
        token_of(record, tmp_path)


def test_the_name_of_the_variable_is_the_same_on_both_sides() -> None:
    assert settings.TOKEN == TOKEN_VARIABLE


@pytest.mark.parametrize(
    "path",
    ["/v2/models/wine/infer", "/v2/models/ready", "/v2/models/a/versions/ready", "/v2/models/a", "/", "/v2/health"],
)
def test_what_is_not_said_to_be_open_is_closed(path: str) -> None:
    assert not is_open(path)


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Bearer ", b"Bearer t0k", b"t0k3n-of-quality", b"Bearer \xff\xfe"])
def test_a_header_that_does_not_show_the_token_is_refused(value: bytes) -> None:
    with pytest.raises(RequestError) as failure:
        check_token([(b"authorization", value)], TOKEN)
    assert failure.value.status == 401


@pytest.mark.parametrize("token", ["", "two words", "line\n", "schl\u00fcssel"])
def test_a_token_that_nobody_could_show_does_not_start_a_server(token: str) -> None:
    with pytest.raises(StartError) as failure:
        check_usable(token)
    assert failure.value.code == "token"
    assert not token or token not in failure.value.sentence
