"""Which paths Git tracks, asked once for all of them."""

import os
from collections.abc import Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic, Severity
from mlstack.graph.safe_git import safe_environment

_AT_ONCE = 2_000


def count_tracked(root: Path, paths: Sequence[str]) -> tuple[dict[str, int], Diagnostic | None]:
    """Return path → number of tracked files at or below it (paths without any are left out).

    Outside of a repository, and without Git, nothing is tracked. A repository that Git refuses to read gives a warning.
    """
    if not paths or not any(os.path.lexists(folder / ".git") for folder in (root, *root.parents)):
        return {}, None
    import subprocess

    counts: dict[str, int] = {}
    wanted = sorted(set(paths))
    environment = safe_environment()
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        command = ["git", "--literal-pathspecs", "ls-files", "-z", "--", *part]
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, check=False, env=environment)
        except OSError as error:
            return {}, _not_asked(error.strerror or str(error))
        if done.returncode != 0:
            return {}, _not_asked(done.stderr.decode(errors="replace").strip())
        _count(done.stdout.decode(errors="surrogateescape").split("\0"), set(part), counts)
    return counts, None


def tracked_by_suffix(root: Path, suffix: str) -> tuple[str, ...]:
    """Return the tracked files below `root` that end so, sorted; none outside of a repository or when Git refuses."""
    if not any(os.path.lexists(folder / ".git") for folder in (root, *root.parents)):
        return ()
    import subprocess

    command = ["git", "ls-files", "-z", "--", f":(glob)**/*{suffix}"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=False, env=safe_environment())
    except OSError:
        return ()
    return tuple(sorted(filter(None, done.stdout.decode(errors="surrogateescape").split("\0"))))


def _count(files: Sequence[str], wanted: set[str], counts: dict[str, int]) -> None:
    for file in filter(None, files):
        path = file
        while path:
            if path in wanted:
                counts[path] = counts.get(path, 0) + 1
            path = path.rpartition("/")[0]


def _not_asked(reason: str) -> Diagnostic:
    return Diagnostic(
        code="git-not-asked",
        summary="Git could not say which datasets it tracks",
        detail=f"git ls-files: {reason}.",
        hint="Datasets are treated as not tracked by Git until it can.",
        severity=Severity.WARNING,
    )
