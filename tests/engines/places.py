"""Where engines lie: what is kept between runs, and what lives only while they run."""

import os
import tempfile
from pathlib import Path

ROOM = Path(__file__).resolve().parent


def cache() -> Path:
    """What took minutes to build, by version. Safe to delete; `make engines` makes it anew."""
    if chosen := os.environ.get("MLSTACK_ENGINES"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "mlstack-engines"


def sessions() -> Path:
    """The folder of all sessions of this user, whatever their caches and temporary folders.

    One place for the machine, since sessions share its networks. Short: a socket's path has at most 107 characters.
    """
    if os.getuid() == 0:
        return Path("/run/mlstack-engines")
    return Path(tempfile.gettempdir()) / f"mlstack-engines-{os.getuid()}"
