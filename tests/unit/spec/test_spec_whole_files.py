"""Files that are there whole or not at all, and where what is not whole yet waits."""

import errno
import os
from pathlib import Path

import pytest

from mlstack.spec import whole_files
from mlstack.spec.whole_files import make_cache_folder, remove_leftovers, waiting_folders, waiting_name, write_whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project" / ".mlstack").mkdir(parents=True)
    return tmp_path / "project"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where each content waited."""
    seen: list[Path] = []
    write = whole_files._write

    def remember(path: Path, content: bytes, mode: int | None) -> None:
        seen.append(path.parent)
        write(path, content, mode)

    monkeypatch.setattr(whole_files, "_write", remember)
    return seen


def test_content_waits_where_nobody_meets_it(root: Path, waited: list[Path]) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    for path in (root / "a.txt", root / "deep" / "er" / "b.txt"):
        write_whole(path, b"one")
        path.chmod(0o640)
        write_whole(path, b"two")
        assert path.read_bytes() == b"two"
        assert path.stat().st_mode & 0o777 == 0o640, "the mode stays"
    write_whole(root / "secret", b"", mode=0o600)
    assert (root / "secret").stat().st_mode & 0o777 == 0o600
    assert set(waited) == {root / ".mlstack" / "tmp"}
    assert list((root / ".mlstack" / "tmp").iterdir()) == []


def test_beside_the_file_where_there_is_no_folder_of_ones_own(tmp_path: Path, waited: list[Path]) -> None:
    write_whole(tmp_path / "plan", b"x")
    assert waited == [tmp_path]
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_beside_the_file_on_another_file_system(
    root: Path, waited: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path.parent.name == "tmp":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    write_whole(root / "a.txt", b"one")
    assert waited == [root / ".mlstack" / "tmp", root]
    assert (root / "a.txt").read_bytes() == b"one"
    assert not [path for path in root.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("link", [".mlstack", ".mlstack/tmp"])
def test_a_link_of_a_branch_is_not_followed(root: Path, tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "theirs").touch()
    if link == ".mlstack":
        (root / ".mlstack").rmdir()
    (root / link).symlink_to(elsewhere)
    assert list(waiting_folders(root)) == []
    remove_leftovers(root)
    assert [path.name for path in elsewhere.iterdir()] == ["theirs"]


def test_a_failure_leaves_what_was_there_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(root / "a.txt", b"one")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(root / "a.txt", b"two")
    assert (root / "a.txt").read_bytes() == b"one"
    assert list((root / ".mlstack" / "tmp").iterdir()) == []


def test_git_ignores_a_cache_before_anything_is_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        make_cache_folder(tmp_path / ".mlstack" / "cache")
    assert (tmp_path / ".mlstack" / ".gitignore").read_text() == "*\n"
    make_cache_folder(tmp_path / "elsewhere" / "cache")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["cache"]
    (tmp_path / "other" / ".mlstack").mkdir(parents=True)
    (tmp_path / "other" / ".mlstack" / ".gitignore").symlink_to(tmp_path / "not-there")
    make_cache_folder(tmp_path / "other" / ".mlstack" / "cache")
    assert not (tmp_path / "not-there").exists(), "a link of a branch is not followed"


def test_leftovers_of_the_killed_go_when_they_are_old(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (waiting,) = waiting_folders(root)
    (waiting / waiting_name()).write_text("half")
    (waiting / waiting_name() / "in").mkdir(parents=True)
    remove_leftovers(root)
    assert len(list(waiting.iterdir())) == 2, "somebody may be writing this"
    monkeypatch.setattr(whole_files, "_LEFTOVER_AGE", -60.0)
    remove_leftovers(root)
    assert list(waiting.iterdir()) == []
