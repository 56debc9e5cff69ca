"""Small YAML files of the project (`dvc.yaml`, `.dvc`, generated params), parsed once and remembered by stat."""

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError, Position
from mlstack.drivers.dvc.stamped import Stamped, read_stamped, stamp, write_stamped
from mlstack.drivers.dvc.yaml_text import load_yaml
from mlstack.spec.plain_files import read_plain
from mlstack.spec.whole_files import write_whole

CONFLICT_MARK = re.compile(r"^(?:<{7}|={7}|>{7})(?: |$)", re.MULTILINE)
"""What Git leaves in a file that it could not merge."""


def read_document(root: Path, path: str, *, cache_folder: Path | None) -> dict[str, Any] | None:
    """Return the map in a YAML file; None if there is no file.

    Raises `MlstackError` with the line for one that is not YAML, not UTF-8 or not a map.
    """
    cache = document_cache(cache_folder, path)
    try:
        before = stamp(root / path)
        found = read_stamped(cache, before, dict[str, Any])
        if found is not None:
            return found
        content = read_plain(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MlstackError(unreadable(path, error.strerror or str(error))) from error
    data = parse_document(content, path)
    write_stamped(cache, Stamped(before, data))
    return data


def parse_document(content: bytes, path: str) -> dict[str, Any]:
    """Parse the bytes of such a file; see `read_document`."""
    import yaml

    try:
        text = content.decode()
        conflict = CONFLICT_MARK.search(text)
        if conflict is not None:
            raise MlstackError(_conflict(path, text.count("\n", 0, conflict.start()) + 1))
        data = load_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise MlstackError(unreadable(path, str(reason), line=mark.line + 1 if mark else 1)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise MlstackError(unreadable(path, "it is not a map"))
    return data


def document_cache(cache_folder: Path | None, path: str) -> Path | None:
    """Return the file that remembers one parsed document."""
    return cache_folder / "dvc" / f"yaml-{sha256(os.fsencode(path)).hexdigest()[:16]}.json" if cache_folder else None


def _conflict(path: str, line: int) -> Diagnostic:
    is_data = path.endswith(".dvc")
    return Diagnostic(
        code="dvc-file-conflict",
        summary="One of DVC's files holds a merge conflict",
        detail=f"{path} has conflict markers.",
        hint="Take the data of either side." if is_data else "Resolve the other files first, then this one:",
        command=f"git checkout --ours -- {path}" if is_data else "mlstack lock --resolve",
        position=Position(path, line, 1),
    )


def unreadable(path: str, reason: str, *, line: int = 1) -> Diagnostic:
    """Describe a file of DVC's that cannot be read."""
    return Diagnostic(
        code="dvc-file-unreadable",
        summary="One of DVC's files cannot be read",
        detail=f"{path}: {reason}.",
        hint="Correct the file, or take the version of the last commit.",
        command=f"git checkout -- {path}",
        position=Position(path, line, 1),
    )


def write_durably(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace a file as `write_whole` does, and make its folder if need be.

    Raises `MlstackError` when it cannot be written; the old content stays whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content, mode=mode)
    except OSError as error:
        raise MlstackError(_unwritable(path, error)) from error


def _unwritable(path: Path, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="file-unwritable",
        summary="A file cannot be written",
        detail=f"{path}: {error.strerror or error}. What was there before is unchanged.",
        hint="Make room or make the folder writable, then run the same command again; nothing that is done is lost.",
    )
