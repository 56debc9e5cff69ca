"""The process of an endpoint on this machine: who it is, whether it is well, how it is started and stopped.

`read` is on the path of every plan, so the modules that cost time to import (psutil, subprocess) are imported where a
process is made or ended.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.state.identity import host_name, process_started

TICK = 0.02
"""Seconds between two looks at a process that starts or ends."""


class Health(msgspec.Struct, frozen=True):
    """What `GET /v2/health/ready` said. The headers tell who answered; empty for a foreign server."""

    status: int
    endpoint: str = ""
    version: str = ""
    instance: str = ""
    pid: int | None = None


def machine_identity() -> str:
    """Return what tells this machine from others, hashed: the system's machine ID, else its name.

    A laptop's name changes with its network; the ID does not. It is not to be shown as it is (machine-id(5)).
    """
    return sha256(b"mlstack\0" + _machine_name().encode()).hexdigest()[:16]


def _machine_name() -> str:
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            found = Path(place).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return found
    return host_name()


def birth_of(pid: int) -> str | None:
    """Return what tells a process from a later one with the same ID; None when it is gone (or a zombie).

    On Linux that is the boot and the clock tick of its start, which do not move when the clock is set.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _birth_elsewhere(pid)
    # The name in parentheses may hold anything; the state is field 3, the start field 22 (proc_pid_stat(5)).
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in {b"Z", b"X"} else f"{boot}:{int(fields[19])}"


def _birth_elsewhere(pid: int) -> str | None:
    started = process_started(pid)
    return None if started is None else f"{started:.0f}"


def is_same_process(pid: int, birth: str) -> bool:
    """Whether this very process is still there."""
    return birth_of(pid) == birth


def ask_ready(host: str, port: int, *, timeout: float = 1.0) -> Health | None:
    """Ask a server whether it is ready; None if nothing answers HTTP there within `timeout` seconds.

    Spoken by hand: importing `http.client` would cost more than asking.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    request = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + timeout
    answer = b""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect((host, port))
            connection.sendall(request)
            while b"\r\n\r\n" not in answer and len(answer) < 65536:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = connection.recv(4096)
                if not chunk:
                    break
                answer += chunk
    except OSError:
        return None
    return _parse(answer)


def _parse(answer: bytes) -> Health | None:
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    pid = headers.get("mlstack-pid", "")
    return Health(
        status=int(words[1]),
        endpoint=headers.get("mlstack-endpoint", ""),
        version=headers.get("mlstack-model-version", ""),
        instance=headers.get("mlstack-instance", ""),
        pid=int(pid) if pid.isdecimal() else None,
    )


def connectable(host: str) -> str:
    """Return the address at which a server that listens on `host` is reached from this machine."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def start_detached(command: list[str], *, env: Mapping[str, str], cwd: Path) -> int:
    """Start a server that detaches itself, and return its process ID.

    The command prints the ID of the process that goes on and ends at once, so that no zombie and no terminal is left
    behind. Raises `MlstackError` when it cannot be started.
    """
    import subprocess

    try:
        done = subprocess.run(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            close_fds=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MlstackError(_start_failed(str(error))) from error
    if done.returncode != 0 or not done.stdout.strip().isdigit():
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        raise MlstackError(_start_failed(lines[-1]))
    return int(done.stdout)


def _start_failed(why: str) -> Diagnostic:
    return Diagnostic(
        code="server-not-started",
        summary="The model server could not be started",
        detail=f"{why}.",
        hint="The endpoint's Python environment may be damaged; `mlstack doctor` checks it.",
    )


def stop_process(pid: int, birth: str, *, grace: float, say: Say = lambda _: None) -> None:
    """End a process and wait until it is gone: SIGTERM, after `grace` seconds SIGKILL. One that is gone succeeds.

    A process that only has the same ID is never touched. Raises `MlstackError` if it does not go.
    """
    if not is_same_process(pid, birth):
        return
    _signal(pid, signal.SIGTERM)
    if wait_until(lambda: not is_same_process(pid, birth), seconds=grace):
        return
    say(f"process {pid} did not end within {grace:.0f} s; killing it")
    _signal(pid, signal.SIGKILL)
    if not wait_until(lambda: not is_same_process(pid, birth), seconds=10):
        raise MlstackError(
            Diagnostic(
                code="process-not-ended",
                summary="A process could not be ended",
                detail=f"Process {pid} is still there 10 s after SIGKILL.",
                hint="It may hang in the system (a dead network disk, for example).",
            )
        )


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise MlstackError(
            Diagnostic(
                code="process-not-ours",
                summary="A process belongs to somebody else",
                detail=f"Process {pid} cannot be ended by this user.",
                hint="Run the command as the user who applied the endpoint.",
            )
        ) from error


def wait_until(is_done: Callable[[], bool], *, seconds: float, tick: float = TICK) -> bool:
    """Wait until something is so, at most `seconds`, looking every `tick`; return whether it came about."""
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(tick)
    return True


def servers_below(folder: Path) -> dict[int, Path]:
    """Return the processes whose command line names a `server.json` below `folder`, with the folder of that file.

    This finds a server whose applier was killed before it could record anything.
    """
    import psutil

    found: dict[int, Path] = {}
    start = f"{folder}{os.sep}"
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        for word in process.info["cmdline"] or ():
            if word.startswith(start) and word.endswith(f"{os.sep}server.json"):
                if process.info["status"] != psutil.STATUS_ZOMBIE:
                    found[process.info["pid"]] = Path(word).parent
                break
    return found


def port_owner(port: int) -> str:
    """Return who listens on a port of this machine, as far as this user may know ("process 4711 (python3)")."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            place = tuple(connection.laddr)
            if connection.status == psutil.CONN_LISTEN and place[1:] == (port,) and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another process"


def is_port_taken(host: str, port: int) -> bool:
    """Whether a port cannot be listened on because somebody else does."""
    import errno

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
