"""State and caches that came with the repository are not believed."""

import subprocess
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.gitops.own_folder import check_own_folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "params.mlstack.yaml").write_text("x: 1\n")
    return tmp_path


def add(root: Path, *paths: str) -> None:
    subprocess.run(["git", "add", "-f", *paths], cwd=root, check=True)


def own(root: Path, name: str = ".mlstack") -> None:
    (root / name / "state/local").mkdir(parents=True)
    (root / name / ".gitignore").write_text("*\n")
    (root / name / "state/local/snapshot.json").write_text("{}")


def test_own_folder_of_this_machine_is_fine(repository: Path) -> None:
    check_own_folder(repository)
    own(repository)
    add(repository, "params.mlstack.yaml")
    check_own_folder(repository)


@pytest.mark.parametrize("version", ["2", "4"])
@pytest.mark.parametrize("place", [".", "services/churn"])
def test_own_folder_that_was_committed_is_refused(repository: Path, place: str, version: str) -> None:
    root = repository / place
    root.mkdir(parents=True, exist_ok=True)
    own(root)
    (root / ".mlstack-before").write_text("x")
    subprocess.run(["git", "config", "index.version", version], cwd=repository, check=True)
    add(root, ".mlstack-before", ".mlstack/state/local/snapshot.json")
    with pytest.raises(MlstackError) as error:
        check_own_folder(root)
    assert error.value.diagnostics[0].code == "own-folder-tracked"


def test_link_that_was_committed_is_refused(repository: Path) -> None:
    (repository / ".mlstack").symlink_to("/")
    add(repository, ".mlstack")
    with pytest.raises(MlstackError, match="forged"):
        check_own_folder(repository)


def test_outside_of_a_repository(tmp_path: Path) -> None:
    own(tmp_path)
    check_own_folder(tmp_path)
