"""How git is called: so that nothing which a repository brings with it is run, and nothing is fetched."""

import os
from pathlib import Path

_OWN_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY",
    "GIT_EXTERNAL_DIFF",
)
_SETTINGS = (
    ("core.fsmonitor", "false"),
    ("core.hooksPath", os.devnull),
    # a folder of the working tree can look like a bare repository, with settings that name programs
    ("safe.bareRepository", "explicit"),
)


def safe_environment() -> dict[str, str]:
    """Return this process's variables without those that point git elsewhere, with those that keep it harmless."""
    kept = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
    given = kept.get("GIT_CONFIG_COUNT", "0")
    first = int(given) if given.isdecimal() else 0
    for number, (key, value) in enumerate(_SETTINGS, start=first):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **kept,
        "GIT_CONFIG_COUNT": str(first + len(_SETTINGS)),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        "LC_ALL": "C",
    }


def ask_git(folder: Path, *arguments: str, patience: float = 60.0) -> bytes | None:
    """Return what git writes, asked in `folder`; None if it fails, cannot be run or takes longer than `patience` (s).

    For questions whose answer one can do without. Where it must be known, the caller has to say why it is not.
    """
    import subprocess

    command = ["git", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=safe_environment(), capture_output=True, check=False, timeout=patience
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
