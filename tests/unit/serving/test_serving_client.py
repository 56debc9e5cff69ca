"""The client's side: what a person gives to `mlstack predict`, as a request of the protocol."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import NotChecked, Present
from mlstack.drivers.local.endpoint_client import build_request, endpoint_status, load_data, predict
from mlstack.spec.address import Address
from mlstack.state.state import Record

MATRIX = {"inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]}
COLUMNS = {"inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in ("acid", "sugar")]}
TEXT = {"inputs": [{"name": "input", "datatype": "BYTES", "shape": [-1]}]}


class Stranger(BaseHTTPRequestHandler):
    """A server of somebody else's, at the port where the endpoint was."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


def tensors(payload: Any, metadata: dict[str, Any]) -> list[tuple[Any, ...]]:
    request = build_request(payload, metadata)
    return [(entry["name"], entry["datatype"], entry["shape"], entry["data"]) for entry in request["inputs"]]


@pytest.mark.parametrize(
    ("payload", "metadata", "expected"),
    [
        ([[1, 2], [3, 4.5]], MATRIX, [("input", "FP64", [2, 2], [1, 2, 3, 4.5])]),
        ([1, 2], MATRIX, [("input", "INT64", [1, 2], [1, 2])]),
        ([{"b": 1, "a": 2.5}], MATRIX, [("input", "FP64", [1, 2], [1, 2.5])]),
        ([[1, "x"]], COLUMNS, [("acid", "INT64", [1], [1]), ("sugar", "BYTES", [1], ["x"])]),
        ({"sugar": None, "acid": 1.5}, COLUMNS, [("acid", "FP64", [1], [1.5]), ("sugar", "FP64", [1], [None])]),
        ([{"sugar": 1, "acid": 2, "label": "x"}], COLUMNS, [("acid", "INT64", [1], [2]), ("sugar", "INT64", [1], [1])]),
        ([{"acid": 2}], COLUMNS, [("acid", "INT64", [1], [2])]),
        (["good wine", "bad"], TEXT, [("input", "BYTES", [2], ["good wine", "bad"])]),
        ([{"x": True}], {"inputs": []}, [("x", "BOOL", [1], [True])]),
        ([[1, 2, 3]], COLUMNS, [("input", "INT64", [1, 3], [1, 2, 3])]),
    ],
)
def test_rows_become_a_request(payload: Any, metadata: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    assert tensors(payload, metadata) == expected


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ([], "at least one row"),
        ("text", "JSON list"),
        (3, "JSON list"),
        ([[1], [1, 2]], "same number of values"),
        ([[1], {"a": 1}], "some are not"),
        ([{"a": 1}, {"b": 1}], "same columns"),
        ([[1, "x"]], "different kinds"),
        ([[1], 2], "same number of values"),
    ],
)
def test_rows_that_are_no_table(payload: Any, sentence: str) -> None:
    with pytest.raises(MlstackError, match=sentence):
        build_request(payload, MATRIX)


def test_data_from_text_file_and_input(tmp_path: Path) -> None:
    assert load_data("[[1]]", read_input=str) == [[1]]
    assert load_data("-", read_input=lambda: "[2]") == [2]
    (tmp_path / "a.json").write_text("[[3]]")
    assert load_data(f"@{tmp_path}/a.json", read_input=str) == [[3]]
    (tmp_path / "a.csv").write_text("\ufeffn,x,word\n1,0.5,a\n2,,b\n\n", encoding="utf-8")
    expected = [{"n": 1, "x": 0.5, "word": "a"}, {"n": 2, "x": None, "word": "b"}]
    assert load_data(f"@{tmp_path}/a.csv", read_input=str) == expected


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.txt", "n,x\n1,2\n", r"has to end in \.csv"),
        ("a.csv", "n,x\n", "at least one row"),
        ("a.csv", "n,x\n1\n", "row 2 has 1 cells, the header 2"),
        ("a.csv", "n,n\n1,2\n", "two columns of the same name"),
        ("none", None, "No such file"),
    ],
)
def test_data_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(MlstackError, match=sentence):
        load_data(f"@{tmp_path / name}", read_input=str)


def test_nobody_answers() -> None:
    with socket.socket() as deaf:  # it has the port, so that nobody else takes it, and does not listen
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        with pytest.raises(MlstackError) as caught:
            predict(f"http://127.0.0.1:{port}", "m", [[1]], timeout=120)
    assert caught.value.diagnostics[0].code == "endpoint-unreachable"
    assert "Connection refused" in caught.value.diagnostics[0].detail


def test_somebody_else_answers() -> None:
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(MlstackError) as caught:
            predict(f"http://127.0.0.1:{server.server_port}", "m", [[1]], timeout=120)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert caught.value.diagnostics[0].code == "endpoint-unreachable"
    assert "Something else" in caught.value.diagnostics[0].detail


def test_status_of_what_was_not_checked() -> None:
    record = Record(
        address=Address("endpoints.q"), driver="local-endpoint", attributes={"url": "http://x", "folder": "/x"}
    )
    status = endpoint_status(record, NotChecked(reason="it runs on tower, not here"))
    assert (status.state, status.detail, status.log) == ("not-checked", "it runs on tower, not here", ())
    assert endpoint_status(record, Present()).state == "up"
