"""A TCP proxy that drops every n-th connection, some of them in the middle of an answer."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """`failed` counts the connections that were dropped."""

    def __init__(self, target: int, every: int) -> None:
        self.failed = 0
        self._target = target
        self._every = every
        self._count = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request a connection: the answer says `close`, so that the next comes through here anew."""
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
            while data := server.recv(65536):
                with self._lock:
                    self._count += 1
                    drop = self._count % self._every == 0
                    self.failed += drop
                if drop:
                    client.sendall(data[: len(data) // 2])
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _copy(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)


@contextlib.contextmanager
def flaky(target: int, *, every: int) -> Iterator[Proxy]:
    """Stand before a port of this machine."""
    proxy = Proxy(target, every)
    try:
        yield proxy
    finally:
        proxy.close()
