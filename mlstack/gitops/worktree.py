"""A commit checked out beside the working tree, for as long as somebody needs it, and gone afterwards.

It is Git's own worktree, in a folder below `.mlstack/worktrees/`. One whose owner was killed is found and removed by
the next command that makes one.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment
from mlstack.state.environment_folder import OWN_FOLDER, ensure_own_folder
from mlstack.state.identity import host_name, is_running, new_id, process_started

FOLDER = "worktrees"
_LOCK = "worktrees.lock"
_OWNER, _TREE, _SCRATCH = "owner.json", "tree", "scratch"
_SUBMODULE = "160000"


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """One commit in a folder of its own. `root` is the project's folder in there, `scratch` room for whatever else."""

    commit: str
    root: Path
    scratch: Path


class _Owner(msgspec.Struct, frozen=True):
    host: str
    pid: int
    started: float


@contextmanager
def checked_out(root: Path, commit: str, *, before_removal: Callable[[Path], None]) -> Iterator[Checkout]:
    """Check out `commit` (40 hex digits) and remove it at the end. No hook is run.

    `before_removal` is told each folder of a project that is about to be removed, also of worktrees that a killed
    command left behind: what still runs in it is to be ended. Raises `MlstackError` when Git cannot check it out.
    """
    with _changing(root):
        _sweep(root, before_removal)
        home = ensure_own_folder(root) / FOLDER / f"{commit[:12]}-{new_id()}"
        (home / _SCRATCH).mkdir(parents=True, mode=0o700)
        owner = _Owner(host_name(), os.getpid(), process_started(os.getpid()) or 0.0)
        (home / _OWNER).write_bytes(msgspec.json.encode(owner))
    tree = home / _TREE
    try:
        _git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        _fill_submodules(root, tree, commit)
        yield Checkout(commit=commit, root=tree / _inside(root), scratch=home / _SCRATCH)
    finally:
        before_removal(tree / _inside(root))
        _remove(root, home)


def remove_leftovers(root: Path, *, before_removal: Callable[[Path], None]) -> list[str]:
    """Remove checkouts whose owner was killed; return their names. `before_removal` is as for `checked_out`."""
    if not (root / OWN_FOLDER / FOLDER).is_dir():
        return []
    with _changing(root):
        return _sweep(root, before_removal)


@contextmanager
def _changing(root: Path) -> Iterator[None]:
    """Keep out others who make or sweep checkouts: one that is being made has no owner yet."""
    from filelock import FileLock

    with FileLock(ensure_own_folder(root) / _LOCK):
        yield


def _sweep(root: Path, before_removal: Callable[[Path], None]) -> list[str]:
    worktrees, inside = root / OWN_FOLDER / FOLDER, _inside(root)
    removed = []
    for home in sorted(worktrees.iterdir()) if worktrees.is_dir() else ():
        try:
            owner = decoding.decode((home / _OWNER).read_bytes(), _Owner)
        except (OSError, msgspec.DecodeError):
            owner = None
        if owner is None or (owner.host == host_name() and not is_running(owner.pid, owner.started)):
            before_removal(home / _TREE / inside)
            _remove(root, home)
            removed.append(home.name)
    return removed


def _remove(root: Path, home: Path) -> None:
    """Remove a checkout. What can not be removed now is left for the next time."""
    for folder, folders, _ in os.walk(home):
        for path in (Path(folder, name) for name in folders):
            if not path.is_symlink():
                with suppress(OSError):  # stages may have made folders read-only
                    path.chmod(0o700)
    shutil.rmtree(home, ignore_errors=True)
    with suppress(MlstackError):
        _git(root, "worktree", "prune")


def _fill_submodules(root: Path, tree: Path, commit: str) -> None:
    """Put the files of submodules in place, from the objects that their checkouts here have; nothing is fetched."""
    listed = _git(tree, "ls-tree", "-r", "-z", commit).decode("utf-8", "surrogateescape")
    top = _top(root)
    lacking = []
    for line in filter(None, listed.split("\0")):
        head, _, path = line.partition("\t")
        mode, _, recorded = head.split(" ")
        if mode == _SUBMODULE and not _unpack(top / path, recorded, tree / path):
            lacking.append(f"{path} at {recorded[:12]}")
    if lacking:
        raise MlstackError(
            Diagnostic(
                code="submodule-missing",
                summary="A submodule of that commit is not on this machine",
                detail=f"{', '.join(lacking)}: the commit needs its files, and no checkout here has them.",
                hint="Fetch it, then try again:",
                command="git submodule update --init --recursive",
            )
        )


def _unpack(submodule: Path, commit: str, target: Path) -> bool:
    import io
    import tarfile

    if not (submodule / ".git").exists():
        return False
    try:
        if _git(submodule, "ls-tree", "-r", commit).find(b"160000 commit") >= 0:
            return False  # a submodule of a submodule
        packed = _git(submodule, "archive", "--format=tar", commit)
    except MlstackError:
        return False
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")
    return True


def _inside(root: Path) -> Path:
    """Return where the project is in its repository."""
    return Path(os.path.realpath(root)).relative_to(_top(root))


def _top(root: Path) -> Path:
    said = _git(root, "rev-parse", "--show-toplevel")
    return Path(os.path.realpath(os.fsdecode(said).rstrip("\n")))


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=safe_environment(),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise MlstackError(_failed(arguments[0], str(error))) from error
    if done.returncode != 0:
        raise MlstackError(_failed(arguments[0], os.fsdecode(done.stderr).strip()))
    return done.stdout


def _failed(what: str, reason: str) -> Diagnostic:
    return Diagnostic(
        code="checkout-failed",
        summary="Git cannot check that commit out",
        detail=f"git {what}: {reason}",
        hint="Run the same command by hand to see more.",
    )
