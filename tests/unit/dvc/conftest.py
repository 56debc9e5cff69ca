"""A fresh project for each test."""

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
    return Project(root, home).start()
