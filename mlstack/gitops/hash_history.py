"""Which commits recorded a hash: Git's history of `dvc.lock` and `.dvc` files, searched by Git itself."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlstack.graph.safe_git import ask_git

_RECORDS = ("dvc.lock", "**/dvc.lock", "*.dvc", "**/*.dvc")
_MOST = 200
_FORMAT = "--format=%H%x00%an%x00%aI%x00%s%x01"
_HEX = re.compile(r"[0-9a-f]{4,32}(?:\.dir)?")


class CommitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One commit. `date` is ISO 8601."""

    commit: str
    author: str
    date: str
    subject: str


def is_hash_prefix(text: str) -> bool:
    """Whether a word can be the beginning of a version's hash."""
    return _HEX.fullmatch(text) is not None


def commits_with(root: Path, text: str, *, paths: Sequence[str] = _RECORDS, every: bool = True) -> list[CommitFacts]:
    """Return the commits that brought or removed `text` in these files, newest first; of all branches with `every`.

    Empty without a repository. Nothing is checked out, no filter is run.
    """
    globs = [f":(glob){path}" if "*" in path else path for path in paths]
    return _log(root, *(["--all"] if every else []), f"-S{text}", "--", *globs)


def last_commit_of(root: Path, path: str) -> CommitFacts | None:
    """Return the newest commit of this branch that touched a path; None for one that was never committed."""
    found = _log(root, "--max-count=1", "--", path)
    return found[0] if found else None


def commit_facts(root: Path, commit: str) -> CommitFacts | None:
    """Return what Git says of one commit (a hash); None if it is not in this clone."""
    found = _log(root, "--max-count=1", commit, "--") if re.fullmatch(r"[0-9a-f]{7,64}", commit) else []
    return found[0] if found else None


def _log(root: Path, *arguments: str) -> list[CommitFacts]:
    said = ask_git(root, "log", f"--max-count={_MOST}", "--no-textconv", "--no-ext-diff", _FORMAT, *arguments)
    rows = (said or b"").decode("utf-8", "replace").split("\x01")
    fields = [row.strip("\n").split("\0") for row in rows]
    return [CommitFacts(commit=f[0], author=f[1], date=f[2], subject=f[3]) for f in fields if len(f) == 4]
