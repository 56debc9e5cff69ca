"""Handing the listening socket from the old server of an endpoint to the new one, so that no request is lost.

Both processes share one socket and so one queue of waiting connections: with SO_REUSEPORT each would have its own, and
what waits in the old one's would be reset when it closes. The old server listens on `control.sock` in its folder (which
only this user can enter). The new one connects, loads its model, and then says "take"; it gets the socket, accepts on
it, and says "serving"; only then the old one stops accepting. If the new one breaks off at any point, the old one just
goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .faults import StartError

CONTROL = "control.sock"
TAKE, SERVING, DONE = b"take\n", b"serving\n", b"done\n"
log = logging.getLogger("mlstack.serving")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Stand in `folder`: the path of a Unix socket is at most 104 bytes, the folder's may be longer."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def offer(folder: Path, *, get_socket: Callable[[], socket.socket | None], on_taken: Callable[[], None]) -> None:
    """Listen on the control socket, in threads of their own, until the process ends.

    `get_socket` returns the listening socket, None before there is one; `on_taken` is called when somebody else serves.
    Must be called before any other thread runs (it changes the working folder for a moment).
    """
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _inside(folder):
        Path(CONTROL).unlink(missing_ok=True)
        control.bind(CONTROL)
        Path(CONTROL).chmod(0o600)
    control.listen(8)

    def accept() -> None:
        while True:
            connection, _ = control.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True, name="handover").start()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                _hand_over(connection, get_socket(), on_taken)
            except OSError as error:
                log.warning("a handover was broken off: %s", error)

    threading.Thread(target=accept, daemon=True, name="control").start()


def _hand_over(connection: socket.socket, listening: socket.socket | None, on_taken: Callable[[], None]) -> None:
    if connection.recv(64) != TAKE or listening is None:
        return
    socket.send_fds(connection, [TAKE], [listening.fileno()])
    connection.settimeout(30)
    if connection.recv(64) == SERVING:
        on_taken()
        connection.sendall(DONE)


class Predecessor:
    """The connection to the server that is to be replaced."""

    def __init__(self, folder: Path) -> None:
        """Connect. Must be called before any other thread runs (it changes the working folder for a moment).

        Raises:
            StartError: "take-over", if the old server does not listen.
        """
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.settimeout(10)
        try:
            with _inside(folder):
                self._connection.connect(CONTROL)
        except OSError as error:
            raise StartError("take-over", f"The server to be replaced does not answer: {error}.") from error

    def take(self) -> socket.socket:
        """Return the listening socket, which the old server still accepts on as well.

        Raises:
            StartError: "take-over".
        """
        try:
            self._connection.sendall(TAKE)
            _, descriptors, _, _ = socket.recv_fds(self._connection, 64, 1)
        except OSError as error:
            raise StartError("take-over", f"The server to be replaced broke off: {error}.") from error
        if not descriptors:
            raise StartError("take-over", "The server to be replaced did not hand its socket over.")
        listening = socket.socket(fileno=descriptors[0])
        listening.set_inheritable(False)
        return listening

    def serving(self) -> None:
        """Tell the old server to stop accepting; one that has just died is as good."""
        with contextlib.suppress(OSError), self._connection:
            self._connection.sendall(SERVING)
            self._connection.recv(64)
