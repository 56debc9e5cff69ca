"""Whether what is checked out is the branch that pull requests are merged to."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlstack import decoding
from mlstack.gitops.facts import GitFacts, git_says

_USUAL = ("main", "master")
_LARGEST_EVENT = 16 << 20


class _Repository(msgspec.Struct):
    default_branch: str = ""


class _Event(msgspec.Struct):
    repository: _Repository = msgspec.field(default_factory=_Repository)


def merged_branch(facts: GitFacts, *, variables: Mapping[str, str] = os.environ) -> str | None:
    """Return the name of the checked out branch if it is the remote's default one, else None.

    None as well when nobody could merge: a repository without a remote has no pull requests. In CI, where a commit is
    often checked out without its branch and the remote's default is not known to Git, what the CI system says counts.
    """
    in_ci = bool(variables.get("CI"))
    here = facts.branch or (_branch_of_ci(variables) if in_ci else "")
    if not here:
        return None
    said = git_says(facts.root, "for-each-ref", "--format=%(refname) %(symref)", "refs/remotes")
    remote = dict(line.split(" ", 1) for line in (said or b"").decode("utf-8", "surrogateescape").splitlines())
    if not remote:
        return None
    default = (_default_of_ci(variables) if in_ci else "") or _default_of(remote, guess=in_ci)
    return here if here == default else None


def _default_of(remote: Mapping[str, str], *, guess: bool) -> str:
    """Return what the remote's HEAD was when it was cloned; in CI, whose clones leave that out, the usual name."""
    heads = sorted(name for name, target in remote.items() if name.endswith("/HEAD") and target)
    if heads:
        origin = "refs/remotes/origin/HEAD"
        head = origin if origin in heads else heads[0]
        return remote[head].removeprefix(head.removesuffix("HEAD"))
    branches = {name.split("/", 3)[3] for name in remote if name.count("/") >= 3}
    return next((name for name in _USUAL if name in branches), "") if guess else ""


def _branch_of_ci(variables: Mapping[str, str]) -> str:
    """Return the branch that a CI system says it builds (GitHub, GitLab); none for a pull request."""
    ref = variables.get("GITHUB_REF", "")
    if ref.startswith("refs/heads/"):
        return ref.removeprefix("refs/heads/")
    return variables.get("CI_COMMIT_BRANCH", "")


def _default_of_ci(variables: Mapping[str, str]) -> str:
    if named := variables.get("CI_DEFAULT_BRANCH"):
        return named
    event = variables.get("GITHUB_EVENT_PATH")
    try:
        data = Path(event).read_bytes() if event and Path(event).stat().st_size <= _LARGEST_EVENT else b""
        return decoding.decode(data, _Event).repository.default_branch
    except (OSError, msgspec.DecodeError):
        return ""
