"""Writes what a bug report needs into a file."""

import os
import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from mlstack import __version__
from mlstack.cli.settings import Globals


def write_bug_report(given: Globals, error: BaseException) -> Path | None:
    """Write versions, the command's name and the traceback to `.mlstack/` or the temporary folder; return the path.

    Values of options are left out: they may hold what nobody else should read. None when no folder can be written.
    """
    now = datetime.now(UTC)
    trace = "".join(traceback.format_exception(error))
    text = (
        f"mlstack {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{now.isoformat(timespec='seconds')}\ncommand: {given.command}\nexecutable: {sys.executable}\n\n{trace}"
    )
    own = (given.directory or Path()).absolute() / ".mlstack"
    for folder in (own, Path(tempfile.gettempdir())):
        if not folder.is_dir() or (folder == own and folder.is_symlink()):
            continue
        try:
            path = folder / f"bug-{now:%Y%m%dT%H%M%S%f}.log"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None
