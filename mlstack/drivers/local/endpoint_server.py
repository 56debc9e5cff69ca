"""One server of an endpoint: its folder, its start, and how it takes the place of the one before.

An endpoint's folder holds one folder for each server that was started: `server.json` (what it was told), the model's
bytes, `server.log`, and `ready.json` or `failed.json` (what it says).
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Event as StopFlag
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.local.endpoint_process import TICK, Health, ask_ready, connectable, port_owner
from mlstack.spec.address import Address, slug

SETTINGS_FORMAT = 1
FOLDERS = ("endpoints", "containers")
"""Where servers are below mlstack's own folder: as processes, as containers."""
LOG = "server.log"
TAIL = 12
"""Lines of the log that a failure shows."""
PORTS = range(20000, 30000)
"""Where ports that nobody named are chosen: below what systems give to outgoing connections."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs: a process (`pid`, `birth`) or a container of an engine.

    Its folder and its `instance` are its own. `digest` is that of what it was told; "" for one of another version of
    mlstack.
    """

    folder: Path
    host: str
    port: int
    instance: str = ""
    digest: str = ""
    pid: int = 0
    birth: str = ""
    container: str = ""
    engine: str = ""

    @property
    def url(self) -> str:
        """Where it answers, from this machine."""
        host = connectable(self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def is_who_answered(self, health: Health) -> bool:
        """Whether it is this server that has answered, and no other on the same port."""
        return health.instance == self.instance if self.instance else health.pid == self.pid


class Launch(msgspec.Struct, kw_only=True):
    """What is needed to start a server, beside its settings. `before` is the one whose place it takes."""

    address: str
    folder: Path
    env: Mapping[str, str]
    timeout: float
    say: Say
    stop: StopFlag
    before: Running | None = None
    secrets: tuple[str, ...] = ()


class Told(msgspec.Struct):
    """What of a server's settings its driver reads again. `reached_at` is for one that listens elsewhere (a bridge)."""

    host: str = ""
    reached_at: str = ""
    instance: str = ""
    digest: str = ""


class Ready(msgspec.Struct):
    """What a server says when it is ready: where it listens."""

    port: int


class _Failed(msgspec.Struct):
    code: str
    sentence: str


class ServerFailedError(MlstackError):
    """A server did not start; `code` is what it said was wrong."""

    def __init__(self, diagnostic: Diagnostic, *, code: str) -> None:
        super().__init__(diagnostic)
        self.code = code


def endpoint_folder(own: Path, kind: str, environment: str, address: Address) -> Path:
    """Return the folder of an endpoint's servers; `own` is mlstack's folder, `kind` one of `FOLDERS`."""
    return own / kind / quote(environment, safe="").replace(".", "%2E") / slug(address)


def next_folder(endpoint_folder: Path) -> Path:
    """Make and return the folder of the next server."""
    endpoint_folder.mkdir(parents=True, exist_ok=True)
    endpoint_folder.chmod(0o700)
    taken = [int(path.name) for path in endpoint_folder.iterdir() if path.name.isdigit()]
    folder = endpoint_folder / f"{max(taken, default=0) + 1:04d}"
    folder.mkdir(mode=0o700)
    return folder


def candidate_ports(*, seed: str, kept: int | None) -> list[int]:
    """Return the ports to try for an endpoint without a declared one: the kept one, then always the same others."""
    start = int.from_bytes(sha256(seed.encode()).digest()[:4], "big")
    found = [PORTS[(start + step) % len(PORTS)] for step in range(50)]
    return list(dict.fromkeys([kept, *found])) if kept is not None else found


def write_settings(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write what a server is told into its folder."""
    file = folder / "server.json"
    file.write_bytes(msgspec.json.encode({"format": SETTINGS_FORMAT, **settings}))
    return file


def wait_until_ready(
    launch: Launch,
    settings: Mapping[str, Any],
    *,
    found: Callable[[Ready], Running],
    why_ended: Callable[[], str],
    tick: float = TICK,
) -> Running:
    """Wait until a server that was started answers that it is ready.

    `found` makes of what it says the server that is waited for, `why_ended` says why it is gone, "" while it lives.
    Raises `ServerFailedError` (its log is kept as `failed.log`); the caller ends what is left of it.
    """
    began = time.monotonic()
    said = 0
    while True:
        ended = why_ended()
        ready = _read(launch.folder / "ready.json", Ready)
        running = found(ready) if ready is not None else None
        if running is not None and is_ready(running):
            return running
        if ended:
            raise _failure(launch, settings, ended)
        seconds = time.monotonic() - began
        if seconds > launch.timeout:
            raise _failure(launch, settings, f"it was not ready within {launch.timeout:.0f} s")
        if launch.stop.is_set():
            raise MlstackError(_interrupted(launch.address), exit_code=ExitCode.INTERRUPTED)
        if int(seconds) > said:
            said = int(seconds)
            launch.say(f"waiting for the model to load ({said} s)")
        time.sleep(tick)


def server_in(folder: Path) -> Running:
    """Return the server whose folder this is, as far as its files tell: without a port if it was never ready."""
    ready = _read(folder / "ready.json", Ready)
    told = _read(folder / "server.json", Told) or Told()
    return Running(
        folder=folder,
        host=told.reached_at or told.host,
        port=ready.port if ready is not None else 0,
        instance=told.instance,
        digest=told.digest,
    )


T = TypeVar("T", Ready, Told, "_Failed")


def _read(file: Path, kind: type[T]) -> T | None:
    try:
        return decoding.decode(file.read_bytes(), kind)
    except (OSError, msgspec.DecodeError):
        return None


def is_ready(running: Running, *, patience: float = 1.0) -> bool:
    """Whether this very server says that it is ready, within `patience` seconds (it may be busy decoding)."""
    if not running.port:
        return False
    health = ask_ready(connectable(running.host), running.port, timeout=patience)
    return health is not None and health.status == 200 and running.is_who_answered(health)


def log_tail(folder: Path, *, lines: int = TAIL) -> tuple[str, ...]:
    """Return the last lines of a server's log, also from before it was last rotated."""
    text = ""
    for name in (LOG, f"{LOG}.1"):
        try:
            with (folder / name).open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - 65536))
                text = stream.read().decode("utf-8", "replace") + text
        except OSError:
            continue
        if text.count("\n") > lines:
            break
    return tuple(text.splitlines()[-lines:])


