"""Which commit brought a content: where to ask for it when it is nowhere to be had."""

import subprocess
from pathlib import Path

from mlstack.graph.safe_git import safe_environment

_PATIENCE = 20.0
_FILES = (":(glob)**/dvc.lock", ":(glob)**/*.dvc")


def commit_of(root: Path, md5: str) -> str:
    """Return `1a2b3c4d by NAME (2026-01-31)`, the first commit in which this hash was recorded; "" if none is known."""
    command = ["git", "log", "--all", "--no-color", "--format=%h by %an (%as)", f"-S{md5}", "--", *_FILES]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=safe_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().rpartition("\n")[2] if done.returncode == 0 else ""
