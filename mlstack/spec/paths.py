"""Paths as people write them → POSIX paths relative to the project folder."""

import os
import posixpath
import re

from mlstack.diagnostics import Position
from mlstack.spec.faults import Faults

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_LONGEST_NAME = 255
_SHOWN = 40
_OURS = (".git", ".mlstack", ".dvc")
_GENERATED = ("mlstack.yaml", "mlstack.lock", "params.mlstack.yaml", "dvc.yaml", "dvc.lock", ".dvcignore")


def normalise(path: str, *, directory: str, place: Position, faults: Faults, what: str) -> str | None:
    """Return `path`, written in `directory`, relative to the project folder; None with a fault if it leaves it."""
    hint = "Write a path inside the repository, relative to the folder of the file, with `/`."
    if "://" in path:
        detail = f"`{path}` is a URL; {what} is a path."
        hint = "Declare it as a dataset: datasets: {NAME: {path: …, source: URL}}, and name datasets.NAME here."
        faults.add("invalid-path", place, detail, hint)
        return None
    if any(ord(character) < 32 for character in path) or path != path.strip():
        faults.add("invalid-path", place, f"{what} holds a control character, or spaces at its ends.", hint)
        return None
    if path.startswith(("/", "~")) or _DRIVE.match(path):
        faults.add("path-outside", place, f"`{path}` is an absolute path.", hint)
        return None
    if "\\" in path:
        faults.add("invalid-path", place, f"`{path}` holds a backslash.", f"Write {path.replace(chr(92), '/')}.")
        return None
    joined = posixpath.normpath(posixpath.join(directory, path))
    if joined == ".." or joined.startswith("../"):
        faults.add("path-outside", place, f"`{path}` leads out of the repository.", hint)
        return None
    names = joined.split("/")
    if names[0] in _OURS or ".git" in names:
        detail = (
            f"`{path}` lies in `{names[0] if names[0] in _OURS else '.git'}`, which belongs to Git, DVC or mlstack."
        )
        faults.add("invalid-path", place, detail, "Choose another place.")
        return None
    if max(len(os.fsencode(name)) for name in names) > _LONGEST_NAME:
        detail = f"a name in `{path[:_SHOWN]}…` is longer than {_LONGEST_NAME} bytes, which file systems allow."
        faults.add("invalid-path", place, detail, "Choose a shorter one.")
        return None
    return joined


def check_made(path: str, *, place: Position, faults: Faults, what: str) -> bool:
    """Collect a fault if something else than the user's command makes this file; True if it may be made."""
    if path == ".":
        faults.add("invalid-path", place, f"{what} cannot be the whole folder.", "Name a file or a folder in it.")
        return False
    if posixpath.basename(path) in _GENERATED or path.endswith(".dvc"):
        detail = f"`{path}` is written by mlstack or DVC."
        faults.add("invalid-path", place, detail, "Choose another name.")
        return False
    return True


def ancestors(path: str) -> list[str]:
    """Return the folders above a path, the nearest first; not the project folder."""
    found = []
    while (path := posixpath.dirname(path)) not in ("", "."):
        found.append(path)
    return found
