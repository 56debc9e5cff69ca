"""The runner as it is laid beside an image, and a remote in a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlstack.drivers.remote_run.overlay import ensure_runner_overlay
from tests.unit.runner.runner_place import Place


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return ensure_runner_overlay(say=print)


@pytest.fixture
def place(tmp_path: Path, overlay: Path) -> Iterator[Place]:
    found = Place(tmp_path, overlay)
    yield found
    found.end_all()
