"""Folders that projects of one user share: below `$XDG_CACHE_HOME/mlstack/`, each made once, whole or not at all."""

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError


def shared_cache(variables: Mapping[str, str] | None = None) -> Path:
    """Return the folder that all projects of a user share, after the XDG base directory specification."""
    variables = os.environ if variables is None else variables
    cache = variables.get("XDG_CACHE_HOME", "")
    base = Path(cache) if cache.startswith("/") else Path("~/.cache").expanduser()
    return base / "mlstack"


def made_once(folder: Path, fill: Callable[[Path], None], *, problem: Callable[[str], Diagnostic]) -> Path:
    """Return `folder`, which `fill` makes if it is missing: in a folder beside it, that gets the name when it is whole.

    Several may try at once: the first one wins, and what the others made goes. `problem` words why it cannot be
    written. Raises `MlstackError` with it, and whatever `fill` raises.
    """
    if folder.is_dir():
        return folder
    import shutil
    import tempfile

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise MlstackError(problem(f"{folder.parent} cannot be written: {error.strerror}.")) from error
    try:
        part.chmod(0o755)
        fill(part)
        try:
            part.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else somebody else was faster
                raise MlstackError(problem(f"{folder} cannot be written: {error.strerror}.")) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def digest_of_program(folder: Path, requirements: Path) -> str:
    """Return a short digest of a program of mlstack's own: the modules in a folder and its pinned packages."""
    digest = sha256()
    for path in sorted([*folder.glob("*.py"), requirements]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
