"""What `mlstack init` makes where it is missing: a Git repository, a DVC project, `.mlstack/`."""

import os
import subprocess
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.documents import write_durably
from mlstack.drivers.dvc.settings import find_top

OWN_FOLDER = ".mlstack"


def init_repository(root: Path) -> list[str]:
    """Make what is missing around the project folder `root`; return what was done, a sentence each.

    What is there is left as it is. DVC's usage statistics are turned off in a DVC project that is made here; DVC's
    `core.autostage` is left to the person. Raises `MlstackError` where it cannot be made.
    """
    done: list[str] = []
    root = Path(os.path.realpath(root))
    top = git_top(root)
    if top is None:
        _git(root, "init", "--quiet")
        top = root
        done.append("Made a Git repository (git init).")
    if find_top(root) is None:
        done.append(_init_dvc(root, is_subfolder=top != root))
    if _write_own_ignore(root):
        done.append(f"Made {OWN_FOLDER}/ for mlstack's own files; Git ignores it.")
    return done


def git_top(root: Path) -> Path | None:
    """Return the top of the Git repository that `root` lies in, None if there is none."""
    done = _run_git(root, "rev-parse", "--show-toplevel")
    return Path(os.path.realpath(done.stdout.strip())) if done.returncode == 0 else None


def _init_dvc(root: Path, *, is_subfolder: bool) -> str:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repository: Any = Repo.init(str(root), subdir=is_subfolder)
        with repository.config.edit() as settings:
            settings["core"]["analytics"] = False
        repository.close()
    except (DvcException, OSError) as error:
        raise MlstackError(_not_made(str(error))) from error
    _git(root, "add", "--", ".dvc/config")
    how = "dvc init --subdir" if is_subfolder else "dvc init"
    return f"Made a DVC project ({how}), without usage statistics; `git commit` it."


def _write_own_ignore(root: Path) -> bool:
    file = root / OWN_FOLDER / ".gitignore"
    if file.exists():
        return False
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_durably(file, b"*\n")
    return True


def _git(root: Path, *arguments: str) -> None:
    done = _run_git(root, *arguments)
    if done.returncode != 0:
        raise MlstackError(_git_failed(arguments[0], done.stderr.strip()))


def _run_git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError as error:
        raise MlstackError(_no_git()) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MlstackError(_git_failed(arguments[0], str(error))) from error


def _no_git() -> Diagnostic:
    return Diagnostic(
        code="git-missing",
        summary="Git is not installed",
        detail="There is no `git` on the PATH; mlstack works through Git.",
        hint="Install it with the package manager of this machine, then run `mlstack init` again.",
    )


def _git_failed(what: str, reason: str) -> Diagnostic:
    return Diagnostic(
        code="git-failed",
        summary="Git gave an error",
        detail=f"git {what}: {reason}",
        hint="Run the same command by hand to see more.",
    )


def _not_made(reason: str) -> Diagnostic:
    return Diagnostic(
        code="dvc-not-initialised",
        summary="The DVC project cannot be made",
        detail=reason,
        hint="Correct what DVC says, then run `mlstack init` again; it goes on where it stopped.",
    )
