"""The Docker engine: finding it, telling how it is, and what it says when something is wrong."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "dev.mlstack"
"""Prefix of the labels by which mlstack finds its containers again."""
TIMEOUT = 60.0
DEFAULT_HOST = "unix:///var/run/docker.sock"


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself.

    `shares_files`: it mounts this machine's folders. `maps_users`: who calls is another user in its containers
    (rootless mode, user namespaces). `is_machine`: it runs on this machine itself, not in a virtual one (Docker
    Desktop) or in a network of its own (rootless mode), so that the network of the host is this machine's.
    """

    host: str
    version: str
    cpus: int
    memory: int
    shares_files: bool
    has_gpus: bool
    maps_users: bool
    is_machine: bool


def engine_host(settings: dict[str, Any]) -> str | None:
    """Return the address of the engine that a pool names; None is Docker's own default (DOCKER_HOST, context)."""
    found = settings.get("host")
    return str(found) if found else None


def engine_address(settings: dict[str, Any]) -> str:
    """Return the address of the engine that a pool uses, found as `docker` finds it where the pool names none."""
    return engine_host(settings) or os.environ.get("DOCKER_HOST") or _context_host() or DEFAULT_HOST


def connect(host: str | None, *, timeout: float = TIMEOUT) -> "DockerClient":
    """Return a client of the engine at `host`; None is where `docker` itself would look.

    Raises `OSError` or `docker.errors.DockerException` when it does not answer.
    """
    import docker

    if os.environ.get("DOCKER_HOST") and host in (None, os.environ["DOCKER_HOST"]):
        _knock(os.environ["DOCKER_HOST"])
        return docker.DockerClient.from_env(timeout=timeout)  # with the TLS settings that go with it
    place = host or _context_host() or DEFAULT_HOST
    _knock(place)
    return docker.DockerClient(base_url=place, timeout=timeout, use_ssh_client=place.startswith("ssh://"))


def engine_errors() -> tuple[type[Exception], ...]:
    """Return what the SDK raises when an engine refuses, is not there, or goes away in the middle of an answer."""
    from docker.errors import DockerException
    from urllib3.exceptions import HTTPError

    return (DockerException, OSError, HTTPError)


def _knock(host: str) -> None:
    """Raise `OSError` at once, with its plain reason, if nobody listens on a Unix socket."""
    if not host.startswith("unix://"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(host.removeprefix("unix://"))


def _context_host() -> str | None:
    """Return the engine of the context that `docker context use` has chosen."""
    import docker

    folder = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    if not (Path(folder) / "config.json").is_file():
        return None
    context = docker.ContextAPI.get_current_context()
    host = getattr(context, "Host", None) if context is not None else None
    return str(host) if host else None


def ask_engine(host: str | None, *, address: Address | None = None, timeout: float = TIMEOUT) -> EngineFacts:
    """Return what the engine says of itself. Raises `MlstackError` with what to do when there is none."""
    from docker.errors import DockerException

    try:
        client = connect(host, timeout=timeout)
        try:
            info, where = client.info(), str(client.api.base_url)
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise MlstackError(engine_unreachable(host, error, address=address)) from error
    runtimes = {str(name) for name in info.get("Runtimes") or {}}
    options = " ".join(info.get("SecurityOptions") or ())
    is_rootless = "name=rootless" in options
    return EngineFacts(
        host=host or where,
        version=str(info.get("ServerVersion", "")),
        cpus=int(info.get("NCPU", 0)),
        memory=int(info.get("MemTotal", 0)),
        shares_files=_is_local(where),
        has_gpus=bool(runtimes & {"nvidia"}) or bool(info.get("CDISpecDirs")),
        maps_users=is_rootless or "name=userns" in options,
        is_machine=not is_rootless and "Docker Desktop" not in str(info.get("OperatingSystem", "")),
    )


def _is_local(base_url: str) -> bool:
    return base_url.startswith(("http+docker://localhost", "http+docker://localunixsocket", "http+unix://"))


def remove_container(client: "DockerClient", name: str) -> None:
    """Remove a container with all that runs in it; one that is gone succeeds."""
    from docker.errors import APIError, NotFound

    try:
        client.api.remove_container(name, force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        if error.status_code != 409:  # somebody else is removing it at this moment
            raise
        client.api.wait(name, condition="removed")


def engine_error(error: BaseException) -> str:
    """Say in a sentence what the engine said."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        return f"the Docker engine says: {explanation}"
    return f"the Docker engine does not answer: {_shortest(error).rstrip('.')}"


def engine_unreachable(host: str | None, error: BaseException, *, address: Address | None = None) -> Diagnostic:
    """Say that there is no engine, where it was looked for, and what to do."""
    where = host or os.environ.get("DOCKER_HOST") or _context_host() or DEFAULT_HOST
    reason = _shortest(error)
    hint = "Have yourself added to the group of that socket (mostly `docker`), and log in again."
    if "Permission denied" not in reason:
        hint = (
            "Start Docker, or name the engine in DOCKER_HOST or `targets: {docker: {host: …}}`. A pool with "
            "`target: local` needs none; stages keep their results when their pool changes."
        )
    return Diagnostic(
        code="docker-unreachable",
        summary="The Docker engine cannot be reached",
        detail=f"{where}: {reason}",
        hint=hint,
        command="docker info",
        address=address,
    )


def engine_elsewhere(pool: Pool, host: str) -> Diagnostic:
    """Say that an engine cannot mount what lies here."""
    return Diagnostic(
        code="docker-elsewhere",
        summary="The Docker engine does not see this machine's files",
        detail=f"{pool.address} uses the engine at {host}, which runs on another machine. Containers work on folders "
        "of this one, which such an engine cannot mount.",
        hint="Name an engine on this machine in `targets: {docker: {host: …}}`.",
        address=pool.address,
    )


def user_mapped(pool: Pool, host: str) -> Diagnostic:
    """Say that who calls is somebody else in the containers of an engine, and could not write his own files."""
    return Diagnostic(
        code="docker-maps-users",
        summary="In containers of this Docker engine you are somebody else",
        detail=f"The engine at {host} maps users (rootless mode or user namespaces), so a container of {pool.address} "
        "that runs under your number could not write your files.",
        hint='Say as whom it is to run: in rootless mode `targets: {docker: {user: "0:0"}}` is you.',
        address=pool.address,
    )


def _shortest(error: BaseException) -> str:
    """Return the innermost reason: the SDK wraps a refused connection four times."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    text = getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
    return f"{text}."
