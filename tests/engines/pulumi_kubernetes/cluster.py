"""Speaking to an API server: requests over kept connections, and which path a kind has."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tests.engines.pulumi_kubernetes.kubeconfig import Access
from tests.engines.pulumi_kubernetes.values import Object

APPLY = "application/apply-patch+yaml"
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"


class ApiError(Exception):
    """What the API server answered instead of what was asked for."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(body.get("message") or body.get("reason") or f"the server answered {status}")
        self.status = status
        self.reason = str(body.get("reason", ""))
        self.details: Object = body.get("details") or {}


class UnreachableError(Exception):
    """The API server does not answer."""


class NoMatchError(Exception):
    """The API server does not know this kind."""

    def __init__(self, version: str, kind: str) -> None:
        super().__init__(f'no matches for kind "{kind}" in version "{version}"')


class Cluster:
    """One API server; for use by many threads at once."""

    def __init__(self, access: Access) -> None:
        self.access = access
        parts = urlsplit(access.server)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path
        self._idle: list[http.client.HTTPConnection] = []
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}
        self._lock = threading.Lock()

    def request(self, method: str, path: str, body: Any = None, *, content: str = JSON, **query: str) -> Object:
        """Ask and return the answer.

        Raises:
            ApiError: the server refused.
            UnreachableError: nobody answered.
        """
        url = self._prefix + path + ("?" + urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "Content-Type": content, **self.access.headers}
        for waited in range(10):
            status, answer, pause = self._ask(method, url, data, headers)
            if status != http.client.TOO_MANY_REQUESTS or waited == 9:
                break
            time.sleep(pause)
        if status >= http.client.BAD_REQUEST:
            raise ApiError(status, answer)
        return answer

    def _ask(self, method: str, url: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, Object, float]:
        while True:
            kept = self._idle.pop() if self._idle else None
            connection = kept or self._connect()
            try:
                connection.request(method, url, data, headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept:  # the server closed it while it lay idle
                    continue
                raise UnreachableError(self._unreachable(method, url, error)) from None
            self._idle.append(connection)
            pause = response.getheader("Retry-After") or "1"
            return response.status, _parsed(text), float(pause) if pause.isdigit() else 1.0

    def _connect(self) -> http.client.HTTPConnection:
        if self.access.tls:
            return http.client.HTTPSConnection(self._host, self._port, context=self.access.tls, timeout=60)
        return http.client.HTTPConnection(self._host, self._port, timeout=60)

    def _unreachable(self, method: str, url: str, error: Exception) -> str:
        method = method.capitalize()
        address = f"{self._host}:{self._port}"
        if isinstance(error, ConnectionRefusedError):
            return f'{method} "{self.access.server}{url}": dial tcp {address}: connect: connection refused'
        return f'{method} "{self.access.server}{url}": {error}'

    # ----------------------------------------------------------------------------------------------------- kinds

    def kind(self, version: str, kind: str) -> tuple[str, bool]:
        """The plural name of a kind and whether it lives in namespaces.

        Raises:
            NoMatchError: the server does not serve it.
        """
        version = "v1" if version == "core/v1" else version
        for known in (True, False):  # a definition may have been added since it was asked for
            if found := self._served(version, cached=known).get(kind):
                return found
        raise NoMatchError(version, kind)

    def _served(self, version: str, *, cached: bool) -> dict[str, tuple[str, bool]]:
        with self._lock:
            if cached and version in self._kinds:
                return self._kinds[version]
            try:
                listed = self.request("GET", f"/{_group(version)}")["resources"]
            except ApiError as error:
                if error.status != http.client.NOT_FOUND:
                    raise
                listed = []
            kinds = {each["kind"]: (each["name"], each["namespaced"]) for each in listed if "/" not in each["name"]}
            self._kinds[version] = kinds
            return kinds

    def path(self, version: str, kind: str, namespace: str, name: str = "") -> str:
        """Where objects of a kind lie, or the one of this name."""
        plural, namespaced = self.kind(version, kind)
        folder = f"/namespaces/{quote(namespace or 'default')}" if namespaced else ""
        version = "v1" if version == "core/v1" else version
        return f"/{_group(version)}{folder}/{plural}" + (f"/{quote(name)}" if name else "")

    def path_of(self, obj: Object, name: str = "") -> str:
        """Where objects of this one's kind and namespace lie."""
        meta = obj.get("metadata") or {}
        return self.path(obj["apiVersion"], obj["kind"], meta.get("namespace", ""), name)

    def forget_kinds(self) -> None:
        """Ask anew which kinds there are: a definition was added."""
        with self._lock:
            self._kinds.clear()


def _group(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _parsed(text: bytes) -> Object:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {"message": text.decode(errors="replace").strip()}
    return parsed if isinstance(parsed, dict) else {"message": str(parsed)}
