"""Showing an API server who asks: certificates, tokens, and the login programs of clouds (`exec`)."""

import base64
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.connection import Connection, program_of

LOGIN_WITHIN = 60.0
"""Seconds that a login program may take."""
_RENEW_BEFORE = 60.0  # seconds before a token expires
_KNOWN = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


class Login:
    """The credentials of one connection, renewed when they expire. May be used by many threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._granted: _Granted | None = None

    def headers(self, *, renew: bool = False) -> dict[str, str]:
        """Return what a request carries. `renew`: what was granted before was refused. Raises `MlstackError`."""
        user = self._connection.user
        if user.get("tokenFile"):
            return _bearer(_read_token(Path(user["tokenFile"]), self._connection))  # it changes every hour
        if user.get("token"):
            return _bearer(str(user["token"]))
        if user.get("username"):
            pair = f"{user['username']}:{user.get('password') or ''}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        if user.get("auth-provider"):
            raise MlstackError(_failed(self._connection, "`auth-provider` is gone since Kubernetes 1.26: use `exec`"))
        granted = self._grant(renew=renew) if user.get("exec") else None
        return _bearer(granted.token) if granted is not None and granted.token else {}

    def tls(self) -> ssl.SSLContext | None:
        """Return how the server is known and, by certificate, the user; None for plain http. Raises `MlstackError`."""
        connection = self._connection
        if not connection.server.startswith("https://"):
            return None
        cluster, user = connection.cluster, connection.user
        try:
            file, data = cluster.get("certificate-authority"), cluster.get("certificate-authority-data")
            text = base64.b64decode(data).decode() if data else None
            context = ssl.create_default_context(cafile=file if text is None else None, cadata=text)
            if cluster.get("insecure-skip-tls-verify"):
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            pair = _certificate(user)
            if pair is None and user.get("exec"):
                granted = self._grant(renew=False)
                pair = (granted.certificate, granted.key) if granted.certificate else None
            if pair is not None:
                _load_pair(context, *pair)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            where = getattr(error, "filename", None)
            raise MlstackError(_failed(connection, f"{where}: {reason}" if where else reason)) from error
        return context

    def _grant(self, *, renew: bool) -> "_Granted":
        with self._lock:
            if self._granted is None or renew or self._granted.is_old:
                self._granted = _run_plugin(self._connection)
            return self._granted


class _Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What a login program grants, as in `status` of an ExecCredential."""

    token: str = ""
    certificate: str = msgspec.field(name="clientCertificateData", default="")
    key: str = msgspec.field(name="clientKeyData", default="")
    until: datetime | None = msgspec.field(name="expirationTimestamp", default=None)

    @property
    def is_old(self) -> bool:
        """Whether it expires soon."""
        return self.until is not None and self.until.timestamp() - datetime.now().astimezone().timestamp() < (
            _RENEW_BEFORE
        )


class _Answer(msgspec.Struct, frozen=True):
    status: _Granted


def _run_plugin(connection: Connection) -> _Granted:
    plugin: Mapping[str, Any] = connection.user["exec"]
    version = str(plugin.get("apiVersion") or "")
    if version not in _KNOWN:
        raise MlstackError(_failed(connection, f"`exec` has the apiVersion {version}, which is none of {_KNOWN}"))
    program = program_of(plugin, connection.user_file or Path("/"))
    if program is None:
        hint = str(plugin.get("installHint") or "").strip()
        missing = f"the login program {plugin.get('command')} is not on the PATH"
        raise MlstackError(_failed(connection, f"{missing}. {hint}" if hint else missing))
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    added = {str(each["name"]): str(each["value"]) for each in plugin.get("env") or ()}
    environment = os.environ | added | {"KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}
    command = [str(program), *(str(each) for each in plugin.get("args") or ())]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=LOGIN_WITHIN
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            last = said[-1] if said else "nothing"
            raise MlstackError(_failed(connection, f"{program} ended with {done.returncode} and said: {last}"))
        return decoding.decode(done.stdout, _Answer).status
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        raise MlstackError(_failed(connection, f"{program}: {error}")) from error


def _read_token(file: Path, connection: Connection) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise MlstackError(_failed(connection, f"{file}: {error.strerror}")) from error


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _certificate(user: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return certificate and key of a user as text."""
    found = []
    for name in ("client-certificate", "client-key"):
        if user.get(f"{name}-data"):
            found.append(base64.b64decode(user[f"{name}-data"]).decode())
        elif user.get(name):
            found.append(Path(user[name]).read_text(encoding="utf-8"))
    return (found[0], found[1]) if len(found) == 2 else None


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate, for which Python's TLS wants a file: nobody else can read it, and it is gone right after."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(f"{certificate.rstrip()}\n{key.rstrip()}\n")
        file.flush()
        context.load_cert_chain(file.name)


def _failed(connection: Connection, detail: str) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-login",
        summary="Logging in to the cluster failed",
        detail=f"{connection.source}, context {connection.context or '-'}: {detail.rstrip('.')}.",
        hint="Log in as for kubectl; when this works, mlstack does too:",
        command="kubectl auth whoami",
    )
