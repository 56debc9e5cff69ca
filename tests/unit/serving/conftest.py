"""A small project with a model in DVC's cache, and the real driver with real server processes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlstack.drivers.local.endpoint_process import birth_of, servers_below, stop_process
from tests.unit.serving.serving_project import Project, ask_server


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's packages are laid down once for all tests of a worker."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_home: Path) -> Iterator["Project"]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))
    made = Project(tmp_path / "project")
    yield made
    for pid in servers_below(made.root):
        birth = birth_of(pid)
        if birth is not None:
            stop_process(pid, birth, grace=1)


@pytest.fixture
def ask() -> Callable[..., tuple[int, Any]]:
    """Asks a server and returns status and JSON."""
    return ask_server


@pytest.fixture(autouse=True)
def _no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", os.environ.get("PYTHONDONTWRITEBYTECODE", ""))
