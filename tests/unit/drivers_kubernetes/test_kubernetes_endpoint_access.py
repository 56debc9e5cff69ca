"""An endpoint that is asked by way of the API server: which header has its token, and whose refusal is whose."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.endpoint_access import sender_for
from mlstack.spec.address import Address
from mlstack.state.state import Record

REFUSED = {"WWW-Authenticate": 'Bearer realm="mlstack"'}
STATUS: dict[str, Any] = {"kind": "Status", "message": "services/proxy is forbidden"}


class Proxy(BaseHTTPRequestHandler):
    """What an API server and the endpoint behind it say, as a script."""

    answers: ClassVar[list[tuple[int, dict[str, str], dict[str, Any]]]] = []
    asked: ClassVar[list[tuple[str, str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, body = self.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Record]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(Proxy, "answers", [])
    monkeypatch.setattr(Proxy, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "clusters": [{"name": "dev", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {"token": "of-the-cluster"}}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "me"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    yield Record(
        address=Address("endpoints.quality"), driver="kubernetes-endpoint", version=1, attributes={"namespace": "ml"}
    )
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_token_has_a_header_that_the_api_server_hands_on(record: Record, tmp_path: Path) -> None:
    Proxy.answers += [(200, {}, {"name": "wine"}), (200, {}, {})]
    send = sender_for(record, root=tmp_path, timeout=30, token="t0k3n")
    plain = sender_for(record, root=tmp_path, timeout=30, token=None)
    assert send is not None
    assert plain is not None

    assert send("GET", "/v2/models/wine", None) == (200, b'{"name": "wine"}')
    plain("GET", "/v2", None)

    (_, path, headers), (_, _, without) = Proxy.asked
    assert path == "/api/v1/namespaces/ml/services/quality%3Ahttp/proxy/v2/models/wine"
    assert headers["x-mlstack-authorization"] == "Bearer t0k3n"
    assert headers["authorization"] == "Bearer of-the-cluster"
    assert "x-mlstack-authorization" not in without


def test_the_endpoint_s_own_refusal_is_handed_on_and_the_cluster_s_is_explained(record: Record, tmp_path: Path) -> None:
    send = sender_for(record, root=tmp_path, timeout=30, token="t0k3n")
    assert send is not None
    Proxy.answers.append((401, REFUSED, {"error": "This endpoint asks for a token."}))
    assert send("GET", "/v2", None)[0] == 401

    for status in (401, 403):
        Proxy.answers.append((status, {}, STATUS))
        with pytest.raises(MlstackError) as failure:
            send("GET", "/v2", None)
        assert failure.value.diagnostics[0].code == "endpoint-unreachable"
        assert "t0k3n" not in str(failure.value.diagnostics)
