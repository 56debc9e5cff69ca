"""A Docker engine that a test may stop. It has no network, so it does not get in the way of the shared one."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlstack.drivers.docker.engine import connect
from mlstack.drivers.local.endpoint_process import wait_until
from tests.engines.network import SYSTEM

if TYPE_CHECKING:
    from docker import DockerClient

DOCKERD = "/usr/sbin/dockerd"


class OwnEngine:
    """`folder` holds all of it; its path is short, since sockets lie in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mle-", dir="/tmp"))
        self.host = f"unix://{self.folder / 'docker.sock'}"
        (self.folder / "daemon.json").write_text("{}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            DOCKERD,
            f"--config-file={self.folder / 'daemon.json'}",
            f"--host={self.host}",
            f"--data-root={self.folder / 'data'}",
            f"--exec-root={self.folder / 'run'}",
            f"--pidfile={self.folder / 'docker.pid'}",
            "--bridge=none",
            "--iptables=false",
            "--storage-driver=overlay2",
        ]
        with (self.folder / "docker.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=SYSTEM, stdout=log, stderr=log, start_new_session=True)
        assert wait_until(self._answers, seconds=180, tick=0.2), (self.folder / "docker.log").read_text()[-2000:]

    def stop(self) -> None:
        """End it as a machine that shuts down does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=120)
            self._process = None

    def remove(self) -> None:
        """End it with all that it holds."""
        if self._process is not None:
            client = self.client()
            for container in client.containers.list(all=True):
                container.remove(force=True)
            client.close()
        self.stop()
        for mounted in (self.folder / "run" / "netns").glob("*"):  # the network of the host, which it leaves behind
            subprocess.run(["umount", mounted], env=SYSTEM, check=True)
        shutil.rmtree(self.folder)

    def client(self) -> "DockerClient":
        return connect(self.host)

    def take_image(self, other: "DockerClient", image: str) -> None:
        """Copy an image from another engine."""
        client = self.client()
        with tempfile.TemporaryFile(dir=self.folder) as archive:
            for chunk in other.images.get(image).save():
                archive.write(chunk)
            archive.seek(0)
            client.images.load(archive)
        client.close()

    def _answers(self) -> bool:
        try:
            self.client().close()
        except OSError:  # nobody listens yet
            return False
        return True


def why_not() -> str:
    """Say why an engine cannot be started here; "" if it can."""
    if os.geteuid() != 0:
        return "a Docker engine is started by root"
    return "" if Path(DOCKERD).exists() else "dockerd is not installed"
