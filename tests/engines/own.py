"""Engines that a test has to itself: it may stop them, kill them, or let their disk run full.

They belong to the session of the run, so that one which is killed leaves nothing of them either.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engines import daemons, leftovers, processes
from tests.engines.network import SYSTEM
from tests.engines.session import Session

if TYPE_CHECKING:
    from docker import DockerClient

STOPS_WITHIN = 120.0
"""Seconds in which an engine may end its containers; a second when nothing else runs."""


class OwnDocker:
    """A Docker engine without a network, so that it does not get in the way of the shared one."""

    def __init__(self, session: Session, store: Path | None = None) -> None:
        self.session = session
        self.name = f"docker-{secrets.token_hex(2)}"
        self.store = store or session.new_store(self.name)
        self.host = ""

    def start(self) -> None:
        """Start it, also once more, and wait until it answers."""
        self.host = daemons.run_docker(self.session, self.name, self.store, ["--bridge=none"])

    def stop(self) -> None:
        """End it as a machine that shuts down does."""
        processes.stop(self.session, self.name, grace=STOPS_WITHIN)

    def remove(self) -> None:
        """End it with all that it holds."""
        if processes.recorded(self.session, self.name) is not None:
            daemons.remove_containers(self.session, self.name)
        self.stop()
        _clear(self.session.folder / self.name)
        _clear(self.store)

    def client(self) -> "DockerClient":
        import docker

        return docker.DockerClient(base_url=self.host, timeout=300)

    def take_image(self, other: "DockerClient", image: str) -> None:
        """Copy an image from another engine."""
        client = self.client()
        with tempfile.TemporaryFile(dir=self.session.data) as archive:
            for chunk in other.images.get(image).save():
                archive.write(chunk)
            archive.seek(0)
            client.images.load(archive)
        client.close()


class OwnBuildKit:
    """A BuildKit daemon."""

    def __init__(self, session: Session, store: Path | None = None) -> None:
        self.session = session
        self.name = f"buildkit-{secrets.token_hex(2)}"
        self.store = store or session.new_store(self.name)
        self.address = daemons.run_buildkit(session, self.name, self.store)

    def kill(self) -> None:
        """End it without a chance to clear up."""
        process = processes.recorded(self.session, self.name)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

    def remove(self) -> None:
        processes.stop(self.session, self.name)
        _clear(self.store)


def _clear(folder: Path) -> None:
    """Remove a folder with what is mounted in it: an engine that was killed leaves that behind, Docker always a bit."""
    for mount in reversed([each for each in leftovers.mounted() if each.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", mount], env=SYSTEM, check=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def small_disk(session: Session, *, megabytes: int) -> Iterator[Path]:
    """A disk of its own for the data of an engine; PermissionError where this user may mount none."""
    folder = session.new_store(f"disk-{secrets.token_hex(2)}")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, env=SYSTEM, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(folder)], env=SYSTEM, check=True)
