"""Every version of the files that record contents (`dvc.lock`, `*.dvc`), in all that Git keeps.

Branches, remote-tracking branches, tags, stashes and other refs with their history; the index and the files of every
worktree, also of commits that only a state names. A version that cannot be read is an error: who collects garbage must
not take "unreadable" for "unused".
"""

import os
import re
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment

_NAMES = (b"dvc.lock", b"Dvcfile", b".dvc")
_PATHS = (":(top,glob)**/dvc.lock", ":(top,glob)**/Dvcfile", ":(top,glob)**/?*.dvc")
_NOT_IN = ("**/.dvc/cache/", "**/.dvc/tmp/", ".mlstack/")
_OBJECT = re.compile(rb"[0-9a-f]{40,64}")


class RecordFiles(msgspec.Struct, frozen=True, kw_only=True):
    """`contents` are the distinct versions. The rest says where they were looked for, for people."""

    contents: tuple[bytes, ...]
    branches: int
    tags: int
    stashes: int
    commits: int
    worktrees: tuple[Path, ...]


def read_record_files(root: Path, *, also: Collection[str] = (), since: float | None = None) -> RecordFiles:
    """Return what all of Git's history records, of the whole repository around `root`.

    `also` are further commits, those that are not in this clone are left out. With `since` (seconds since the epoch)
    older commits count only where a ref, a worktree or `also` names them. Raises `MlstackError` for history that is not
    there as a whole: a shallow or partial clone, a damaged object.
    """
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise MlstackError(_shallow(root))
    refs = [
        line.split(b" ", 1) for line in _git(root, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    ]
    stashes = _stashes(root) if any(name == b"refs/stash" for _, name in refs) else []
    worktrees = _worktrees(root)
    given = [*stashes, *_known(root, also)]
    dated = [
        line.split() for line in _git(root, "rev-list", "--all", "--timestamp", "--stdin", given=given).splitlines()
    ]
    commits = [name for when, name in dated if since is None or int(when) > since]
    if since is None:
        listing = _git(root, "rev-list", "--objects", "--full-history", "--all", "--stdin", "--", *_PATHS, given=given)
    else:
        heads = [head for tree in worktrees for head in _known(tree, ["HEAD"])]
        tips = [*(name for name, _ in refs), *heads, *given, *commits]
        listing = _git(root, "rev-list", "--objects", "--no-walk", "--stdin", "--", *_PATHS, given=tips)
    blobs = set(_recording(listing))
    contents: set[bytes] = set()
    for tree in worktrees:
        blobs |= {line.split(b" ", 2)[1] for line in _listed(tree, "--stage")}
        contents |= set(_files(tree))
    contents |= set(_read(root, sorted(blobs)))
    return RecordFiles(
        contents=tuple(sorted(contents)),
        branches=sum(name.startswith((b"refs/heads/", b"refs/remotes/")) for _, name in refs),
        tags=sum(name.startswith(b"refs/tags/") for _, name in refs),
        stashes=len(stashes),
        commits=len(set(commits)),
        worktrees=tuple(worktrees),
    )


def _stashes(root: Path) -> list[bytes]:
    """Return all stashes: the ref names the newest, the others are in its log."""
    return _git(root, "rev-list", "--walk-reflogs", "refs/stash").split()


def _known(root: Path, names: Collection[str]) -> list[bytes]:
    """Return the objects of those names that this clone knows."""
    asked = [name.encode() for name in names if name and "\n" not in name]
    if not asked:
        return []
    answers = _git(root, "cat-file", "--batch-check=%(objectname)", given=asked).splitlines()
    return [answer for answer in answers if _OBJECT.fullmatch(answer)]


def _worktrees(root: Path) -> list[Path]:
    """Return the working trees of this repository that are there; of one on another disk Git still knows the HEAD."""
    lines = _git(root, "worktree", "list", "--porcelain").splitlines()
    found = [Path(os.fsdecode(line.removeprefix(b"worktree "))) for line in lines if line.startswith(b"worktree ")]
    return [tree for tree in found if (tree / ".git").exists()]


def _recording(listing: bytes) -> Iterator[bytes]:
    for line in listing.split(b"\n"):
        name, _, path = line.partition(b" ")
        if path.endswith(_NAMES) and _OBJECT.fullmatch(name):
            yield name


def _listed(tree: Path, *options: str) -> list[bytes]:
    return _git(tree, "ls-files", "-z", *options, "--", *_PATHS).split(b"\0")[:-1]


def _files(tree: Path) -> Iterator[bytes]:
    """Read what lies in a working tree, ignored files too. A link is not followed: DVC writes none."""
    for name in dict.fromkeys(_listed(tree, "--cached", "--others", *(f"--exclude={each}" for each in _NOT_IN))):
        path = tree / os.fsdecode(name)
        if path.is_file() and not path.is_symlink():
            try:
                yield path.read_bytes()
            except OSError as error:
                raise MlstackError(_unreadable(tree, f"{path}: {error.strerror or error}")) from error


def _read(root: Path, blobs: Collection[bytes]) -> Iterator[bytes]:
    """Read objects, those of a kind that are no files left out."""
    answer = memoryview(_git(root, "cat-file", "--batch", given=blobs))
    place = 0
    while place < len(answer):
        end = bytes(answer[place : place + 200]).index(b"\n")
        name, kind, *size = bytes(answer[place : place + end]).split(b" ")
        if not size:  # `<name> missing`
            raise MlstackError(_incomplete(root, name.decode()))
        place += end + 1
        if kind == b"blob":
            yield bytes(answer[place : place + int(size[0])])
        place += int(size[0]) + 1


def _git(folder: Path, *arguments: str, given: Collection[bytes] = ()) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=safe_environment(),
            input=b"".join(line + b"\n" for line in given),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise MlstackError(_unreadable(folder, str(error))) from error
    if done.returncode != 0:
        raise MlstackError(_unreadable(folder, os.fsdecode(done.stderr).strip()))
    return done.stdout


def _shallow(root: Path) -> Diagnostic:
    return Diagnostic(
        code="history-shallow",
        summary="This clone does not have the whole history",
        detail=f"{root} is a shallow clone: what its other commits, branches and tags refer to is not known here.",
        hint="Fetch the rest, or collect garbage in a clone that has it:",
        command="git fetch --unshallow --tags",
    )


def _incomplete(root: Path, name: str) -> Diagnostic:
    return Diagnostic(
        code="history-incomplete",
        summary="A part of the history is not in this clone",
        detail=f"{root}: Git's object {name} is missing (a partial clone, or a damaged one), and so what it refers to.",
        hint="Collect garbage in a clone that has everything; this says whether one is whole:",
        command="git fsck --connectivity-only",
    )


def _unreadable(folder: Path, reason: str) -> Diagnostic:
    return Diagnostic(
        code="history-unreadable",
        summary="Git's history cannot be read as a whole",
        detail=f"{folder}: {reason or 'git says nothing'}",
        hint="Nothing was removed: what cannot be read may be in use.",
        command="git fsck --connectivity-only",
    )
