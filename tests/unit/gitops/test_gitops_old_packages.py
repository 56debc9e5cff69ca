"""The packages that an environment had before, from the history of its lock file."""

import subprocess
from pathlib import Path

import pytest

from mlstack.gitops.old_packages import differing_packages, find_packages_of
from mlstack.graph.packages import digest_packages
from mlstack.graph.requirements import resolve_requirements
from mlstack.graph.sources import EnvironmentIdentity

HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    root = tmp_path / "repository"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def lock(root: Path, *packages: str) -> EnvironmentIdentity:
    text = "".join(f"{package} {HASH}\n" for package in packages)
    (root / "requirements.txt").write_text(text)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", "commit", "-qm", "x", "--allow-empty"], cwd=root, check=True)
    resolution = resolve_requirements("requirements.txt", lambda _path: text)
    assert not resolution.diagnostics
    names = {package.name: package.version for package in resolution.packages}
    digest = digest_packages("3.11", resolution.packages)
    return EnvironmentIdentity(digest=digest, python="3.11", packages=names, lock="requirements.txt")


def test_packages_before(root: Path) -> None:
    old = lock(root, "numpy==1.0", "gone==2")
    lock(root, "numpy==1.5")
    now = lock(root, "numpy==2.0", "new==1")
    before = find_packages_of(root, now, digest=old.digest)
    assert before == {"numpy": "1.0", "gone": "2"}
    assert differing_packages(before, now.packages) == [
        "gone 2 -> not there",
        "new not there -> 1",
        "numpy 1.0 -> 2.0",
    ]
    assert find_packages_of(root, now, digest="0" * 64) is None


def test_no_history_and_no_lock(tmp_path: Path) -> None:
    now = EnvironmentIdentity(digest="d", python="3.11", lock="requirements.txt")
    assert find_packages_of(tmp_path, now, digest="e") is None
    assert find_packages_of(tmp_path, EnvironmentIdentity(digest="system"), digest="e") is None
