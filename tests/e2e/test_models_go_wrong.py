"""A model that raises, and an endpoint that is replaced again and again, through the whole command line."""

import itertools
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from mlstack.drivers.local.endpoint_process import servers_below, wait_until
from tests.e2e.workspace import Workspace, clean_environment
from tests.unit.serving.constant_clients import Client, ask_all_the_time, seen_by_all

pytestmark = pytest.mark.e2e

ENDPOINT = "endpoints.e"
FILE = """version: 1
project: wrong
python: system
params: {word: start}
stages:
  fit: {cmd: 'printf "%s" "$MLSTACK_PARAMS" > model.json', params: [word], outs: {model: model.json}}
models:
  m: {from: stages.fit.outs.model, framework: python, class: "served:Served"}
endpoints:
  e: {model: models.m}
"""
CLASS = """import json
class Served:
    def load(self, path):
        with open(path) as stream:
            self.word = json.load(stream)["word"]
        if self.word == "broken":
            raise ValueError("it is broken inside")
    def predict(self, inputs):
        if self.word == "sour":
            raise RuntimeError("it went sour")
        return [self.word]
"""
REPLACEMENTS = 5


@pytest.fixture
def project(tmp_path: Path, shared_cache: Path) -> Iterator[Workspace]:
    for name in ("home", "project"):
        (tmp_path / name).mkdir()
    made = Workspace(tmp_path / "project", clean_environment(tmp_path / "home", shared_cache))
    (made.root / "mlstack.yaml").write_text(FILE, encoding="utf-8")
    (made.root / "served.py").write_text(CLASS, encoding="utf-8")
    made.git("init", "-q", "-b", "main")
    made.init()
    made.mlstack("apply", "--yes")
    yield made
    made.kill_everything()


def serve(project: Workspace, before: str, word: str, *, code: int = 0) -> str:
    """Apply another model; return all that was said."""
    project.edit("mlstack.yaml", f"word: {before}", f"word: {word}")
    done = project.mlstack("apply", "--yes", code=code)
    return done.stdout + done.stderr


def server_of(project: Workspace) -> psutil.Process:
    """The one server that there is."""
    (server,) = servers_below(project.root)
    return psutil.Process(server)


def predict(project: Workspace) -> str:
    answer = json.loads(project.mlstack("predict", ENDPOINT, "--data", "[[1]]", "--json").stdout)
    return str(answer["outputs"][0]["data"][0])


def test_model_that_raises(project: Workspace) -> None:
    said = serve(project, "start", "broken", code=1)
    assert "The model does not load: ValueError: it is broken inside" in said
    log = next(project.root.glob(".mlstack/endpoints/local/*/failed.log"))
    assert str(log) in "".join(said.split()), "wherever the line was wrapped"
    assert "Traceback" in log.read_text(encoding="utf-8")
    failed = next(line for line in said.splitlines() if line.startswith(f"  ✗ {ENDPOINT}"))
    assert failed.endswith("it is broken inside."), "one line, without the log"
    assert predict(project) == "start", "the old one goes on answering"
    rows = {row["address"]: row for row in json.loads(project.mlstack("status", "--json").stdout)["resources"]}
    assert rows[ENDPOINT]["status"] == "ready, old"

    serve(project, "broken", "sour")
    refused = project.mlstack("predict", ENDPOINT, "--data", "[[1]]", code=1).stderr
    assert "RuntimeError: it went sour (HTTP 500)" in refused
    assert f"mlstack logs {ENDPOINT}" in refused
    connection = HTTPConnection(project.url(ENDPOINT).removeprefix("http://"), timeout=120)
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]}
    connection.request("POST", "/v2/models/m/infer", body=json.dumps(body))
    answer = connection.getresponse()
    assert answer.status == 500
    assert json.load(answer) == {"error": "The model failed to answer: RuntimeError: it went sour"}
    connection.close()
    assert 'raise RuntimeError("it went sour")' in project.mlstack("logs", ENDPOINT).stdout


def test_replaced_again_and_again_under_load(project: Workspace) -> None:
    url = project.url(ENDPOINT)
    words = ["start", *(f"word-{number}" for number in range(REPLACEMENTS))]
    held_at_first = server_of(project).num_fds()

    def replace(clients: list[Client]) -> None:
        seen_by_all(clients, "start")
        for before, word in itertools.pairwise(words):
            serve(project, before, word)
            assert project.url(ENDPOINT) == url
            seen_by_all(clients, word)

    for client in ask_all_the_time(url.removeprefix("http://"), replace, model="m"):
        assert client.faults == []
        assert list(dict.fromkeys(client.answers)) == words, "each model answered, in this order"
    # Once the connections of the clients are closed, none is left that one server handed to the next.
    assert wait_until(lambda: server_of(project).num_fds() < held_at_first + REPLACEMENTS, seconds=240)
    folders = [each.name for each in (project.root / ".mlstack/endpoints/local" / ENDPOINT).iterdir() if each.is_dir()]
    assert len(folders) == 1, folders
    project.assert_settled()
