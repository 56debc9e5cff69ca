"""The cgroup below which a session's pods run, in both generations of cgroups."""

import contextlib
import os
import time
from pathlib import Path

from tests.engines.processes import EngineError
from tests.engines.session import Session

ROOT = Path("/sys/fs/cgroup")
UNIFIED = ROOT / "cgroup.controllers"  # exists where the machine has the second generation
NEEDED = ("cpu", "cpuset", "memory", "pids")
GONE_WITHIN = 60.0


def name(session: Session) -> str:
    return f"mlstack-{session.name}"


def make(session: Session) -> None:
    """Make it with the controllers that a kubelet looks for. Raises EngineError where this machine gives them not."""
    try:
        if UNIFIED.exists():
            _allow(ROOT)
            _own(session, ROOT).mkdir(exist_ok=True)
            _allow(_own(session, ROOT))
            return
        for controller in _first_generation():
            made = _own(session, controller)
            made.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first, and then no process may enter
                if (made / file).exists():
                    (made / file).write_text((controller / file).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise EngineError(f"no cgroup for pods can be made: {error}") from error


def _first_generation() -> list[Path]:
    return [path for path in ROOT.iterdir() if path.is_dir() and (path / "tasks").exists()]


def _own(session: Session, below: Path) -> Path:
    return below / name(session)


def _allow(group: Path) -> None:
    """Hand the controllers on to the groups below."""
    words = " ".join(f"+{controller}" for controller in NEEDED)
    (group / "cgroup.subtree_control").write_text(words, encoding="utf-8")


def remove(session: Session) -> None:
    """Remove it with all below; its processes have ended, and are counted a moment longer."""
    until = time.monotonic() + GONE_WITHIN
    while left := [path for path in (ROOT / name(session), *ROOT.glob(f"*/{name(session)}")) if path.is_dir()]:
        for path in left:
            for folder, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > until:
            return
        time.sleep(0.02)
