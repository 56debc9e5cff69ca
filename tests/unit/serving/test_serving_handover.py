"""Replacing a server loses no request; ending one answers what is in flight."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlstack.drivers.local import endpoint_start
from mlstack.drivers.local.endpoint_process import birth_of, wait_until
from mlstack.graph.change import Action
from mlstack.serving.run import stop_accepting

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project

Ask = Callable[..., tuple[int, Any]]
ROW = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]})
INFER = "/v2/models/wine/infer"

SLOW = """
import pathlib, time
class Wine:
    thread_safe = True
    def load(self, path):
        self.text = open(path).read()
    def predict(self, inputs):
        pathlib.Path("began").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        return [self.text]
"""


def test_request_in_flight_is_answered_by_the_old_model(project: "Project") -> None:
    project.write_code(SLOW)
    record = project.apply(action=Action.CREATE)
    answers: list[Any] = []
    asking, go = _ask_in_background(project, record.attributes, answers)

    def let_go() -> None:
        wait_until(lambda: any("answers what it was asked, and ends" in line for line in project.said), seconds=120)
        go.touch()

    letting_go = threading.Thread(target=let_go)
    letting_go.start()
    project.put(b"two")
    after = project.apply(record)
    letting_go.join()
    asking.join()
    assert answers == [(200, "one")]
    assert project.servers() == [after.attributes["pid"]]


def test_sigterm_answers_what_is_in_flight_and_takes_no_more(project: "Project", ask: Ask) -> None:
    project.write_code(SLOW)
    record = project.apply(action=Action.CREATE)
    answers: list[Any] = []
    asking, go = _ask_in_background(project, record.attributes, answers)
    pid = record.attributes["pid"]
    os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: _is_refused(ask, record.attributes["url"]), seconds=120)
    assert answers == []
    go.touch()
    asking.join()
    assert answers == [(200, "one")]
    assert wait_until(lambda: birth_of(pid) is None, seconds=120)


def _is_refused(ask: Ask, url: str) -> bool:
    try:
        ask(url, "/v2/health/live")
    except ConnectionError:
        return True
    return False


def test_idle_connection_does_not_hold_up_the_end(project: "Project", monkeypatch: pytest.MonkeyPatch) -> None:
    """It would for as long as it is kept; one that is held up for longer than the driver's grace is killed."""
    patient, told = {"keep_alive": 600, "grace": 600}, endpoint_start._settings
    monkeypatch.setattr(endpoint_start, "_settings", lambda *about: told(*about) | patient)
    record = project.apply(action=Action.CREATE)
    connection = HTTPConnection(record.attributes["url"].removeprefix("http://"), timeout=120)
    connection.request("GET", "/v2/health/live")
    connection.getresponse().read()
    project.delete(record)
    connection.close()
    assert not [line for line in project.said if "killing it" in line]


def test_connection_accepted_in_the_moment_of_the_end_is_answered() -> None:
    assert asyncio.run(_connect_while_ending()) == b"answered"


async def _connect_while_ending() -> bytes:
    """Let a server stop accepting between its accepting a connection and the first step of that connection's task."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answered")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    ended = asyncio.get_running_loop().create_future()

    def end() -> None:
        asyncio.ensure_future(stop_accepting([server])).add_done_callback(ended.set_result)

    with socket.create_connection(server.sockets[0].getsockname()) as client:
        # `end` runs in the same round of the loop as accepting, before it: so its task has its turn just before that of
        # the connection.
        asyncio.get_running_loop().call_soon(end)
        await ended
        client.setblocking(False)
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 64), timeout=120)


def _ask_in_background(project: "Project", known: dict[str, Any], answers: list[Any]) -> tuple[threading.Thread, Path]:
    """Ask, and return when the model computes the answer: who asks, and the file without which it never ends."""
    from tests.unit.serving.serving_project import ask_server

    def ask() -> None:
        status, body = ask_server(known["url"], INFER, raw=ROW.encode())
        answers.append((status, body["outputs"][0]["data"][0] if status == 200 else body))

    thread = threading.Thread(target=ask)
    thread.start()
    folder = project.root / ".mlstack/endpoints/local/endpoints.quality"
    assert wait_until(lambda: bool(list(folder.glob("*/began"))), seconds=120)
    (began,) = folder.glob("*/began")
    return thread, began.with_name("go")
