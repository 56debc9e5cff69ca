"""The model server refuses who was talked into asking it, and does not wait for those who never finish asking."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from mlstack.graph.change import Action
from mlstack.serving import guard
from mlstack.serving.faults import RequestError
from mlstack.serving.guard import PatientConnection, check_host, read_body

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project


@pytest.mark.parametrize(
    "asked",
    [None, "localhost", "LOCALHOST:8080", "localhost.", "a.localhost:1", "127.0.0.1:8080", "127.1.2.3", "[::1]:80"],
)
def test_names_of_this_machine(asked: str | None) -> None:
    check_host(asked, listening="127.0.0.1")


@pytest.mark.parametrize(
    "asked", ["evil.example", "evil.example:8080", "localhost.evil.example", "192.168.0.7:8080", "[fe80::1]:80", ""]
)
def test_names_of_others(asked: str) -> None:
    with pytest.raises(RequestError, match="not as") as raised:
        check_host(asked, listening="::1")
    assert raised.value.status == 421
    check_host(asked, listening="0.0.0.0")  # it cannot know by which names others call it


def test_a_page_that_rebinds_its_name_gets_nothing(project: "Project") -> None:
    place = project.apply(action=Action.CREATE).attributes["url"].removeprefix("http://")
    for name, status in (("evil.example", 421), ("localhost", 200)):
        connection = HTTPConnection(place, timeout=120)
        connection.request("GET", "/v2/models/wine", headers={"Host": name})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status == status, answer
        assert ("error" in answer) == (status == 421)


async def _trickle(count: int, *, pause: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause)
        yield b"x" * 10


def test_a_body_that_comes_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with pytest.raises(RequestError, match="too slowly") as raised:
        asyncio.run(read_body(_trickle(10_000, pause=0.01), limit=10**6))
    assert raised.value.status == 408


def test_a_body_that_goes_on_coming_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 60.0)
    monkeypatch.setattr(guard, "SLOWEST", 0.5)
    assert len(asyncio.run(read_body(_trickle(50, pause=0.001), limit=10**6))) == 500


def test_a_body_that_is_far_too_large_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "DISCARD", 100)
    chunks = _trickle(1000, pause=0)
    with pytest.raises(RequestError, match="larger than 50 bytes"):
        asyncio.run(read_body(chunks, limit=50))


def _receive(connection: socket.socket) -> None:
    received = b""
    while not received.endswith(b"ok"):
        chunk = connection.recv(4096)
        assert chunk, received
        received += chunk


async def _answer(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _with_server(client: Callable[[int], None]) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        _answer, http=PatientConnection, ws="none", lifespan="off", log_config=None, timeout_keep_alive=30
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
        await asyncio.sleep(0.005)
    try:
        await asyncio.to_thread(client, listening.getsockname()[1])
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "second request"])
def test_a_head_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 120.0 if before else 0.5)

    def client(port: int) -> None:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            if before:
                connection.sendall(before)
                _receive(connection)
                monkeypatch.setattr(guard, "HEAD_SECONDS", 0.5)
                began = time.monotonic()
            with suppress(ConnectionError):  # it may have waited long enough before this thread had its turn
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            closed = False
            while not closed and time.monotonic() - began < 120:
                try:
                    connection.sendall(b"X: a\r\n")
                    connection.settimeout(0.05)
                    closed = connection.recv(4096) == b""
                except TimeoutError:
                    continue
                except ConnectionError:
                    closed = True
            assert closed
            assert time.monotonic() - began > 0.4

    asyncio.run(_with_server(client))


def test_an_idle_connection_is_kept_until_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            for _ in range(3):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                _receive(connection)
                monkeypatch.setattr(guard, "HEAD_SECONDS", 0.3)
                time.sleep(0.6)

    asyncio.run(_with_server(client))
