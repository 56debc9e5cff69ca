"""One session: the engines of one test run, which nobody else uses."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.engines.places import cache, sessions

VARIABLE = "MLSTACK_ENGINES_SESSION"
"""How a run's workers know the session of their run: its folder."""


@dataclass(frozen=True)
class Session:
    """Where the engines of one run have their things."""

    folder: Path
    """Sockets, logs, addresses, records of processes. Named by a few letters that no other session has."""
    data: Path
    """What the engines store: on the disk of the cache, since it can be gigabytes."""

    @property
    def name(self) -> str:
        return self.folder.name

    def log(self, engine: str) -> Path:
        return self.folder / f"{engine}.log"

    def record(self, engine: str) -> Path:
        return self.folder / f"{engine}.process"

    def records(self) -> list[str]:
        """The names under which processes were recorded, also by another version of these files."""
        return sorted(path.stem for path in self.folder.glob("*.process"))

    def address(self, engine: str) -> Path:
        return self.folder / f"{engine}.address"

    def new_store(self, engine: str) -> Path:
        """Make the empty folder in which an engine keeps its data."""
        path = self.data / engine
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


@contextlib.contextmanager
def machine_lock() -> Iterator[Path]:
    """Hold the lock of all sessions of this user; yields their folder."""
    sessions().mkdir(mode=0o700, exist_ok=True)
    with FileLock(sessions() / "lock"):
        yield sessions()


def make(folder: Path) -> Session:
    """Write down where the session of this folder has its data: whoever clears up may have another cache."""
    session = Session(folder, cache() / "sessions" / folder.name)
    (folder / "session.json").write_text(json.dumps({"data": os.fspath(session.data)}), encoding="utf-8")
    return session


def read(folder: Path) -> Session:
    try:
        said = json.loads((folder / "session.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # its owner died in the moment of making it
        return Session(folder, cache() / "sessions" / folder.name)
    return Session(folder, Path(said["data"]))


def of_this_run() -> Session:
    return read(Path(os.environ[VARIABLE]))


def all_sessions() -> list[Session]:
    return [read(folder) for folder in sorted(sessions().glob("*/"))]
