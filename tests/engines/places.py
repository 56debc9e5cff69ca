"""Where engines lie: what is kept between runs, and what lives only while they run."""

import os
import tempfile
from pathlib import Path

ROOM = Path(__file__).resolve().parent


def cache() -> Path:
    """What took minutes to build, by version. Safe to delete; `make engines` makes it anew."""
    if chosen := os.environ.get("MLSTACK_ENGINES"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlstack-engines"


def data() -> Path:
    """What running engines store: on the disk of the cache, since it can be gigabytes. Gone when they stop."""
    return cache() / "data"


def running() -> Path:
    """Sockets, logs and records of running engines. Short, since a socket's path has at most 107 characters."""
    return Path(tempfile.gettempdir()) / f"mlstack-engines-{os.getuid()}"
