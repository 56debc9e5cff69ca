"""What is taken for "not there", for "not now", and for "somebody else": in an outage all three look alike."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.connection import Connection
from mlstack.drivers.kubernetes.refusals import looking, may_pass, unreachable
from mlstack.drivers.stacks import UnseenError

STATUS = '{"kind": "Status", "reason": "NotFound", "message": "jobs \\"x\\" not found"}'


class Handler(BaseHTTPRequestHandler):
    answer: ClassVar[tuple[int, str]] = (200, "{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    """A cluster whose API server is somebody who answers what he is told to."""
    monkeypatch.setenv("NO_PROXY", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Kube(connection(f"http://127.0.0.1:{server.server_address[1]}"))
    server.shutdown()
    server.server_close()
    thread.join()


def connection(server: str) -> Connection:
    return Connection(server=server, namespace="ml", source="config", context="dev", cluster={}, user={})


def problem_of(kube: Kube, kind: str = "Job") -> MlstackError:
    with pytest.raises(MlstackError) as raised:
        kube.listing(kind, "ml")
    return raised.value


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, '{"kind": "Status", "message": "etcdserver: request timed out"}'),
        (503, "upstream connect error"),
        (504, '{"kind": "Status", "message": "Timeout: request did not complete"}'),
        (429, '{"kind": "Status", "message": "storage is (re)initializing"}'),
        (404, "default backend - 404"),
    ],
)
def test_a_server_that_cannot_at_the_moment_is_no_refusal(
    kube: Kube, monkeypatch: pytest.MonkeyPatch, status: int, body: str
) -> None:
    """Nor does a balancer that has lost its API server say that there are no Jobs: another one would be made."""
    monkeypatch.setattr(Handler, "answer", (status, body))
    error = problem_of(kube)
    assert error.diagnostics[0].code == "kubernetes-unavailable"
    assert may_pass(error)
    with pytest.raises(MlstackError):
        kube.get("Job", "x", "ml")


def test_what_an_api_server_says_is_not_there_is_not(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "answer", (404, STATUS))
    assert kube.get("Job", "x", "ml") is None
    monkeypatch.setattr(Handler, "answer", (404, "404 page not found"))
    assert kube.listing("LocalQueue", "ml") == []  # Kueue is not installed
    assert not kube.has_type("HTTPRoute")


@pytest.mark.parametrize(("status", "passes"), [(401, False), (403, False), (409, False)])
def test_a_refusal_does_not_pass(kube: Kube, monkeypatch: pytest.MonkeyPatch, status: int, passes: bool) -> None:
    monkeypatch.setattr(Handler, "answer", (status, '{"kind": "Status", "message": "No"}'))
    assert may_pass(problem_of(kube)) is passes


def test_a_server_that_goes_away_in_the_handshake_is_not_somebody_else() -> None:
    """Only what a certificate says does: the hint to get another kubeconfig would be wrong in an outage."""
    there = connection("https://127.0.0.1:1")
    cut = ssl.SSLEOFError(8, "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol")
    wrong = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert unreachable(there, cut).code == "kubernetes-unreachable"
    assert unreachable(there, wrong).code == "kubernetes-tls"
    assert "timed out" in unreachable(there, TimeoutError("_ssl.c:989: The handshake operation timed out")).detail


def test_what_could_not_be_looked_at_has_not_failed(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint is not taken back because nobody may, or can, see whether it is ready."""
    for status, expected in ((503, UnseenError), (403, UnseenError), (422, MlstackError)):
        monkeypatch.setattr(Handler, "answer", (status, '{"kind": "Status", "message": "No"}'))
        with pytest.raises(MlstackError) as raised, looking():
            kube.listing("Job", "ml")
        assert type(raised.value) is expected
