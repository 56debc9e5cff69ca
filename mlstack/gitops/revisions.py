"""Files at other commits, read out of Git's objects; the working tree is never touched and no hook runs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment

if TYPE_CHECKING:
    from git import Repo

_LINK = 0o120000


class BaseRevision(msgspec.Struct, frozen=True, kw_only=True):
    """What a branch is compared with: `commit`, and how it was found ("merge base with origin/main")."""

    commit: str
    found: str


def resolve_revision(root: Path, revision: str) -> str:
    """Return the commit (40 hex digits) that a tag, branch, commit or expression like `HEAD~2` stands for.

    Raises `MlstackError` when there is no such revision, or no repository.
    """
    with open_repository(root) as repository:
        return _resolve(repository, revision)


def read_file_at(root: Path, revision: str, path: str) -> bytes | None:
    """Return the content of `path` (relative to the folder `root`) at `revision`; None if there was no such file.

    Raises `MlstackError` when there is no such revision.
    """
    return read_files_at(root, revision, (path,))[path]


def read_files_at(root: Path, revision: str, paths: tuple[str, ...]) -> dict[str, bytes | None]:
    """Return the content of several files at one revision; None for each that was not there."""
    with open_repository(root) as repository:
        tree = repository.commit(_resolve(repository, revision)).tree
        prefix = _prefix(repository, root)
        return {path: _read(tree, _join(prefix, path)) for path in paths}


def list_files_at(root: Path, revision: str, *, ending: str) -> tuple[str, ...]:
    """Return the files below `root` at `revision` whose names end in `ending`, relative to `root`, sorted."""
    with open_repository(root) as repository:
        prefix = _prefix(repository, root)
        commit = _resolve(repository, revision)
        listed = repository.git.ls_tree("-r", "-z", "--name-only", commit, stdout_as_string=False)
        names = listed.decode("utf-8", "surrogateescape").split("\0")
        head = f"{prefix}/" if prefix else ""
        return tuple(sorted(n.removeprefix(head) for n in names if n.startswith(head) and n.endswith(ending)))


def base_revision(root: Path) -> BaseRevision:
    """Return what the current branch grew from: the merge base with the default branch, else HEAD.

    Raises `MlstackError` when there is no commit yet.
    """
    with open_repository(root) as repository:
        head = _resolve(repository, "HEAD")
        for name in _default_branches(repository):
            try:
                other = _resolve(repository, name)
            except MlstackError:
                continue
            bases = repository.merge_base(head, other)
            if bases and bases[0] is not None and bases[0].hexsha != head:
                return BaseRevision(
                    commit=bases[0].hexsha, found=f"merge base with {name.removeprefix('refs/remotes/')}"
                )
            break
        return BaseRevision(commit=head, found="HEAD")


def describe_commit(root: Path, commit: str) -> str:
    """Return `1a2b3c4 Fix the split (2026-01-31)` for a commit."""
    with open_repository(root) as repository:
        found = repository.commit(commit)
        summary = found.summary if isinstance(found.summary, str) else found.summary.decode("utf-8", "replace")
        return f"{found.hexsha[:8]} {summary} ({found.committed_datetime:%Y-%m-%d})"


@contextmanager
def open_repository(root: Path) -> "Iterator[Repo]":
    """Open the repository around `root` for reading. Raises `MlstackError` when there is none."""
    try:
        import git
    except ImportError as error:  # GitPython looks for the git program while it is imported
        raise MlstackError(
            Diagnostic(code="git-missing", summary="git is not installed", detail=str(error), command="mlstack doctor")
        ) from error
    try:
        repository = git.Repo(root, search_parent_directories=True)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        raise MlstackError(
            Diagnostic(
                code="no-git-repository",
                summary="Not a Git repository",
                detail=f"{root} is not inside a Git repository, so there are no other versions of its files.",
                hint="Make one:",
                command="mlstack init",
            )
        ) from None
    try:
        repository.git.update_environment(**safe_environment())
        yield repository
    finally:
        repository.close()


def _resolve(repository: "Repo", revision: str) -> str:
    import git

    if not revision or revision.startswith("-") or "\0" in revision or "\n" in revision:
        raise MlstackError(_unknown(revision, shallow=False))
    try:
        return str(repository.git.rev_parse("--verify", "--quiet", f"{revision}^{{commit}}"))
    except git.GitCommandError as error:
        said = str(error.stderr)
        if "dubious ownership" in said:
            from mlstack.gitops.facts import read_git_facts

            read_git_facts(Path(repository.working_dir))  # raises with the way out
        if revision == "HEAD":
            raise MlstackError(
                Diagnostic(
                    code="no-commit",
                    summary="There is no commit yet",
                    detail="The repository has no commit that could be read or compared with.",
                    command='git add -A && git commit -m "Begin"',
                )
            ) from None
        shallow = repository.git.rev_parse("--is-shallow-repository") == "true"
        raise MlstackError(_unknown(revision, shallow=shallow)) from None


def _unknown(revision: str, *, shallow: bool) -> Diagnostic:
    return Diagnostic(
        code="unknown-revision",
        summary="There is no such revision",
        detail=f"Git knows no tag, branch or commit {revision!r}."
        + (" This clone is shallow: older commits are not in it." if shallow else ""),
        hint="Fetch the rest of the history:" if shallow else "`git tag` and `git log` list what there is.",
        command="git fetch --unshallow --tags" if shallow else "",
    )


def _default_branches(repository: "Repo") -> Iterator[str]:
    import git

    with suppress(git.GitCommandError):
        yield str(repository.git.symbolic_ref("--quiet", "refs/remotes/origin/HEAD"))
    yield from ("origin/main", "origin/master", "main", "master")


def _prefix(repository: "Repo", root: Path) -> str:
    if repository.working_tree_dir is None:
        return ""
    relative = root.resolve().relative_to(Path(repository.working_tree_dir).resolve()).as_posix()
    return "" if relative == "." else relative


def _join(prefix: str, path: str) -> str:
    import posixpath

    return posixpath.normpath(posixpath.join(prefix, path))


def _read(tree: "object", path: str) -> bytes | None:
    from git import Blob, Tree

    if not isinstance(tree, Tree) or path.startswith("../"):
        return None
    try:
        found = tree / path
    except KeyError:
        return None
    if not isinstance(found, Blob) or found.mode == _LINK:
        return None
    return bytes(found.data_stream.read())
