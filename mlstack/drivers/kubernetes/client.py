"""The API server, asked plainly: objects are the JSON that they are, problems are diagnostics.

urllib3 carries it, which is there with Docker's SDK. One object of `Kube` may be used by many threads.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.connection import Connection
from mlstack.drivers.kubernetes.kinds import TYPES, is_built_in, path_of
from mlstack.drivers.kubernetes.login import Login
from mlstack.drivers.kubernetes.names import FIELD_MANAGER
from mlstack.drivers.kubernetes.refusals import refused, unreachable
from mlstack.spec.address import Address

Manifest = dict[str, Any]
ANSWERS_WITHIN = 30.0
CONNECTS_WITHIN = 10.0


class Answer(NamedTuple):
    """What was answered by what is behind the API server, or by that itself. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    data: bytes


class Kube:
    """One API server, asked as one user.

    Every method raises `MlstackError` when the server is not reached or refuses; what is not there is None or False.
    """

    def __init__(self, connection: Connection, *, address: Address | None = None) -> None:
        self.connection = connection
        self._address = address
        self._login = Login(connection)
        self._pool: Any = None

    def version(self) -> tuple[int, int]:
        """Return the server's version."""
        found = self._json("GET", "/version")
        return int(found.get("major", "0") or 0), int("".join(filter(str.isdigit, found.get("minor", ""))) or 0)

    def has_type(self, kind: str) -> bool:
        """Whether the server knows a type: whether its custom resource definition is installed."""
        wanted = TYPES[kind]
        found = self._json("GET", wanted.prefix, missing={})
        return any(each.get("kind") == kind for each in found.get("resources", ()))

    def has_api(self, group: str) -> bool:
        """Whether the server serves a group of the API: what it hands such questions on to has to answer, too."""
        found = self._json("GET", f"/apis/{group}", missing=None)
        if found is None:
            return False
        with self._explained():
            version = found["preferredVersion"]["groupVersion"]
            return bool(self._send("GET", f"/apis/{version}").status not in (404, 503))

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Return an object; None if there is none."""
        found: Manifest | None = self._json("GET", path_of(kind, namespace, name), missing=None)
        return found

    def listing(self, kind: str, namespace: str = "", *, labels: Mapping[str, str] | str = "") -> list[Manifest]:
        """Return the objects with these labels (a selector), of all namespaces if none is named."""
        selector = labels if isinstance(labels, str) else ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[Manifest] = []
        query = {"limit": "500"} | ({"labelSelector": selector} if selector else {})
        while True:
            page = self._json("GET", path_of(kind, namespace), query=query, missing={})
            found += [{"apiVersion": TYPES[kind].api, "kind": kind, **each} for each in page.get("items") or ()]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    def events_of(self, name: str, namespace: str) -> list[Manifest]:
        """Return the events of an object, the oldest first."""
        query = {"fieldSelector": f"involvedObject.name={name}"}
        found = self._json("GET", path_of("Event", namespace), query=query, missing={}).get("items") or []
        return sorted(found, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))

    def apply(self, manifest: Manifest, *, dry_run: bool = False, force: bool = True) -> Manifest:
        """Make an object be as it says (server-side apply); `force` takes fields over from who set them before."""
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()} | ({"dryRun": "All"} if dry_run else {})
        path = path_of(manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])
        found: Manifest = self._json("PATCH", path, body=manifest, query=query, form="application/apply-patch+yaml")
        return found

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest | None:
        """Create an object; None if one of that name is there."""
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        path = path_of(manifest["kind"], manifest["metadata"].get("namespace", ""))
        found: Manifest | None = self._json("POST", path, body=manifest, query=query, there=None)
        return found

    def patch(self, kind: str, name: str, namespace: str, change: Manifest) -> Manifest | None:
        """Merge a change into an object (RFC 7396); None if there is none."""
        path, form = path_of(kind, namespace, name), "application/merge-patch+json"
        query = {"fieldManager": FIELD_MANAGER}
        found: Manifest | None = self._json("PATCH", path, body=change, query=query, form=form, missing=None)
        return found

    def delete(self, kind: str, name: str, namespace: str = "", *, grace: int | None = None) -> bool:
        """Ask for an object's end, with all that belongs to it; False if there is none. Its end is not awaited."""
        body: Manifest = {"propagationPolicy": "Background"} | ({} if grace is None else {"gracePeriodSeconds": grace})
        return self._json("DELETE", path_of(kind, namespace, name), body=body, missing=None) is not None

    def watch(
        self, kind: str, namespace: str = "", *, labels: Mapping[str, str] | None = None, seconds: int = 60
    ) -> Iterator[tuple[str, Manifest]]:
        """Yield (`ADDED` | `MODIFIED` | `DELETED`, object) as it happens, beginning with what is there."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        query = {"watch": "true", "timeoutSeconds": str(seconds), "labelSelector": selector}
        for line in self._lines(path_of(kind, namespace), query, silence=seconds + ANSWERS_WITHIN):
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise MlstackError(self._refused(event["object"].get("code", 500), event["object"], kind))
            yield event["type"], event["object"]

    def log(
        self,
        pod: str,
        namespace: str,
        *,
        container: str = "",
        follow: bool = False,
        tail: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
        since: str = "",
    ) -> Iterator[bytes]:
        """Yield the lines of a container's log. Ends quietly when there is no such pod (any more).

        `timestamps`: each begins with when it was written; `since`: those from that second on.
        """
        query = {"follow": str(follow).lower(), "previous": str(previous).lower()}
        query |= ({"timestamps": "true"} if timestamps else {}) | ({"sinceTime": since} if since else {})
        query |= ({"container": container} if container else {}) | ({"tailLines": str(tail)} if tail else {})
        yield from self._lines(
            f"{path_of('Pod', namespace, pod)}/log", query, silence=None if follow else ANSWERS_WITHIN
        )

    def may(self, verb: str, kind: str, namespace: str = "", *, subresource: str = "") -> bool:
        """Whether this user may do that (SelfSubjectAccessReview)."""
        wanted = TYPES[kind]
        group = wanted.api.rpartition("/")[0]
        what = {"verb": verb, "group": group, "resource": wanted.plural, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what | ({"namespace": namespace} if namespace else {})},
        }
        found = self._json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        return bool((found.get("status") or {}).get("allowed"))

    def through_service(
        self,
        service: str,
        namespace: str,
        port: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        within: float = 10.0,
    ) -> Answer:
        """Ask what is behind a Service by way of the API server, and return whatever answer there is."""
        place = f"{path_of('Service', namespace, f'{service}:{port}')}/proxy{path}"
        with self._explained():
            found = self._send(
                "GET" if body is None else "POST", place, raw=body, headers=headers or {}, silence=within
            )
        return Answer(found.status, {name.lower(): value for name, value in found.headers.items()}, found.data)

    # ------------------------------------------------------------------------------------------------ requests

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        form: str = "application/json",
        **instead: Any,
    ) -> Any:
        """Return the answer; `missing` is returned instead of a 404, `there` instead of a conflict with what exists.

        A 404 in other words than an API server's (a balancer that has lost it) does not say that something is gone.
        """
        with self._explained():
            answer = self._send(method, path, body=body, query=query, headers={"Content-Type": form} if body else {})
            data = answer.data
        found = _decoded(data)
        if answer.status == 404 and "missing" in instead and (found.get("kind") == "Status" or not is_built_in(path)):
            return instead["missing"]
        if answer.status == 409 and found.get("reason") == "AlreadyExists" and "there" in instead:
            return instead["there"]
        if answer.status >= 400:
            raise MlstackError(self._refused(answer.status, found, f"{method} {path}"))
        return found

    def _lines(self, path: str, query: Mapping[str, str], *, silence: float | None) -> Iterator[bytes]:
        """Yield the lines of an answer as they come; `silence` is for how many seconds there may be none."""
        with self._explained():
            answer = self._send("GET", path, query=query, stream=True, silence=silence)
            try:
                if answer.status == 404:
                    return
                if answer.status >= 400:
                    raise MlstackError(self._refused(answer.status, _decoded(answer.read()), f"GET {path}"))
                rest = b""
                while chunk := answer.read1(1 << 16):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from lines
                if rest:
                    yield rest
            finally:
                answer.close()
                answer.release_conn()

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        raw: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        stream: bool = False,
        silence: float | None = ANSWERS_WITHIN,
    ) -> Any:
        from urllib3 import Timeout

        url = self.connection.server + path + (f"?{urlencode(query)}" if query else "")
        options: dict[str, Any] = {
            "body": raw if body is None else json.dumps(body).encode(),
            "preload_content": not stream,
            "redirect": False,
            "timeout": Timeout(connect=CONNECTS_WITHIN, read=silence),
        }
        known = {"Accept": "application/json", "User-Agent": "mlstack"}
        if options["body"] is not None:
            known["Content-Type"] = "application/json"
        known |= headers
        for renew in (False, True):
            answer = self._urllib3().request(method, url, headers=known | self._login.headers(renew=renew), **options)
            if answer.status != 401 or renew or not self.connection.user.get("exec"):
                return answer
        raise AssertionError

    def _urllib3(self) -> Any:
        if self._pool is None:
            from urllib.parse import urlsplit
            from urllib.request import getproxies, proxy_bypass

            import urllib3

            settings: dict[str, Any] = {"ssl_context": self._login.tls(), "maxsize": 16, "retries": False}
            name = self.connection.cluster.get("tls-server-name")
            if name:
                settings |= {"server_hostname": name, "assert_hostname": name}
            place = urlsplit(self.connection.server)
            proxy = self.connection.cluster.get("proxy-url")
            if not proxy and not proxy_bypass(place.netloc):
                proxy = getproxies().get(place.scheme)
            self._pool = urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)
        return self._pool

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what urllib3 raises into diagnostics."""
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (HTTPError, OSError) as error:
            raise MlstackError(unreachable(self.connection, error, address=self._address)) from error

    def _refused(self, status: int, answer: Mapping[str, Any], what: str) -> Diagnostic:
        return refused(self.connection, status, answer, what=what, address=self._address)


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": data.decode(errors="replace").strip()[:300]}
