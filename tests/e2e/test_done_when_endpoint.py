"""Issue 3, "Done when": the quickstart's endpoint answers, refuses what does not fit, and comes back."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e

PATIENT = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
ENDPOINT = "endpoints.progression"


def infer(project: Workspace, tensor: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What `curl` sends: a plain POST without any client library."""
    request = urllib.request.Request(
        f"{project.url(ENDPOINT)}/v2/models/progression/infer",
        data=json.dumps({"inputs": [tensor]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_endpoint_answers_refuses_and_comes_back(start: Start) -> None:
    project = start("quickstart")
    project.init()
    project.mlstack("apply", "--yes")
    project.assert_settled()

    good = {"name": "input", "datatype": "FP64", "shape": [1, 10], "data": PATIENT}
    status, answer = infer(project, good)
    assert status == 200
    assert answer["outputs"][0]["shape"] == [1]
    assert 25 <= answer["outputs"][0]["data"][0] <= 346, "within the range of the data"

    shown = project.mlstack("predict", ENDPOINT, "--data", json.dumps([PATIENT]), "--json")
    assert json.loads(shown.stdout)["outputs"][0]["data"] == answer["outputs"][0]["data"]

    status, answer = infer(project, {"name": "input", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]})
    assert status == 400
    assert "[1, 3]" in answer["error"]
    assert "10" in answer["error"]

    assert project.kill_everything() > 0
    assert list(project.actions()) == [ENDPOINT]
    assert project.mlstack("plan", "--detailed-exitcode", code=2)
    assert "down" in project.mlstack("status", code=None).stdout.lower()
    project.mlstack("apply", "--yes")
    assert infer(project, good)[0] == 200
    project.assert_settled()


def test_model_that_misses_its_gate_is_not_served(start: Start) -> None:
    project = start("quickstart")
    project.init()
    project.mlstack("apply", "--yes")
    good = {"name": "input", "datatype": "FP64", "shape": [1, 10], "data": PATIENT}
    before = infer(project, good)[1]["outputs"][0]["data"]

    project.edit("mlstack.yaml", "depth: 4", "depth: 8")
    done = project.mlstack("apply", "--yes", code=1)
    assert "rmse" in done.stdout + done.stderr
    assert infer(project, good)[1]["outputs"][0]["data"] == before, "the old model goes on answering"

    project.edit("mlstack.yaml", "depth: 8", "depth: 2")
    project.mlstack("apply", "--yes")
    assert infer(project, good)[1]["outputs"][0]["data"] != before
    project.assert_settled()