def _failure(launch: Launch, settings: Mapping[str, Any], otherwise: str) -> ServerFailedError:
    failed = _read(launch.folder / "failed.json", _Failed)
    if failed is None:
        failed = _Failed(code="ended", sentence=f"The model server did not start: {otherwise}.")
    if failed.code == "port-in-use":
        diagnostic = port_in_use(launch.address, settings["host"], settings["port"])
        return ServerFailedError(diagnostic, code=failed.code)
    kept = launch.folder.parent / "failed.log"
    tail = log_tail(launch.folder)
    try:
        (launch.folder / LOG).replace(kept)
    except OSError:
        kept = launch.folder
    from mlstack.drivers.secrets import Masker

    detail = "\n".join([failed.sentence, f"The end of its log ({kept}):", *(f"  {line}" for line in tail)])
    diagnostic = Diagnostic(
        code=f"endpoint-{failed.code}",
        summary="The model server did not start",
        detail=Masker(launch.secrets).text(detail),
        hint=_hint(failed),
        address=launch.address,
    )
    return ServerFailedError(diagnostic, code=failed.code)


def _hint(failed: _Failed) -> str:
    missing = re.search(r"No module named '([^']+)'", failed.sentence)
    if missing:
        return (
            f"The endpoint's Python environment has no {missing[1]}. If it is a package, add it to the endpoint's "
            "`python` groups; if it is a module of the repository, serve the model with `framework: python` and a "
            "class that imports it."
        )
    if "'__main__'" in failed.sentence or "__main__" in failed.sentence:
        return "The model was pickled from a script; move its classes and functions into a module and train again."
    return {
        "model-hash": "The file was changed by something other than its stage; `dvc checkout` brings it back.",
        "ended": "A process that ends without a word was often killed for lack of memory.",
    }.get(failed.code, "Correct it and apply again; what served before still does.")


def port_in_use(address: str, host: str, port: int) -> Diagnostic:
    """Say that a declared port is somebody else's."""
    return Diagnostic(
        code="port-in-use",
        summary="The endpoint's port is in use",
        detail=f"{port_owner(port)} listens on port {port} of {host}.",
        hint="End that process, or give the endpoint another `port` (without one, a free port is chosen).",
        address=address,
    )


def _interrupted(address: str) -> Diagnostic:
    return Diagnostic(
        code="interrupted",
        summary="Stopped while the endpoint started",
        detail="The new server was ended; what served before still does.",
        hint="Apply again to go on.",
        address=address,
    )


def remove_others(endpoint_folder: Path, *, keep: Sequence[Path]) -> None:
    """Remove the folders of servers that are gone."""
    from mlstack.drivers.local.endpoint_content import remove_tree

    if endpoint_folder.is_dir():
        for path in endpoint_folder.iterdir():
            if path.name.isdigit() and path not in keep:
                remove_tree(path)
