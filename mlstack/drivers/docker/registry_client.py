"""Asking a registry: which content a tag names, whether one may push. By the API of the OCI distribution specification.

No engine is needed. Logins come from Docker's configuration, through the SDK's own code: `docker login`, credential
helpers and stores. They are sent to the registry that they are for, and shown nowhere.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from requests import Response, Session

TIMEOUT = (5.0, 20.0)
"""Seconds to connect, and to wait for an answer."""

_KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MANIFESTS = ", ".join(_KINDS)
_HUB, _HUB_HOST = "docker.io", "registry-1.docker.io"
_OWN_MACHINE = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_LARGEST = 16 << 20
_AGAIN = frozenset({500, 502, 503, 504})


class RegistryError(Exception):
    """A registry that does not do what it was asked; `status` is its answer's, None when there was none."""

    def __init__(self, registry: str, reason: str, *, status: int | None = None, has_login: bool = False) -> None:
        super().__init__(reason)
        self.registry, self.reason, self.status, self.has_login = registry, reason, status, has_login


class Reference(msgspec.Struct, frozen=True):
    """An image's name, taken apart: `registry` is "docker.io" where none is written, `version` a tag or a digest."""

    registry: str
    repository: str
    version: str

    @property
    def is_digest(self) -> bool:
        """Whether it names a content."""
        return ":" in self.version


def parse_image(text: str) -> Reference:
    """Take a reference apart as Docker does. Raises `ValueError`."""
    from docker.auth import resolve_repository_name
    from docker.errors import InvalidRepository
    from docker.utils import parse_repository_tag

    try:
        name, version = parse_repository_tag(text)
        if ":" in (version or ""):  # name:tag@digest: the digest decides
            name = parse_repository_tag(name)[0]
        registry, repository = resolve_repository_name(name)
    except InvalidRepository as error:
        raise ValueError(str(error)) from error
    if not repository or not registry or repository != repository.lower():
        message = f"{text} is not the name of an image"
        raise ValueError(message)
    if registry == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, version or "latest")


