"""Writing a file that a person asked for."""

from pathlib import Path
from typing import TextIO

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.whole_files import write_whole


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; the file is there whole or not at all. Raises `MlstackError` when it cannot be written."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise MlstackError(_not_written(path, error)) from error


def open_text(path: Path) -> TextIO:
    """Open a file that is written line by line, emptied first. Raises `MlstackError` when it cannot be opened."""
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise MlstackError(_not_written(path, error)) from error


def _not_written(path: Path, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="file-not-written",
        summary="The file cannot be written",
        detail=f"{path}: {error.strerror or error}",
    )
