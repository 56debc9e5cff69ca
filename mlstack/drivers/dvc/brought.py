"""Which commit brought a content: where to ask for it when it is nowhere to be had."""

from pathlib import Path

from mlstack.graph.safe_git import ask_git

_PATIENCE = 20.0
_FILES = (":(glob)**/dvc.lock", ":(glob)**/*.dvc")


def commit_of(root: Path, md5: str) -> str:
    """Return `1a2b3c4d by NAME (2026-01-31)`, the first commit in which this hash was recorded; "" if none is known."""
    wanted = ("--no-color", "--format=%h by %an (%as)", f"-S{md5}")
    said = ask_git(root, "log", "--all", *wanted, "--", *_FILES, patience=_PATIENCE) or b""
    return said.decode("utf-8", "replace").strip().rpartition("\n")[2]