class RegistryClient:
    """One registry, asked with the login that Docker's configuration has for it. To be closed."""

    def __init__(self, registry: str, *, attempts: int = 3) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        self.registry = registry
        self._session: Session = requests.Session()
        self._session.verify = _certificates()
        retry = Retry(
            attempts - 1,
            read=False,  # who waited in vain once has waited long enough
            status_forcelist=_AGAIN,
            backoff_factor=0.5,
            allowed_methods=None,
            raise_on_status=False,
            redirect=5,
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        self._login = _login_for(registry)
        self._tokens: dict[str, str] = {}
        self._base: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def digest_of(self, reference: Reference) -> str | None:
        """Return the digest of what a tag or digest names, None if there is no such thing. Raises `RegistryError`."""
        path = f"/v2/{reference.repository}/manifests/{reference.version}"
        answer = self._ask("HEAD", path, scope=f"repository:{reference.repository}:pull")
        if answer.status_code == 404:
            return None
        self._must_be(answer, 200)
        found = str(answer.headers.get("Docker-Content-Digest", ""))
        return found if _DIGEST.match(found) else self._hashed(reference, path)

    def image_id(self, reference: Reference) -> str | None:
        """Return the ID that an engine gives to this image, None for one of several platforms or unknown."""
        path = f"/v2/{reference.repository}/manifests/{reference.version}"
        answer = self._ask("GET", path, scope=f"repository:{reference.repository}:pull")
        if answer.status_code != 200:
            return None
        try:
            found = answer.json().get("config", {}).get("digest")
        except (ValueError, AttributeError):
            return None
        return str(found) if found else None

    def check_push(self, repository: str) -> None:
        """Begin an upload and take it back: nothing is left. Raises `RegistryError` when one may not push."""
        scope = f"repository:{repository}:pull,push"
        answer = self._ask("POST", f"/v2/{repository}/blobs/uploads/", scope=scope)
        self._must_be(answer, 202)
        place = str(answer.headers.get("Location", ""))
        if place.startswith("/"):
            place = f"{self._base}{place}"
        if place.startswith(f"{self._base}/"):
            self._ask("DELETE", place.removeprefix(str(self._base)), scope=scope)

    # --------------------------------------------------------------------------------------------- asking

    def _ask(self, method: str, path: str, *, scope: str) -> "Response":
        token = self._tokens.get(scope)
        answer = self._send(method, path, {"Authorization": f"Bearer {token}"} if token else {})
        if answer.status_code != 401:
            return answer
        challenge = str(answer.headers.get("WWW-Authenticate", ""))
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            self._tokens[scope] = self._token(dict(_CHALLENGE.findall(rest)), scope)
            return self._send(method, path, {"Authorization": f"Bearer {self._tokens[scope]}"})
        if kind.lower() == "basic" and self._login is not None and "password" in self._login:
            return self._send(method, path, {}, auth=(self._login["username"], self._login["password"]))
        return answer

    def _send(self, method: str, path: str, headers: Mapping[str, str], *, auth: Any = None) -> "Response":
        import requests

        first: Exception | None = None
        for base in [self._base] if self._base else self._bases():
            try:
                answer = self._session.request(
                    method,
                    f"{base}{path}",
                    headers={"Accept": _MANIFESTS, **headers},
                    auth=auth or _no_netrc,
                    timeout=TIMEOUT,
                )
            except requests.RequestException as error:
                first = first or error
                if isinstance(error, requests.ReadTimeout):
                    break
                continue
            self._base = base
            return answer
        reason = f"no answer within {TIMEOUT[1]:.0f} s" if isinstance(first, requests.Timeout) else _shortest(first)
        raise RegistryError(self.registry, reason, has_login=self._login is not None) from first

    def _bases(self) -> list[str]:
        """Return where it may listen: registries of this machine need no encryption, as for Docker."""
        if _OWN_MACHINE.match(self.registry):
            return [f"http://{self.registry}", f"https://{self.registry}"]
        return [f"https://{_HUB_HOST if self.registry == _HUB else self.registry}"]

    def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        import requests

        realm = challenge.get("realm", "")
        if not realm.startswith("https://") and not _OWN_MACHINE.match(self.registry):
            raise RegistryError(self.registry, f"it wants logins sent to {realm}, without encryption", status=401)
        wanted = {"service": challenge.get("service", ""), "scope": scope}
        login = self._login or {}
        try:
            if "token" in login:
                form = {
                    **wanted,
                    "grant_type": "refresh_token",
                    "refresh_token": login["token"],
                    "client_id": "mlstack",
                }
                answer = self._session.post(realm, data=form, auth=_no_netrc, timeout=TIMEOUT)
            else:
                auth = (login["username"], login["password"]) if login else _no_netrc
                answer = self._session.get(realm, params=wanted, auth=auth, timeout=TIMEOUT)
            self._must_be(answer, 200)
            found = answer.json()
            token = found.get("token") or found.get("access_token")
        except (requests.RequestException, ValueError, AttributeError) as error:
            raise RegistryError(self.registry, f"its token service does not answer: {_shortest(error)}") from error
        if not token:
            raise RegistryError(self.registry, "its token service gave no token", status=401)
        return str(token)

    def _must_be(self, answer: "Response", status: int) -> None:
        if answer.status_code == status:
            return
        reason = f"it answers {answer.status_code} {answer.reason or ''}".rstrip()
        said = _said(answer)
        raise RegistryError(
            self.registry,
            f"{reason}: {said}" if said else reason,
            status=answer.status_code,
            has_login=self._login is not None,
        )

    def _hashed(self, reference: Reference, path: str) -> str:
        from hashlib import sha256

        answer = self._ask("GET", path, scope=f"repository:{reference.repository}:pull")
        self._must_be(answer, 200)
        if len(answer.content) > _LARGEST:
            raise RegistryError(self.registry, "what it says of the image is too large")
        return f"sha256:{sha256(answer.content).hexdigest()}"


def _no_netrc(request: Any) -> Any:
    """Keep `requests` from sending what `.netrc` has for the host: Docker would not."""
    return request


def _login_for(registry: str) -> dict[str, str] | None:
    """Return the login that Docker's configuration has. Raises `RegistryError` when a credential helper fails."""
    from docker.auth import load_config
    from docker.errors import DockerException

    try:
        found = load_config().resolve_authconfig(registry)
    except (DockerException, OSError, ValueError) as error:
        raise RegistryError(
            registry, f"its login cannot be had from Docker's configuration: {_plain(error)}"
        ) from error
    if not found:
        return None
    low = {str(key).lower(): str(value) for key, value in found.items() if value}
    if "identitytoken" in low:
        return {"token": low["identitytoken"]}
    if "username" in low and "password" in low:
        return {"username": low["username"], "password": low["password"]}
    return None


def _certificates() -> Any:
    """Return the CA bundle to trust: as for packages, what the person has set."""
    import os

    return next((os.environ[name] for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if os.environ.get(name)), True)


def _said(answer: "Response") -> str:
    """Return the registry's own words, as the specification has them."""
    try:
        return "; ".join(str(each.get("message", "")) for each in answer.json().get("errors", []))[:300]
    except (ValueError, AttributeError, TypeError):
        return ""


def _plain(error: BaseException) -> str:
    return type(error).__name__ if "StoreError" not in str(error) else "the credential helper fails"


def _shortest(error: BaseException | None) -> str:
    seen = error
    while seen is not None and (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
