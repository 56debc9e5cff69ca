"""How each engine is started, and when it is ready. Every one listens on this machine only."""

import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.engines import base_image, control_plane, network, node, processes
from tests.engines.go_tools import BUILDKIT
from tests.engines.network import SYSTEM
from tests.engines.ports import on_a_free_port
from tests.engines.processes import Process
from tests.engines.session import Session


@dataclass(frozen=True)
class Daemon:
    """One engine: how to bring it up, and what to do before its end."""

    name: str
    start: Callable[[Session], str]
    """Start it, wait until it answers, and return its address."""
    needs: tuple[str, ...] = ()
    """What has to run before it."""
    before_stop: Callable[[Session], None] = lambda _: None


# -------------------------------------------------------------------------------------------------------- Docker


def start_docker(session: Session) -> str:
    further = network.make(session)
    words = [f"--bridge={network.bridge(session)}", f"--default-address-pool=base={further},size=26"]
    return run_docker(session, "docker", session.new_store("docker"), words)


def run_docker(session: Session, name: str, store: Path, network_words: list[str]) -> str:
    """Start an engine that keeps its data in `store`, and return its address. A session may have several."""
    socket_file = _socket_of(session, name)
    configuration = session.folder / f"{name}-daemon.json"  # else it reads the one of the machine
    configuration.write_text("{}", encoding="utf-8")
    namespace = f"mlstack-{session.name}-{name}"
    command = [
        "/usr/sbin/dockerd",
        f"--config-file={configuration}",
        f"--host=unix://{socket_file}",
        f"--data-root={store}",
        f"--exec-root={session.folder / name}",
        f"--pidfile={session.folder / name}.pid",
        *network_words,
        "--iptables=false",  # network.py
        "--storage-driver=overlay2",
        # If the machine runs a containerd, Docker uses that; then all engines see each other's containers but for this.
        f"--containerd-namespace={namespace}",
        f"--containerd-plugins-namespace={namespace}-plugins",
    ]
    process = processes.start(session, name, command, SYSTEM)
    processes.wait_until_ready(session, name, process, lambda: _call(socket_file, "GET", "/_ping") == b"OK")
    return f"unix://{socket_file}"


def _socket_of(session: Session, name: str) -> Path:
    return session.folder / f"{name}.sock"


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


def remove_containers(session: Session, name: str = "docker") -> None:
    """Remove what tests left running: the engine would wait ten seconds for each of them."""
    socket_file = _socket_of(session, name)
    for container in json.loads(_call(socket_file, "GET", "/v1.41/containers/json?all=true") or b"[]"):
        _call(socket_file, "DELETE", f"/v1.41/containers/{container['Id']}?force=true&v=true")


# ------------------------------------------------------------------------------------------------------ Registry


def start_registry(session: Session) -> str:
    store = session.new_store("registry")
    if base_image.made():
        shutil.copytree(base_image.registry_seed(), store, dirs_exist_ok=True)
    configuration = session.folder / "registry-config.yml"

    def start(port: int) -> Process:
        settings = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(store)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        configuration.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        return processes.start(session, "registry", ["/usr/bin/docker-registry", "serve", configuration], SYSTEM)

    return f"localhost:{on_a_free_port(session, 'registry', start)}"


# ------------------------------------------------------------------------------------------------------ BuildKit


def start_buildkit(session: Session) -> str:
    return run_buildkit(session, "buildkit", session.new_store("buildkit"))


def run_buildkit(session: Session, name: str, store: Path) -> str:
    """Start a daemon that keeps its data in `store`, and return its address. A session may have several."""
    address = f"unix://{_socket_of(session, name)}"
    configuration = session.folder / f"{name}.toml"  # else it reads the one of the machine
    configuration.write_text("", encoding="utf-8")
    command = [
        str(BUILDKIT.program("buildkitd")),
        f"--config={configuration}",
        f"--addr={address}",
        f"--root={store}",
        f"--otel-socket-path={session.folder / name}-otel.sock",
        "--containerd-worker=false",
        "--oci-worker-net=host",
    ]
    process = processes.start(session, name, command, SYSTEM)

    def answers() -> bool:
        ask = [str(BUILDKIT.program("buildctl")), "--addr", address, "--timeout", "2", "debug", "workers"]
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    processes.wait_until_ready(session, name, process, answers)
    return address


DAEMONS = {  # in an order in which they can be started
    daemon.name: daemon
    for daemon in (
        Daemon("docker", start_docker, before_stop=remove_containers),
        Daemon("registry", start_registry),
        Daemon("buildkit", start_buildkit),
        Daemon("etcd", control_plane.start_etcd),
        Daemon("kube-apiserver", control_plane.start_api_server, ("etcd",)),
        Daemon("kube-controller-manager", control_plane.start_controller_manager, ("kube-apiserver",)),
        Daemon("kube-scheduler", control_plane.start_scheduler, ("kube-apiserver",)),
        Daemon("kwok", control_plane.start_kwok, ("kube-apiserver",)),
        Daemon("containerd", node.start_containerd),
        Daemon("coredns", node.start_dns, ("kube-apiserver", "containerd")),
        Daemon("kubelet", node.start_kubelet, ("kube-controller-manager", "kube-scheduler", "containerd")),
        Daemon("kube-proxy", node.start_proxy, ("kubelet",)),  # it is well once its node is there
    )
}
