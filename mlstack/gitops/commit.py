"""Commits of exactly the files that an apply has written."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.gitops.facts import read_git_facts

_PER_CALL = 500
"""Paths a call: a command line has a limit."""


def uncommitted(root: Path, paths: Sequence[str], *, removed: Sequence[str] = ()) -> tuple[str, ...]:
    """Return those of `paths` (relative to `root`) that exist and differ from the last commit.

    `removed` were taken away: those that the last commit still has are returned too.
    """
    facts = read_git_facts(root)
    if facts is None:
        return ()
    whole = tuple(path for path in facts.dirty if path.endswith("/"))
    changed = set(facts.dirty)
    there = (path for path in paths if (path in changed or path.startswith(whole)) and (root / path).is_file())
    return (*there, *(path for path in removed if path in changed and not (root / path).exists()))


def commit_paths(root: Path, paths: Sequence[str], *, message: str) -> str:
    """Commit these files and nothing else, with the person's own hooks and identity; return the commit.

    Raises `MlstackError` with what git said: a hook that refuses, no identity, a merge in progress.
    """
    for start in range(0, len(paths), _PER_CALL):
        _git(root, "add", "--", *paths[start : start + _PER_CALL])
    listed = "\0".join(paths)
    _git(
        root,
        "commit",
        "--quiet",
        "-m",
        message,
        "--only",
        "--pathspec-from-file=-",
        "--pathspec-file-nul",
        given=listed,
    )
    return _git(root, "rev-parse", "HEAD").strip()


def _git(root: Path, *arguments: str, given: str = "") -> str:
    done = subprocess.run(["git", *arguments], cwd=root, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MlstackError(
            Diagnostic(
                code="commit-failed",
                summary="Git did not commit the results",
                detail=f"{(done.stderr or done.stdout).strip()}\nThey are in the work tree, nothing is lost.",
                command="git status",
            )
        )
    return done.stdout
