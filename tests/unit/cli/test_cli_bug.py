"""Bug reports: for their writer alone, and never through a link that came with the folder."""

import tempfile
from pathlib import Path

import pytest

from mlstack.cli.bug import write_bug_report
from mlstack.cli.settings import Globals


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    project, temporary = tmp_path / "project", tmp_path / "temporary"
    project.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return project, temporary


def test_only_the_writer_may_read_it_and_it_holds_no_values(places: tuple[Path, Path]) -> None:
    (places[0] / ".mlstack").mkdir()
    token = "s3cr3t-value"  # a local variable, as a traceback with locals would show it
    path = write_bug_report(Globals(directory=places[0]), ValueError("no secret here"))
    assert path is not None
    assert path.parent == places[0] / ".mlstack"
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()


def test_link_is_not_followed(places: tuple[Path, Path]) -> None:
    elsewhere = places[0].parent / "elsewhere"
    elsewhere.mkdir()
    (places[0] / ".mlstack").symlink_to(elsewhere)
    path = write_bug_report(Globals(directory=places[0]), ValueError("x"))
    assert path is not None
    assert path.parent == places[1]
    assert list(elsewhere.iterdir()) == []
