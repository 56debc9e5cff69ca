"""What DVC holds is kept out of Git: `.gitignore` beside each output, in the form that DVC writes."""

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.documents import write_durably
from mlstack.graph.safe_git import safe_environment
from mlstack.spec.address import Address
from mlstack.spec.plain_files import read_plain

_SPECIAL = "\\[]!*#?"


def check_untracked(root: Path, paths: Mapping[str, Address]) -> tuple[Diagnostic, ...]:
    """Return an error for each path (relative to `root`) that Git tracks: DVC refuses such outputs."""
    if not paths:
        return ()
    listed = _git(root, ["ls-files", "-z", "--", *(f":(literal){path}" for path in paths)])
    tracked = {path for path in listed.split("\0") if path}
    clashes = {path for path in paths if path in tracked or any(other.startswith(f"{path}/") for other in tracked)}
    return tuple(_tracked(path, paths[path]) for path in sorted(clashes))


def ignore(root: Path, paths: Iterable[str]) -> list[str]:
    """Have Git ignore these paths; return the `.gitignore` files that changed. Outside of a repository: nothing."""
    waiting = sorted(set(paths))
    if not waiting or not _is_repository(root):
        return []
    asked = "".join(f"{path}\0" for path in waiting)
    ignored = set(_git(root, ["check-ignore", "-z", "--no-index", "--stdin"], given=asked, may_fail=True).split("\0"))
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in waiting:
        if path not in ignored:
            folder, _, name = path.rpartition("/")
            by_folder[folder].append(name)
    written = []
    for folder, names in sorted(by_folder.items()):
        file = f"{folder}/.gitignore" if folder else ".gitignore"
        if _add_lines(root, file, [f"/{_escape(name)}" for name in names]):
            written.append(file)
    return written


def _add_lines(root: Path, file: str, lines: list[str]) -> bool:
    try:
        text = os.fsdecode(read_plain(root, file))  # Git reads bytes; what is no text is kept
    except FileNotFoundError:
        text = ""
    present = set(text.splitlines())
    missing = [line for line in lines if line not in present]
    if not missing:
        return False
    separator = "" if not text or text.endswith("\n") else "\n"
    added = "\n".join(missing)
    write_durably(root / file, os.fsencode(f"{text}{separator}{added}\n"))
    return True


def _escape(name: str) -> str:
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in name)


def _is_repository(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def _git(root: Path, arguments: list[str], *, given: str = "", may_fail: bool = False) -> str:
    if not _is_repository(root):
        return ""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=root,
            env=safe_environment(),
            input=given.encode(),
            capture_output=True,
            check=False,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MlstackError(_git_failed(arguments[0], str(error))) from error
    if done.returncode != 0 and not may_fail:
        raise MlstackError(_git_failed(arguments[0], done.stderr.decode(errors="replace").strip()))
    return os.fsdecode(done.stdout)


def _tracked(path: str, address: Address) -> Diagnostic:
    return Diagnostic(
        code="output-in-git",
        summary="Git tracks a path that DVC is to hold",
        detail=f"{path} of {address} is tracked by Git. Nothing was written.",
        hint="Stop tracking it (the file stays), and commit that; or keep the output in Git with `cache: false`.",
        command=f"git rm -r --cached {path}",
        address=address,
    )


def _git_failed(what: str, detail: str) -> Diagnostic:
    return Diagnostic(
        code="git-failed",
        summary="Git gave an error",
        detail=f"git {what}: {detail}",
        hint="Run the same command by hand to see more.",
    )
