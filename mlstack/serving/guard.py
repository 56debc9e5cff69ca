"""What keeps the server from those who should not ask, and from those who never finish asking."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import AsyncIterator, Iterable
from hashlib import sha256
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .faults import RequestError, StartError

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


def is_open(path: str) -> bool:
    """Whether everybody may ask for a path: probes have no token, and what they learn is no secret."""
    parts = path.split("/")  # of a model called "ready" the rest is not open
    is_model = path.startswith("/v2/models/") and parts[-1] == "ready" and len(parts) in (5, 7)
    return is_model or path in ("/v2/health/live", "/v2/health/ready", "/metrics")


def check_token(headers: Iterable[tuple[bytes, bytes]], token: str) -> None:
    """Refuse who does not show the token: `Authorization: Bearer …`.

    `X-Mlstack-Authorization` is as good: Kubernetes' API server, through which an endpoint can be asked, keeps
    `Authorization` for itself. The time that it takes says nothing of the token.

    Raises:
        RequestError: with status 401.
    """
    wanted, shown = sha256(token.encode()).digest(), False
    for name, value in headers:
        if name in (b"authorization", b"x-mlstack-authorization"):
            scheme, _, given = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                shown = True
                if hmac.compare_digest(sha256(given.strip()).digest(), wanted):
                    return
    why = "The token is not the one of this endpoint." if shown else "This endpoint asks for a token."
    raise RequestError(f"{why} Send `Authorization: Bearer TOKEN`.", status=401)


def check_usable(token: str) -> None:
    """Refuse a token that no header can carry.

    Raises:
        StartError: "token".
    """
    if not token or not all("!" <= letter <= "~" for letter in token):
        what = "is empty" if not token else "holds blanks or letters beyond ASCII"
        raise StartError("token", f"The token of this endpoint {what}, so that nobody could show it in a request.")


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
