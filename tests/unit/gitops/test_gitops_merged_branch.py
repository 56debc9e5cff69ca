"""Which branch pull requests are merged to, as Git and the CI system say it."""

import json
import subprocess
from pathlib import Path

import pytest

from mlstack.gitops.facts import read_git_facts
from mlstack.gitops.merged_branch import merged_branch


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository whose default branch is called trunk."""
    place = tmp_path / "origin"
    place.mkdir()
    git(place, "init", "-q", "-b", "trunk")
    git(place, "commit", "-q", "--allow-empty", "-m", "x")
    git(place, "branch", "main")
    return place


@pytest.fixture
def clone(tmp_path: Path, origin: Path) -> Path:
    """A clone as a person has it: Git knows the remote's default branch."""
    git(tmp_path, "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


@pytest.fixture
def checkout(tmp_path: Path, origin: Path) -> Path:
    """What CI systems make: the remote was fetched, its default branch is not known, the commit is detached."""
    place = tmp_path / "checkout"
    place.mkdir()
    git(place, "init", "-q")
    git(place, "remote", "add", "origin", str(origin))
    git(place, "fetch", "-q", "origin")
    git(place, "symbolic-ref", "-d", "refs/remotes/origin/HEAD") if (
        place / ".git/refs/remotes/origin/HEAD"
    ).exists() else None
    git(place, "checkout", "-q", "--detach", "origin/trunk")
    return place


def named(folder: Path, **variables: str) -> str | None:
    facts = read_git_facts(folder)
    assert facts is not None
    return merged_branch(facts, variables=variables)


def test_in_a_clone_git_knows(clone: Path) -> None:
    assert named(clone) == "trunk"
    git(clone, "checkout", "-q", "main")
    assert named(clone) is None
    git(clone, "checkout", "-q", "--detach", "trunk")
    assert named(clone) is None


def test_without_a_remote_nobody_merges(origin: Path) -> None:
    assert named(origin) is None
    assert named(origin, CI="1", GITHUB_REF="refs/heads/trunk", CI_DEFAULT_BRANCH="trunk") is None


def test_ci_says_what_git_does_not_know(checkout: Path, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"repository": {"default_branch": "trunk", "id": 1}, "ref": "x"}))
    github = {"CI": "true", "GITHUB_REF": "refs/heads/trunk", "GITHUB_EVENT_PATH": str(event)}
    assert named(checkout, **github) == "trunk"
    assert named(checkout, **{**github, "GITHUB_REF": "refs/pull/7/merge"}) is None
    assert named(checkout, **{**github, "GITHUB_REF": "refs/heads/main"}) is None
    assert named(checkout, CI="true", CI_COMMIT_BRANCH="trunk", CI_DEFAULT_BRANCH="trunk") == "trunk"
    assert named(checkout, CI="true", CI_DEFAULT_BRANCH="trunk") is None, "a pipeline of a merge request"


@pytest.mark.parametrize("event", ["", "[]", '{"repository": 3}', None])
def test_an_event_that_cannot_be_read_leaves_the_usual_name(checkout: Path, tmp_path: Path, event: str | None) -> None:
    place = tmp_path / "event.json"
    if event is not None:
        place.write_text(event)
    variables = {"CI": "true", "GITHUB_EVENT_PATH": str(place)}
    assert named(checkout, **variables, GITHUB_REF="refs/heads/main") == "main"
    assert named(checkout, **variables, GITHUB_REF="refs/heads/trunk") is None
    assert named(checkout, GITHUB_REF="refs/heads/main") is None, "outside of CI nothing is guessed"
