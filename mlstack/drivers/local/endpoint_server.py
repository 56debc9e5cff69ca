"""One server of an endpoint: its folder, its start, and how it takes the place of the one before.

An endpoint's folder holds one folder for each server that was started: `server.json` (what it was told), the model's
bytes, `server.log`, and `ready.json` or `failed.json` (what it says).
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.local.endpoint_overlay import SERVING
from mlstack.drivers.local.endpoint_process import (
    TICK,
    ask_ready,
    birth_of,
    connectable,
    is_same_process,
    port_owner,
    start_detached,
    stop_process,
)

SETTINGS_FORMAT = 1
TAIL = 12
"""Lines of the log that a failure shows."""
PORTS = range(20000, 30000)
"""Where ports that nobody named are chosen: below what systems give to outgoing connections."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs. `digest` is that of what it was told; "" for one of another version of mlstack."""

    pid: int
    birth: str
    folder: Path
    host: str
    port: int
    digest: str = ""

    @property
    def url(self) -> str:
        """Where it answers, from this machine."""
        host = connectable(self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Launch(msgspec.Struct, kw_only=True):
    """What is needed to start a server, beside its settings."""

    address: str
    folder: Path
    python: Path
    overlay: Path
    env: Mapping[str, str]
    timeout: float
    say: Say
    stop: StopFlag
    secrets: tuple[str, ...] = ()


class _Ready(msgspec.Struct):
    pid: int
    host: str
    port: int


class _Failed(msgspec.Struct):
    code: str
    sentence: str


class ServerFailedError(MlstackError):
    """A server did not start; `code` is what it said was wrong."""

    def __init__(self, diagnostic: Diagnostic, *, code: str) -> None:
        super().__init__(diagnostic)
        self.code = code


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


def start_server(launch: Launch, settings: Mapping[str, Any]) -> Running:
    """Write the settings, start a server, and wait until it answers that it is ready.

    With `take_over` in the settings it serves on its predecessor's socket by then. Raises `ServerFailedError` (nothing
    of it is left running, its log is kept as `failed.log`).
    """
    file = launch.folder / "server.json"
    file.write_bytes(msgspec.json.encode({"format": SETTINGS_FORMAT, **settings}))
    command = [str(launch.python), str(SERVING / "boot.py"), str(file), str(launch.overlay)]
    pid = start_detached(command, env=launch.env, cwd=launch.folder)
    birth = birth_of(pid) or ""
    try:
        return _wait_until_ready(launch, settings, pid=pid, birth=birth)
    except BaseException:  # whatever ends the waiting (Ctrl-C too), nothing half-started stays behind
        stop_process(pid, birth, grace=3.0)
        raise


def _wait_until_ready(launch: Launch, settings: Mapping[str, Any], *, pid: int, birth: str) -> Running:
    began = time.monotonic()
    said = 0
    while True:
        alive = bool(birth) and is_same_process(pid, birth)
        running = _read_ready(launch, settings, pid=pid, birth=birth)
        if running is not None and is_ready(running):
            return running
        if not alive:
            raise _failure(launch, settings, f"process {pid} ended while it started")
        seconds = time.monotonic() - began
        if seconds > launch.timeout:
            raise _failure(launch, settings, f"it was not ready within {launch.timeout:.0f} s")
        if launch.stop.is_set():
            raise MlstackError(_interrupted(launch.address), exit_code=ExitCode.INTERRUPTED)
        if int(seconds) > said:
            said = int(seconds)
            launch.say(f"waiting for the model to load ({said} s)")
        time.sleep(TICK)


def _read_ready(launch: Launch, settings: Mapping[str, Any], *, pid: int, birth: str) -> Running | None:
    try:
        ready = msgspec.json.decode((launch.folder / "ready.json").read_bytes(), type=_Ready)
    except (OSError, msgspec.DecodeError):
        return None
    digest = str(settings.get("digest", ""))
    return Running(pid=pid, birth=birth, folder=launch.folder, host=ready.host, port=ready.port, digest=digest)


def find_running(folder: Path, *, pid: int) -> Running | None:
    """Return the server whose folder this is, if it is ready: found after an apply that was killed."""
    birth = birth_of(pid)
    try:
        ready = msgspec.json.decode((folder / "ready.json").read_bytes(), type=_Ready)
        told = msgspec.json.decode((folder / "server.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    if birth is None or not isinstance(told, dict):
        return None
    digest = str(told.get("digest", ""))
    found = Running(pid=pid, birth=birth, folder=folder, host=ready.host, port=ready.port, digest=digest)
    return found if is_ready(found) else None


def is_ready(running: Running, *, patience: float = 1.0) -> bool:
    """Whether this very server says that it is ready, within `patience` seconds (it may be busy decoding)."""
    health = ask_ready(connectable(running.host), running.port, timeout=patience)
    return health is not None and health.status == 200 and health.pid == running.pid


def log_tail(folder: Path, *, lines: int = TAIL) -> tuple[str, ...]:
    """Return the last lines of a server's log, also from before it was last rotated."""
    text = ""
    for name in ("server.log", "server.log.1"):
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
    try:
        failed = msgspec.json.decode((launch.folder / "failed.json").read_bytes(), type=_Failed)
    except (OSError, msgspec.DecodeError):
        failed = _Failed(code="ended", sentence=f"The model server did not start: {otherwise}.")
    if failed.code == "port-in-use":
        diagnostic = port_in_use(launch.address, settings["host"], settings["port"])
        return ServerFailedError(diagnostic, code=failed.code)
    kept = launch.folder.parent / "failed.log"
    tail = log_tail(launch.folder)
    try:
        (launch.folder / "server.log").replace(kept)
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
