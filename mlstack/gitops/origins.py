"""Where a recorded content comes from: the text in Git's history that has a given hash."""

from hashlib import md5 as new_md5
from pathlib import Path

from mlstack.graph.safe_git import ask_git

_MOST_COMMITS = 50
_MOST_BYTES = 4 << 20
_PATIENCE = 20.0


def find_text_of(root: Path, path: str, *, md5: str) -> str | None:
    """Return the text that `path` had when its MD5 was `md5`, looking at the newest commits that touched it.

    None when it is not among them, is not text, or there is no repository. Nothing is checked out, no filter is run.
    """
    for commit in commits_of(root, path):
        blob = _blob(root, path, commit)
        if blob is not None and new_md5(blob, usedforsecurity=False).hexdigest() == md5:
            return _decoded(blob)
    return None


def commits_of(root: Path, path: str) -> list[str]:
    """Return the newest commits that touched `path` (relative to `root`), newest first."""
    found = ask_git(root, "log", f"--max-count={_MOST_COMMITS}", "--format=%H", "HEAD", "--", path, patience=_PATIENCE)
    return found.decode().split() if found is not None else []


def text_at(root: Path, path: str, *, commit: str) -> str | None:
    """Return the text of `path` at a commit; None where it is not there or is not text."""
    blob = _blob(root, path, commit)
    return _decoded(blob) if blob is not None else None


def _blob(root: Path, path: str, commit: str) -> bytes | None:
    blob = ask_git(root, "cat-file", "blob", f"{commit}:./{path}", patience=_PATIENCE)
    return blob if blob is not None and len(blob) <= _MOST_BYTES else None


def _decoded(blob: bytes) -> str | None:
    try:
        return blob.decode("utf-8")
    except UnicodeDecodeError:
        return None
