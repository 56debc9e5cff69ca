"""What Git says about the project folder right now: commit, branch, what is not committed.

One or two quick calls of the git program. It is told to run nothing that the repository's own configuration could name:
no file system monitor, no hooks, no pager, no locks, no fetching of missing objects.
"""

import posixpath
import subprocess
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment

_TIMEOUT = 60.0


class GitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The repository around the project folder.

    `root` is its top folder. `commit` is None before the first commit, `branch` None when HEAD is detached. `dirty` are
    changed, staged, conflicted and untracked paths, relative to the project folder (a folder that is untracked as a
    whole stands for its files, with a slash at its end).
    """

    root: Path
    commit: str | None
    branch: str | None
    dirty: tuple[str, ...]
    shallow: bool

    @property
    def detached(self) -> bool:
        """Whether HEAD points at a commit and not at a branch."""
        return self.branch is None

    @property
    def has_commit(self) -> bool:
        """Whether there is any commit yet."""
        return self.commit is not None


def read_git_facts(root: Path) -> GitFacts | None:
    """Return what Git says about the folder `root`; None when it is in no repository (or there is no git at all).

    Raises `MlstackError` for a repository that git refuses to read, that has no working tree, or whose git is missing.
    """
    try:
        place = git_says(root, "rev-parse", "--is-bare-repository", "--is-shallow-repository", "--show-toplevel")
        if place is None:
            return None
        status = git_says(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal")
    except FileNotFoundError:
        if not any((folder / ".git").exists() for folder in (root, *root.absolute().parents)):
            return None
        raise MlstackError(
            Diagnostic(
                code="git-missing",
                summary="git is not installed",
                detail=f"{root} is in a Git repository, but there is no `git` on the PATH.",
                hint="Install Git, then look again.",
                command="mlstack doctor",
            )
        ) from None
    if status is None:
        return None
    _, shallow, top = place.decode("utf-8", "surrogateescape").split("\n")[:3]
    return _parse_status(status, top=Path(top), root=root, shallow=shallow == "true")


def git_says(root: Path, *arguments: str) -> bytes | None:
    """Return what git writes; None outside of a repository. Raises `MlstackError` when it refuses or hangs."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env=safe_environment(),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MlstackError(
            Diagnostic(
                code="git-hangs",
                summary="git does not answer",
                detail=f"`git {arguments[0]}` in {root} took longer than {_TIMEOUT:.0f} seconds.",
            )
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace").strip()
    if "not a git repository" in said:
        return None
    raise MlstackError(_refusal(root, said))


def _refusal(root: Path, said: str) -> Diagnostic:
    if "dubious ownership" in said:
        return Diagnostic(
            code="git-dubious-ownership",
            summary="The repository belongs to another user",
            detail=f"git refuses to read the repository at {root}, because the folder belongs to somebody else.",
            hint="If you trust it, say so once:",
            command=f"git config --global --add safe.directory {_top_of(root)}",
        )
    if "work tree" in said or "safe.bareRepository" in said:
        return Diagnostic(
            code="git-bare",
            summary="The repository has no working tree",
            detail=f"{root} is inside a bare repository (or inside .git). mlstack works on files that are checked out.",
            hint="Clone the repository and work in the clone.",
        )
    return Diagnostic(
        code="git-failed",
        summary="git cannot read the repository",
        detail=f"In {root}, git says: {said or 'nothing'}",
    )


def _top_of(root: Path) -> Path:
    return next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)


def _parse_status(status: bytes, *, top: Path, root: Path, shallow: bool) -> GitFacts:
    """Read `git status --porcelain=v2 -z`, whose paths are relative to the top folder."""
    commit: str | None = None
    branch: str | None = None
    paths: list[str] = []
    records = iter(status.decode("utf-8", "surrogateescape").split("\0"))
    for record in records:
        kind = record[:1]
        if record.startswith("# branch.oid "):
            commit = None if record.endswith("(initial)") else record.rpartition(" ")[2]
        elif record.startswith("# branch.head "):
            name = record.removeprefix("# branch.head ")
            branch = None if name == "(detached)" else name
        elif kind == "1":
            paths.append(record.split(" ", 8)[8])
        elif kind == "2":
            paths.append(record.split(" ", 9)[9])
            paths.append(next(records, ""))
        elif kind == "u":
            paths.append(record.split(" ", 10)[10])
        elif kind == "?":
            paths.append(record[2:])
    inside = posixpath.relpath(root.resolve().as_posix(), top.resolve().as_posix())
    dirty = tuple(sorted({_relative(path, inside) for path in paths if path}))
    return GitFacts(root=top, commit=commit, branch=branch, dirty=dirty, shallow=shallow)


def _relative(path: str, inside: str) -> str:
    found = posixpath.relpath(path, inside)
    return f"{found}/" if path.endswith("/") else found
