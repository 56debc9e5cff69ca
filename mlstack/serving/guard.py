"""What keeps the server from those who should not ask, and from those who never finish asking."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .faults import RequestError

HEAD_SECONDS = 20.0
BODY_SECONDS = 20.0
SLOWEST = 16 * 1024
DISCARD = 16 * 1024 * 1024


class PatientConnection(H11Protocol):
    """uvicorn's connection, closed when the head of a request does not come within `HEAD_SECONDS`.

    uvicorn itself waits for ever: a few thousand connections that send a byte now and then would use up the server's
    descriptors.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and go on waiting only if a head is not complete."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._forget_head()

    def _watch_head(self) -> None:
        is_waiting = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if not is_waiting:
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


async def read_body(chunks: AsyncIterator[bytes], *, limit: int) -> bytes:
    """Return a request's body.

    Raises:
        RequestError: for one of more than `limit` bytes, and for one that comes slower than `SLOWEST` bytes a second
            (each body gets `BODY_SECONDS` more).
    """
    clock = asyncio.get_running_loop().time
    began, size = clock(), 0
    kept: list[bytes] = []
    while True:
        left = began + BODY_SECONDS + size / SLOWEST - clock()
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), timeout=max(left, 0))
        except asyncio.TimeoutError:  # noqa: UP041 - its name until Python 3.11
            raise RequestError("The request's body came too slowly.", status=408) from None
        if chunk is None:
            break
        size += len(chunk)
        # What is too large is still read (not kept), as far as is decent: a client that is cut off while it sends sees
        # a broken connection instead of the answer.
        if size <= limit:
            kept.append(chunk)
        elif size > 2 * limit + DISCARD:
            break
    if size > limit:
        raise RequestError(f"The request's body is larger than {limit} bytes.", status=413)
    return b"".join(kept)


def check_host(asked: str | None, *, listening: str) -> None:
    """Refuse what a browser was talked into (DNS rebinding): a name of somebody else's that leads to this machine.

    Only where the server listens on loopback: elsewhere it cannot know by which names others call it.

    Raises:
        RequestError: with status 421.
    """
    if asked is None or not is_loopback(listening):
        return
    name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdecimal() else asked
    name = name.strip("[]").rstrip(".").lower()
    if name != "localhost" and not name.endswith(".localhost") and not is_loopback(name):
        sentence = f'This server answers on its own machine only, as localhost or 127.0.0.1, not as "{name[:100]}".'
        raise RequestError(sentence, status=421)


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
