"""Projects for the end-to-end tests. Python environments are made once and shared; everything else is per test."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.workspace import Workspace, clean_environment, start_project, without_endpoint

Start = Callable[[str], Workspace]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all workers of one test run: environments are identified by content, so sharing is safe."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "shared-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def start(tmp_path: Path, shared_cache: Path) -> Iterator[Start]:
    """Return a function that makes a project of an example; what the projects have started is stopped at the end."""
    (tmp_path / "home").mkdir()
    environment = clean_environment(tmp_path / "home", shared_cache)
    made: list[Workspace] = []

    def begin(example: str) -> Workspace:
        workspace = start_project(example, tmp_path / f"{example}-{len(made)}", environment)
        made.append(workspace)
        return workspace

    yield begin
    for workspace in made:
        workspace.kill_everything()


@pytest.fixture(scope="session")
def applied_once(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Workspace:
    """The stages of the quickstart, applied and committed: made once, copied by `applied`."""
    folder = tmp_path_factory.mktemp("applied-once")
    (folder / "home").mkdir()
    workspace = start_project("quickstart", folder / "project", clean_environment(folder / "home", shared_cache))
    without_endpoint(workspace)
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("Results")
    return workspace


@pytest.fixture
def applied(applied_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the applied quickstart (without its endpoint) that a test may change as it likes."""
    shutil.copytree(applied_once.root, tmp_path / "project", symlinks=True)
    return Workspace(tmp_path / "project", applied_once.environment)
