"""How each engine is started, and when it is ready. Every one listens on this machine only."""

import http.client
import ipaddress
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.engines import base_image, processes
from tests.engines.go_tools import BUILDKIT
from tests.engines.places import data, running
from tests.engines.processes import EngineError, recorded

# Debian's own folders first: another `runc` or `containerd` on the PATH is not the one that this engine is tested with.
SYSTEM = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
BRIDGE = "mlstack0"
NETWORKS = ("172.31.250.1/24", "10.250.31.1/24", "192.168.231.1/24")


@dataclass(frozen=True)
class Daemon:
    """One engine: how to bring it up, and what to do after its end."""

    name: str
    start: Callable[[], str]
    """Start it, wait until it answers, and return its address."""
    before_stop: Callable[[], None] = lambda: None
    after_stop: Callable[[], None] = lambda: None


def address_file(name: str) -> Path:
    return running() / f"{name}.address"


def folder(name: str) -> Path:
    """Make the empty folder in which an engine keeps its data."""
    path = data() / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# -------------------------------------------------------------------------------------------------------- Docker


def foreign_engine() -> int | None:
    """The pid of a Docker engine that is not ours: two of them undo each other's rules of the firewall."""
    ours = recorded("docker")
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "dockerd" and (ours is None or process.pid != ours.pid):
            return process.pid
    return None


def start_docker() -> str:
    if (pid := foreign_engine()) is not None:
        raise EngineError(f"another Docker engine runs here (pid {pid})")
    _make_bridge()
    socket_file = running() / "docker.sock"
    configuration = running() / "docker-daemon.json"  # else it reads the one of the machine
    configuration.write_text("{}", encoding="utf-8")
    command = [
        "/usr/sbin/dockerd",
        f"--config-file={configuration}",
        f"--host=unix://{socket_file}",
        f"--data-root={folder('docker')}",
        f"--exec-root={running() / 'docker'}",
        f"--pidfile={running() / 'docker.pid'}",
        f"--bridge={BRIDGE}",
        "--storage-driver=overlay2",
    ]
    process = processes.start("docker", command, SYSTEM)
    processes.wait_until_ready("docker", process, lambda: _answers_ping(socket_file))
    return f"unix://{socket_file}"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file, as Docker's engine speaks it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self.path))


def _call(socket_file: Path, method: str, path: str) -> bytes | None:
    connection = _UnixConnection(socket_file)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    else:
        return body if response.status < 400 else None
    finally:
        connection.close()


def _answers_ping(socket_file: Path) -> bool:
    return _call(socket_file, "GET", "/_ping") == b"OK"


def remove_containers() -> None:
    """Remove what tests left running: the engine would wait ten seconds for each of them."""
    socket_file = running() / "docker.sock"
    for container in json.loads(_call(socket_file, "GET", "/v1.41/containers/json?all=true") or b"[]"):
        _call(socket_file, "DELETE", f"/v1.41/containers/{container['Id']}?force=true&v=true")


def _make_bridge() -> None:
    """A network of our own: `docker0` belongs to the engine of the machine's user."""
    if Path("/sys/class/net", BRIDGE).exists():
        return
    routes = subprocess.run(["ip", "-4", "route"], env=SYSTEM, capture_output=True, text=True, check=True).stdout
    taken = [ipaddress.ip_network(line.split()[0]) for line in routes.splitlines() if line[0].isdigit()]
    free = (each for each in NETWORKS if not any(ipaddress.ip_interface(each).network.overlaps(net) for net in taken))
    if (chosen := next(free, None)) is None:
        raise EngineError(f"this machine has routes to all of {', '.join(NETWORKS)}: none is free for containers")
    for words in (["link", "add", "name", BRIDGE, "type", "bridge"], ["addr", "add", chosen, "dev", BRIDGE]):
        subprocess.run(["ip", *words], env=SYSTEM, check=True)
    subprocess.run(["ip", "link", "set", BRIDGE, "up"], env=SYSTEM, check=True)


def _remove_bridge() -> None:
    subprocess.run(["ip", "link", "delete", BRIDGE], env=SYSTEM, stderr=subprocess.DEVNULL, check=False)


# ------------------------------------------------------------------------------------------------------ Registry


def start_registry() -> str:
    store = folder("registry")
    if base_image.made():
        shutil.copytree(base_image.registry_seed(), store, dirs_exist_ok=True)
    port = free_port()
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(store)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    configuration = running() / "registry-config.yml"
    configuration.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    process = processes.start("registry", ["/usr/bin/docker-registry", "serve", configuration], SYSTEM)
    processes.wait_until_ready("registry", process, lambda: answers_http(port, "/v2/"))
    return f"localhost:{port}"


def answers_http(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------------ BuildKit


def start_buildkit() -> str:
    address = f"unix://{running() / 'buildkit.sock'}"
    configuration = running() / "buildkit.toml"  # else it reads the one of the machine
    configuration.write_text("", encoding="utf-8")
    command = [
        str(BUILDKIT.program("buildkitd")),
        f"--config={configuration}",
        f"--addr={address}",
        f"--root={folder('buildkit')}",
        "--containerd-worker=false",
        "--oci-worker-net=host",
    ]
    process = processes.start("buildkit", command, SYSTEM)

    def answers() -> bool:
        ask = [str(BUILDKIT.program("buildctl")), "--addr", address, "--timeout", "2", "debug", "workers"]
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    processes.wait_until_ready("buildkit", process, answers)
    return address


DAEMONS = {
    daemon.name: daemon
    for daemon in (
        Daemon("docker", start_docker, remove_containers, _remove_bridge),
        Daemon("registry", start_registry),
        Daemon("buildkit", start_buildkit),
    )
}
