"""A project with real Git. What DVC is needed for is in tests/contract; without it a test takes a tenth of the time."""

from pathlib import Path

import pytest

from tests.unit.dvc.dvc_project import Project, environment


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    home = tmp_path / "home"
    home.mkdir()
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "project"
    root.mkdir()
    found = Project(root, home)
    found.git("init", "-q", "-b", "main")
    found.git("config", "user.email", "a@example.org")
    found.git("config", "user.name", "A")
    found.write(".mlstack/.gitignore", "*\n")
    return found
