"""What a merge, rebase, cherry-pick or stash left unmerged: the versions that Git's index holds of it."""

import os
import posixpath
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment

_TIMEOUT = 60.0
_OPERATIONS = {
    "rebase-merge": "git rebase --continue",
    "rebase-apply": "git rebase --continue",
    "CHERRY_PICK_HEAD": "git cherry-pick --continue",
    "REVERT_HEAD": "git revert --continue",
    "MERGE_HEAD": "git merge --continue",
}
"""What Git leaves in its folder while it waits → how to go on. The order matters: a rebase picks commits."""
_LARGEST = 256 << 20


class Versions(NamedTuple):
    """One unmerged path: its content in the common ancestor and on both sides; None where it was not there."""

    base: bytes | None
    ours: bytes | None
    theirs: bytes | None


def unmerged_paths(root: Path) -> dict[str, dict[int, str]]:
    """Return path (relative to `root`) → stage of the index (1 base, 2 ours, 3 theirs) → object, for all of the tree.

    Raises `MlstackError` outside of a repository.
    """
    listed = _git(root, "ls-files", "--unmerged", "--full-name", "-z", ":/").decode("utf-8", "surrogateescape")
    prefix = _git(root, "rev-parse", "--show-prefix").decode("utf-8", "surrogateescape").rstrip("\n").rstrip("/")
    found: dict[str, dict[int, str]] = {}
    for line in filter(None, listed.split("\0")):
        head, _, path = line.partition("\t")
        mode, blob, stage = head.split(" ")
        if mode.startswith("100"):  # a plain file: never a link, which could lead anywhere
            found.setdefault(posixpath.relpath(path, prefix or "."), {})[int(stage)] = blob
    return found


def read_versions(root: Path, stages: dict[int, str]) -> Versions:
    """Return the bytes of the versions of one path; no filter and no text conversion is run."""
    contents = {stage: _git(root, "cat-file", "blob", blob) for stage, blob in stages.items()}
    return Versions(contents.get(1), contents.get(2), contents.get(3))


def mark_resolved(root: Path, paths: Sequence[str]) -> None:
    """Put paths into the index as they are in the working tree (or as gone)."""
    if paths:
        _git(root, "--literal-pathspecs", "add", "--force", "--all", "--", *paths)


def operation_to_continue(root: Path) -> str | None:
    """Return the command that goes on with what Git is in the middle of; None if it is in the middle of nothing."""
    names = tuple(_OPERATIONS)
    places = os.fsdecode(_git(root, "rev-parse", *(word for name in names for word in ("--git-path", name))))
    for name, place in zip(names, places.splitlines(), strict=False):
        if (root / place).exists():
            return _OPERATIONS[name]
    return None


def _git(root: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={**safe_environment(), "GIT_OPTIONAL_LOCKS": "1"},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MlstackError(_failed(arguments[0], str(error))) from error
    if done.returncode != 0:
        raise MlstackError(_failed(arguments[0], os.fsdecode(done.stderr).strip()))
    if len(done.stdout) > _LARGEST:
        raise MlstackError(_failed(arguments[0], f"the object is larger than {_LARGEST >> 20} MiB"))
    return done.stdout


def _failed(what: str, reason: str) -> Diagnostic:
    return Diagnostic(
        code="git-failed",
        summary="Git gave an error",
        detail=f"git {what}: {reason}",
        hint="Run the same command by hand to see more.",
    )
