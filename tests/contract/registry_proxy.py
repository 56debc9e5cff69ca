"""A proxy in front of a real registry that asks for a login, fails, is slow or silent, as a test wants it to."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[str, str], int | None]
"""Given method and path: the status to answer with instead of asking the registry, None to ask it."""

_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class RegistryProxy(ThreadingHTTPServer):
    """Listens on a port of its own. `login` is `user:password` that every request has to bring."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.fault: Fault = lambda _method, _path: None
        self.login: str | None = None
        self.delay = 0.0
        self.resume = threading.Event()
        self.asked: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"localhost:{self.server_address[1]}"

    def fail(self, status: int, *, method: str = "", part: str = "") -> None:
        """Answer so where method and path fit."""
        self.fault = lambda asked, path: status if asked.startswith(method) and part in path else None

    def heal(self) -> None:
        self.fault = lambda _method, _path: None
        self.delay = 0.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RegistryProxy

    def _handle(self) -> None:
        body = self._body()
        self.server.asked.append((self.command, self.path))
        if self.server.delay:
            self.server.resume.wait(self.server.delay)
        status = self.server.fault(self.command, self.path)
        if status is None and self.server.login is not None:
            wanted = f"Basic {base64.b64encode(self.server.login.encode()).decode()}"
            status = None if self.headers.get("Authorization") == wanted else 401
        if status is not None:
            self._answer(status, {"WWW-Authenticate": 'Basic realm="test"'} if status == 401 else {}, b"{}")
            return
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # some come more than once
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, kept, data, length=length)
        connection.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, length: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@contextmanager
def proxy_of(upstream: str) -> Iterator[RegistryProxy]:
    """Run a proxy until the block ends."""
    with RegistryProxy(upstream) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True, args=(0.05,)).start()
        try:
            yield proxy
        finally:
            proxy.resume.set()
            proxy.shutdown()
