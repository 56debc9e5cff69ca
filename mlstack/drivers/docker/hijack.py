"""A connection to the engine that becomes the standard input and output of something in a container.

The SDK opens such a connection too, but reads its first answer through a buffer, in which output gets lost that comes
at once. Only engines on this machine are asked, so it is always a Unix socket.
"""

import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

_ANSWERS_WITHIN = 30.0
_LONGEST_HEAD = 65536
_UPGRADED = ("101 ", "200 ")


def hijack(host: str, path: str, body: Mapping[str, Any] | None = None) -> socket.socket:
    """Ask the engine at `host` (`unix://…`) for `path`, and return the connection once the streams run through it.

    It has a timeout; closing its writing half is the end of the standard input. Raises `OSError` when the engine does
    not answer, or refuses.
    """
    if not host.startswith("unix://"):
        raise OSError(f"{host} is no engine on this machine")
    content = json.dumps(body or {}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with ExitStack() as undo:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(connection.close)
        connection.settimeout(_ANSWERS_WITHIN)
        connection.connect(host.removeprefix("unix://"))
        connection.sendall(head.encode() + content)
        _read_head(connection)
        undo.pop_all()
        return connection


def _read_head(connection: socket.socket) -> None:
    """Read up to the empty line and not a byte more: what follows is output already. Raises `OSError`."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) > _LONGEST_HEAD:
            raise OSError("the engine ended the connection")
        head += byte
    _, _, answer = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    if not answer.startswith(_UPGRADED):
        raise OSError(f"the engine answers {answer}")
