"""Where the state of an environment lies, and the folder that mlstack has for itself beside the file."""

import os
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.state.folder import FolderBackend, explain_os_error
from mlstack.state.protocols import Backend

OWN_FOLDER = ".mlstack"
"""Everything that mlstack keeps for itself on this machine, beside `mlstack.yaml`; Git ignores all of it."""


def backend_for(spec_state: str | None, root: Path, environment: str) -> Backend:
    """Return the backend of one environment; nothing is created before the first write.

    `spec_state` is the `state` of the environment: None for the default folder `.mlstack/state/<environment>`, a path
    (absolute, `~/…`, or relative to `root`), or the URL of an object store. Raises `MlstackError` for another URL.
    """
    if spec_state is None:
        from urllib.parse import quote

        # A name is one segment of the path, whatever is in it ("." and ".." too).
        segment = quote(environment, safe="").replace(".", "%2E")
        return FolderBackend(root / OWN_FOLDER / "state" / segment, prepare=lambda: ensure_own_folder(root))
    scheme, separator, rest = spec_state.partition("://")
    if not separator:
        return FolderBackend(root / Path(spec_state).expanduser())
    if scheme == "file" and rest.startswith("/"):
        return FolderBackend(Path(rest))
    from mlstack.state.object_store import ObjectBackend, is_store_url

    if is_store_url(spec_state):
        return ObjectBackend(spec_state)
    raise MlstackError(
        Diagnostic(
            code="state-backend-unsupported",
            summary="This is no place for a state",
            detail=f'The state of environment "{environment}" is set to {spec_state}, which is neither a folder nor a '
            "store that mlstack can write to.",
            hint="Write s3://BUCKET/PATH, gs://BUCKET/PATH or azure://CONTAINER/PATH (no keys or settings in it), or "
            "name a folder that all machines see. Without `state` it is kept beside the file, in "
            f"{OWN_FOLDER}/state.",
        )
    )


def ensure_own_folder(root: Path) -> Path:
    """Make `.mlstack/` with a `.gitignore` that keeps Git out of it, where they are missing, and return the folder.

    Raises `MlstackError` when the project folder cannot be written.
    """
    folder = root / OWN_FOLDER
    ignore = folder / ".gitignore"
    if ignore.exists():
        return folder
    try:
        folder.mkdir(mode=0o700, exist_ok=True)  # logs and locks: nobody else's to read or to hold
        _write_whole(ignore, b"*\n")
    except OSError as error:
        raise MlstackError(explain_os_error(error, ignore, writing=True)) from error
    return folder


def _write_whole(path: Path, data: bytes) -> None:
    """Write a small file that is either there with all of its content or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
