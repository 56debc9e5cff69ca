"""Kubeconfig: the address and the credentials of a cluster, from a file or from its text."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class KubeconfigError(Exception):
    """A kubeconfig that cannot be read, or names nothing to speak to."""


@dataclass
class Access:
    """How one cluster is spoken to."""

    server: str
    namespace: str = "default"
    headers: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None


def load(given: str) -> dict[str, Any]:
    """A kubeconfig by its path or its text, YAML or JSON; an empty one for no text."""
    if not given:
        return {}
    path = Path(given).expanduser() if len(given) < 4096 and "\n" not in given else None
    text = path.read_text() if path and path.is_file() else given
    try:
        parsed = json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
    except ValueError as error:
        raise KubeconfigError(f"couldn't get version/kind; json parse error: {error}") from None
    if not isinstance(parsed, dict):
        raise KubeconfigError("couldn't get version/kind; json parse error: the text is no map")
    if path and path.is_file():
        parsed["__folder"] = str(path.parent)
    return parsed


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def ambient() -> dict[str, Any]:
    """The kubeconfig that kubectl would use: the first file of $KUBECONFIG, else ~/.kube/config."""
    for name in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        if name and Path(name).is_file():
            return load(name)
    default = Path("~/.kube/config").expanduser()
    return load(str(default)) if default.is_file() else {}


def named(entries: Any, name: str, kind: str) -> dict[str, Any] | None:
    """The entry of this name in a kubeconfig's list of clusters, contexts or users."""
    for entry in entries or []:
        if entry.get("name") == name:
            found = entry.get(kind)
            return found if isinstance(found, dict) else {}
    return None


def active_cluster(config: dict[str, Any], context: str | None, cluster: str | None) -> dict[str, Any] | None:
    """The cluster that a kubeconfig points at, with what the provider's settings say on top."""
    chosen = named(config.get("contexts"), context or config.get("current-context", ""), "context")
    return named(config.get("clusters"), cluster or (chosen or {}).get("cluster", ""), "cluster") if chosen else None


def access(config: dict[str, Any], *, context: str = "", cluster: str = "") -> Access:
    """Who to speak to and as whom.

    Raises:
        KubeconfigError: the context or cluster does not exist, or its credentials cannot be read.
    """
    name = context or config.get("current-context", "")
    chosen = named(config.get("contexts"), name, "context")
    if chosen is None:
        raise KubeconfigError(
            f'context "{name}" does not exist' if name else "invalid configuration: no configuration has been provided"
        )
    target = named(config.get("clusters"), cluster or chosen.get("cluster", ""), "cluster")
    if not target or not target.get("server"):
        raise KubeconfigError(f'cluster "{cluster or chosen.get("cluster", "")}" does not exist')
    user = named(config.get("users"), chosen.get("user", ""), "user") or {}
    folder = config.get("__folder", "")
    found = Access(str(target["server"]).rstrip("/"), chosen.get("namespace") or "default")
    if "exec" in user:
        user = {**user, **_run_exec(user["exec"])}
    if token := user.get("token") or (user.get("tokenFile") and Path(folder, user["tokenFile"]).read_text().strip()):
        found.headers["Authorization"] = f"Bearer {token}"
    if urlsplit(found.server).scheme == "https":
        found.tls = _tls(target, user, folder)
    return found


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=_content(cluster, "certificate-authority", folder))
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate", folder), _content(user, "client-key", folder)
    if certificate and key:
        with tempfile.NamedTemporaryFile("w") as pem:  # ssl takes certificates of clients from files only
            pem.write(certificate + "\n" + key)
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


def _content(entry: dict[str, Any], key: str, folder: str) -> str | None:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return Path(folder, entry[key]).read_text() if entry.get(key) else None


def _run_exec(spec: dict[str, Any]) -> dict[str, Any]:
    """Credentials from the program that the kubeconfig names (client.authentication.k8s.io)."""
    variables = {each["name"]: each["value"] for each in spec.get("env") or []}
    done = subprocess.run(
        [spec["command"], *(spec.get("args") or [])],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise KubeconfigError(f"getting credentials: exec: executable {spec['command']} failed: {done.stderr.strip()}")
    status = json.loads(done.stdout).get("status", {})
    return {
        "token": status.get("token"),
        "client-certificate-data": _encoded(status.get("clientCertificateData")),
        "client-key-data": _encoded(status.get("clientKeyData")),
    }


def _encoded(pem: str | None) -> str | None:
    return base64.b64encode(pem.encode()).decode() if pem else None
