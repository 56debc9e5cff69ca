"""The routes of the Open Inference Protocol v2, asked of one real server."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlstack.graph.change import Action

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project

ROW = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}
CLASS = """
class Refused(Exception):
    client_error = True

class Wine:
    def load(self, path):
        pass

    def predict(self, inputs):
        x = inputs["x"]
        if x[0] == 1: raise ValueError("boom\\nsecond line")
        if x[0] == 2: raise Refused("Two is not a grape.")
        if x[0] == 3: return [float("nan")]
        if x[0] == 4: raise SystemExit(1)
        return {"y": x * 2, "kind": [type(x).__name__]}
"""


def test_routes(project: "Project", ask: Callable[..., tuple[int, Any]]) -> None:
    project.write_code(CLASS)
    record = project.apply(action=Action.CREATE)
    url, version = record.attributes["url"], project.version
    infer = "/v2/models/wine/infer"

    def get(path: str) -> tuple[int, Any]:
        return ask(url, path)

    def post(*inputs: Any, path: str = infer, **more: Any) -> tuple[int, Any]:
        return ask(url, path, {"inputs": list(inputs), **more})

    assert get("/v2")[1]["name"] == "mlstack"
    assert get("/v2/health/live") == (200, {"live": True})
    assert get("/v2/health/ready") == (200, {"ready": True})
    assert get("/v2/models/wine/ready") == (200, {"name": "wine", "ready": True})
    assert get(f"/v2/models/wine/versions/{version}/ready")[0] == 200
    metadata = {"name": "wine", "versions": [version], "platform": "python", "inputs": [], "outputs": []}
    assert get(f"/v2/models/wine/versions/{version}") == get("/v2/models/wine") == (200, metadata)

    status, answer = post(ROW, id="a-1")
    assert status == 200
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a-1", "wine", version)
    assert [output["name"] for output in answer["outputs"]] == ["y", "kind"]
    assert answer["outputs"][1]["data"] == ["ndarray"]
    status, answer = post(ROW, path=f"/v2/models/wine/versions/{version}/infer", outputs=[{"name": "y"}])
    assert answer["outputs"] == [{"name": "y", "datatype": "FP64", "shape": [1], "data": [3.0]}]
    assert "id" not in answer

    # what is wrong, each with one sentence
    assert get("/v2/models/beer") == (404, {"error": 'There is no model "beer" here; there is "wine".'})
    assert get("/v2/models/wine/versions/7")[0] == 404
    assert get("/nothing") == (404, {"error": "There is nothing at /nothing."})
    assert get(infer) == (405, {"error": f"{infer} does not answer to GET."})
    assert post(ROW, outputs=[{"name": "z"}]) == (
        400,
        {"error": 'There is no output "z"; this model gives "y", "kind".'},
    )
    assert ask(url, infer, raw=b"{")[0] == 400
    assert post(ROW | {"data": [1]}) == (500, {"error": "The model failed to answer: ValueError: boom"})
    assert post(ROW | {"data": [2]}) == (400, {"error": "Two is not a grape."})
    assert post(ROW | {"data": [3]})[0] == 500
    assert post(ROW | {"name": "other"}) == (500, {"error": "The model failed to answer: KeyError: 'x'"})
    assert post(ROW | {"data": [4]})[0] == 500
    assert post(ROW)[0] == 200, "the server goes on after all of this"
    log = max((project.root / ".mlstack").rglob("server.log")).read_text()
    assert "Traceback" in log
    assert "second line" in log
    assert "POST" not in log, "no access log"


def test_a_body_over_the_limit(project: "Project", ask: Callable[..., tuple[int, Any]]) -> None:
    url = project.apply(action=Action.CREATE).attributes["url"]
    limit = 64 * 1024 * 1024
    body = b'{"inputs": "' + b"x" * limit + b'"}'
    assert ask(url, "/v2/models/wine/infer", raw=body) == (
        413,
        {"error": f"The request's body is larger than {limit} bytes."},
    )
    assert ask(url, "/v2/health/live")[0] == 200


def test_large_request_does_not_hold_up_the_health_route(
    project: "Project", ask: Callable[..., tuple[int, Any]]
) -> None:
    url = project.apply(action=Action.CREATE).attributes["url"]
    count = 300_000
    body = {"inputs": [{"name": "x", "shape": [count], "datatype": "FP64", "data": [0.5] * count}]}
    status, answer = ask(url, "/v2/models/wine/infer", raw=json.dumps(body).encode())
    assert (status, answer["outputs"][0]["shape"]) == (200, [count])
