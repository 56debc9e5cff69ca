"""Clients that ask a model server without a pause, while it is replaced."""

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any

from mlstack.drivers.local.endpoint_process import wait_until
from mlstack.serving.settings import KEEP_ALIVE

ROW = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}]}


class Client(threading.Thread):
    """Asks again and again; every request on a connection of its own, or all on one, as long as that is in use.

    A server may close what was idle for `KEEP_ALIVE` seconds, so that a client that was held up asks on a new one.
    """

    def __init__(
        self, place: str, model: str, *, keep_alive: bool, inputs: dict[str, Any] = ROW, patience: float = 120
    ) -> None:
        super().__init__()
        self.place, self.model, self.keep_alive = place, model, keep_alive
        self.body, self.patience = json.dumps(inputs), patience
        self.ended = threading.Event()
        self.answers: list[Any] = []
        self.faults: list[str] = []

    def run(self) -> None:
        connection = HTTPConnection(self.place, timeout=self.patience)
        while not self.ended.is_set():
            began = time.monotonic()
            try:
                connection.request("POST", f"/v2/models/{self.model}/infer", body=self.body)
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    self.answers.append(json.loads(body)["outputs"][0]["data"][0])
                else:
                    self.faults.append(f"{response.status} {body!r}")
            except (OSError, HTTPException) as error:
                self.faults.append(repr(error))
                connection.close()
            if not self.keep_alive or time.monotonic() - began > KEEP_ALIVE / 2:
                connection.close()
        connection.close()


def ask_all_the_time(place: str, during: Callable[[list[Client]], None], *, model: str = "wine") -> list[Client]:
    """Have four clients ask `model` while something is done, and return them when they have ended."""
    clients = [Client(place, model, keep_alive=index % 2 == 0) for index in range(4)]
    for client in clients:
        client.start()
    try:
        during(clients)
    finally:
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join()
    return clients


def seen_by_all(clients: list[Client], text: str) -> None:
    """Wait until the last answer that each of them got is `text`."""
    assert wait_until(lambda: all(client.answers[-1:] == [text] for client in clients), seconds=120)
