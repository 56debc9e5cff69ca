"""What an engine leaves behind that was killed rather than ended: processes of containers, and mounts."""

import contextlib
import os
import subprocess
from pathlib import Path

import psutil

from tests.engines.processes import Process, kill
from tests.engines.session import Session


def remove(session: Session) -> None:
    """End processes that run on a session's files, unmount what is mounted in its folders, remove sockets elsewhere."""
    kill(_shims(session))
    kill(_inside(session))
    for mount in reversed(mounts(session)):
        subprocess.run(["umount", "--lazy", mount], stderr=subprocess.DEVNULL, check=False)
    for shim in shim_sockets(session):
        shim.unlink(missing_ok=True)


def _shims(session: Session) -> list[Process]:
    """containerd's processes that hold a container each; they name the socket of the engine that they belong to."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["name"].startswith("containerd-shim") and any(f"{session.folder}/" in word for word in words):
            found.append(process.pid)
    return _still_there(found)


def shim_sockets(session: Session) -> list[Path]:
    """Where containerd's processes listened, outside the session's folders."""
    found = []
    for folder, below, files in os.walk(session.folder):  # which passes over what goes away meanwhile
        if "address" in files and Path(folder).parents[1].name == "io.containerd.runtime.v2.task":
            below.clear()
            with contextlib.suppress(FileNotFoundError):
                found.append(Path(Path(folder, "address").read_text(encoding="utf-8").removeprefix("unix://")))
    return found


def _inside(session: Session) -> list[Process]:
    """Processes whose root is one of the session's images: in a mount namespace of their own, from its data folder."""
    here = Path("/proc/self/ns/mnt").readlink()
    found = []
    for pid in psutil.pids():
        try:
            if Path(f"/proc/{pid}/ns/mnt").readlink() == here:
                continue
            lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # it has ended meanwhile, or belongs to somebody else
            continue
        if any(line.split()[4] == "/" and f"{session.data}/" in line for line in lines):
            found.append(pid)
    return _still_there(found)


def _still_there(pids: list[int]) -> list[Process]:
    found = []
    for pid in pids:
        try:
            found.append(Process.of(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def mounts(session: Session) -> list[str]:
    return [path for path in mounted() if path.startswith((f"{session.folder}/", f"{session.data}/"))]


def mounted() -> list[str]:
    """The places where something is mounted on this machine, in the order in which that was done."""
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
