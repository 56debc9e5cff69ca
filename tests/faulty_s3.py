"""What stands between a program and its object store, and goes wrong on demand: a small HTTP proxy of the tests.

`faults` is a list of `Fault`; the first that fits a request and is not used up decides what becomes of it. Requests are
recorded in `seen`, so that a test can say how often a store was asked.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

_HOPS = {"connection", "transfer-encoding", "content-length", "host", "expect"}
_BODY = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method` whose path contains `path`, after the first `after`.

    `answer`: a status with S3's code and message, nothing is forwarded. `lose`: forwarded, and the connection is cut
    instead of an answer. `cut`: the answer breaks off in its middle. `slow`: answered after `seconds`.
    `ignore-conditions`: forwarded without `If-Match` and `If-None-Match`.
    """

    kind: Literal["answer", "lose", "cut", "slow", "ignore-conditions"]
    method: str = ""
    path: str = ""
    times: int = 1_000_000
    after: int = 0
    status: int = 500
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."
    seconds: float = 0.0

    def fits(self, method: str, path: str) -> bool:
        """Use it up by one, if it is about this request."""
        if self.times <= 0 or self.method not in ("", method) or self.path not in path:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


@dataclass
class FaultyS3:
    """The proxy. `reached` is called with method and path of each request before it is forwarded."""

    endpoint: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    reached: Callable[[str, str], None] | None = None
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Record a request and return what goes wrong with it."""
        with self.mutex:
            self.seen.append((method, path))
            found = next((fault for fault in self.faults if fault.fits(method, path)), None)
        if self.reached is not None:
            self.reached(method, path)
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: str
    proxy: FaultyS3

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        self.proxy.signatures.append(self.headers.get("Authorization") or "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.fault_for(self.command, self.path)
        kind = fault.kind if fault else ""
        if fault and kind == "answer":
            content = _BODY.format(code=fault.code, message=fault.message).encode()
            self._answer(fault.status, {"Content-Type": "application/xml"}, content)
            return
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        status, headers, content = self._forward(body, plain=kind == "ignore-conditions")
        if kind == "lose":
            self.close_connection = True
            return
        self._answer(status, headers, content, cut=kind == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - names of http.server

    def _forward(self, body: bytes, *, plain: bool) -> tuple[int, dict[str, str], bytes]:
        conditions = {"if-match", "if-none-match"} if plain else set()
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOPS | conditions}
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers={**kept, "Host": self.target})
            answer = connection.getresponse()
            content = answer.read()
            length = {"Content-Length": answer.headers["Content-Length"]} if self.command == "HEAD" else {}
            return answer.status, {n: v for n, v in answer.headers.items() if n.lower() not in _HOPS} | length, content
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A program that was killed while it waited for its answer is what these tests are about."""


@contextmanager
def faulty_s3(endpoint: str) -> Iterator[FaultyS3]:
    """Stand before a store on this machine while the block lasts; what programs are told is `.endpoint`."""
    proxy = FaultyS3()
    handler = type("Handler", (_Handler,), {"target": urlsplit(endpoint).netloc, "proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
