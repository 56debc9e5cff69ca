"""What tests and the check of engines say to an API server."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.engines import control_plane
from tests.engines.go_tools import KUBERNETES
from tests.engines.session import Session

BUSY_MACHINE = 300.0
MERGE = "application/merge-patch+json"


class KubernetesError(Exception):
    """The API server refused; the message is its own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class KubeApi:
    """An API server of this test run's own, with controllers and a scheduler. To be closed."""

    url: str
    kubeconfig: Path
    """The admin's, with everything in it."""
    http: requests.Session

    def close(self) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> dict[str, Any]:
        """Ask the API server for a path such as `/api/v1/nodes`. Raises KubernetesError."""
        data = None if body is None else json.dumps(body)
        response = self.http.request(method, self.url + path, data=data, headers={"Content-Type": kind}, timeout=60)
        if not response.ok:
            raise KubernetesError(response.status_code, response.text)
        return dict(response.json())

    def wait(
        self, path: str, done: Callable[[dict[str, Any]], bool], *, seconds: float = BUSY_MACHINE, pause: float = 0.1
    ) -> dict[str, Any]:
        """Ask again until what is there is as wanted; returns it. Raises TimeoutError with what was there last."""
        until = time.monotonic() + seconds
        while not done(found := self.call("GET", path)):
            if time.monotonic() > until:
                raise TimeoutError(f"{path} is not as wanted after {seconds:.0f} s: {json.dumps(found)[:4000]}")
            time.sleep(pause)
        return found

    def service_address(self, name: str, namespace: str) -> str:
        """Return the address of a Service once it answers on this machine, at port 80.

        That it has ready pods is known to the API server first, and to the node's proxy a moment later.
        """
        found = str(self.call("GET", f"/api/v1/namespaces/{namespace}/services/{name}")["spec"]["clusterIP"])
        until = time.monotonic() + BUSY_MACHINE
        while True:
            try:
                socket.create_connection((found, 80), timeout=10).close()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return found

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """What kubectl prints for these words. Raises CalledProcessError."""
        # Without HOME it would keep what it learnt of this server beside what it knows of the user's own.
        environment = {"PATH": os.defpath, "HOME": os.fspath(self.kubeconfig.parent), "NO_PROXY": "*"}
        command = [str(KUBERNETES.program("kubectl")), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(
            command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=BUSY_MACHINE
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def make_namespace(self, name: str) -> None:
        """Make a namespace and wait until pods are let into it."""
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.wait(
            f"/api/v1/namespaces/{name}/serviceaccounts",
            lambda found: [each["metadata"]["name"] for each in found["items"]] == ["default"],
        )


def kube_api_of(session: Session) -> KubeApi:
    """The API server of a session in which it runs, as its admin. To be closed."""
    http = requests.Session()
    http.trust_env = False  # a proxy of the machine's is not for its loopback
    http.verify = os.fspath(control_plane.authority(session))
    certificate, key = control_plane.admin(session)
    http.cert = (os.fspath(certificate), os.fspath(key))
    url = session.address("kube-apiserver").read_text(encoding="utf-8")
    return KubeApi(url, control_plane.kubeconfig(session), http)
