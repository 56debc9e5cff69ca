"""What cannot be digested is a diagnostic; what did not change is not read again."""

import inspect
import os
import socket
import sys
from pathlib import Path
from time import time_ns

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.graph import digest as digest_module
from mlstack.graph import hash_cache
from mlstack.graph.digest import Digester, digest_path
from mlstack.graph.hash_cache import HashCache, is_settled
from mlstack.graph.sources import FileDigest


def codes(root: Path, path: str) -> list[str]:
    with pytest.raises(MlstackError) as raised:
        digest_path(root, path)
    return [diagnostic.code for diagnostic in raised.value.diagnostics]


def test_a_file_and_a_folder_of_known_digest(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    found = digest_path(tmp_path, "hello")
    assert found is not None
    assert (found.md5, found.size, found.nfiles) == ("5d41402abc4b2a76b9719d911017c592", 5, None)
    folder = digest_path(tmp_path, "empty")
    assert folder is not None
    assert (folder.md5, folder.size, folder.nfiles) == ("d751713988987e9331980363e24189ce.dir", 0, 0)


def test_nothing_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert digest_path(tmp_path, "missing") is None
    assert digest_path(tmp_path, "missing/inner") is None
    assert digest_path(tmp_path, "file/inner") is None


def test_pipes_and_sockets_do_not_block(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "data" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(tmp_path / "data", os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/s")
        finally:
            os.close(folder)
        assert codes(tmp_path, "pipe") == ["special-file"]
        assert codes(tmp_path, "data") == ["special-file", "special-file"]


def test_a_link_that_leaves_the_project_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "data" / "link").symlink_to("../../secret")
    (root / "data" / "folder").symlink_to("../../outside")
    assert codes(root, "link") == ["path-leaves-project"]
    assert codes(root, "folder") == ["path-leaves-project"]
    assert codes(root, "folder/x") == ["path-leaves-project"]
    assert codes(root, "../secret") == ["path-leaves-project"]
    assert codes(root, "..") == ["path-leaves-project"]
    assert codes(root, "data") == ["path-leaves-project", "path-leaves-project"]


def test_a_link_into_a_shared_dvc_cache_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    stored = tmp_path / "cache" / "files" / "md5" / "5d" / "41402abc4b2a76b9719d911017c592"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"hello")
    (root / "data" / "hello").symlink_to(stored)
    (root / "alone").symlink_to(stored)
    found = digest_path(root, "alone")
    assert found is not None
    assert found.md5 == "5d41402abc4b2a76b9719d911017c592"
    folder = digest_path(root, "data")
    assert folder is not None
    assert folder.nfiles == 1


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "data" / "link").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    assert codes(tmp_path, "link") == ["broken-link"]
    assert codes(tmp_path, "data") == ["broken-link"]
    assert codes(tmp_path, "loop") == ["unreadable-file"]


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # as root every file can be read, so the refusal comes from the call itself
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").write_text("1")
    (tmp_path / "data" / "two").write_text("2")
    real = os.open

    def refuse(path: str, flags: int) -> int:
        if str(path).endswith(("one", "two")):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    assert codes(tmp_path, "data") == ["unreadable-file", "unreadable-file"]
    assert codes(tmp_path, "data/one") == ["unreadable-file"]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    real = os.scandir

    def refuse(path: str) -> object:
        if "inner" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert codes(tmp_path, "data") == ["unreadable-file"]


def test_many_problems_are_shortened(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(30):
        (tmp_path / "data" / f"link{number}").symlink_to("gone")
    found = codes(tmp_path, "data")
    assert found.count("broken-link") == 20
    assert found[-1] == "more-problems"


def test_a_dvcignore_inside_is_refused_as_dvc_does(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".dvcignore").write_text("*.tmp\n")
    assert codes(tmp_path, "data") == ["ignore-file-inside"]


def test_very_deep_folders_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    # the limit is lowered for the test: a folder deeper than the usual one could not be removed by pytest
    (tmp_path / "data" / Path(*["d"] * 200)).mkdir(parents=True)
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = digest_path(tmp_path, "data")
    finally:
        sys.setrecursionlimit(usual)
    assert found is not None
    assert found.nfiles == 0


# ------------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose files are older than any slack."""
    (tmp_path / "data" / "inner").mkdir(parents=True)
    for name in ("one", "two", "inner/three"):
        (tmp_path / "data" / name).write_text(name)
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes are read."""
    real = digest_module._hash_file
    found: list[str] = []

    def count(full: str, stamp: hash_cache.Stamp) -> tuple[str, bool]:
        found.append(Path(full).name)
        return real(full, stamp)

    monkeypatch.setattr(digest_module, "_hash_file", count)
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing takes place ten seconds after the files were written."""
    real = time_ns
    monkeypatch.setattr(digest_module, "time_ns", lambda: real() + 10_000_000_000)


def digest_all(root: Path) -> list[FileDigest | None]:
    cache = HashCache(root / ".cache")
    found = [Digester(root, cache=cache).digest(path) for path in ("data", "data/one")]
    cache.save()
    return found


@pytest.mark.usefixtures("later")
def test_unchanged_files_are_not_read_again(project: Path, reads: list[str]) -> None:
    first = digest_all(project)
    assert sorted(reads) == ["one", "one", "three", "two"]
    reads.clear()
    assert digest_all(project) == first
    assert reads == []


@pytest.mark.usefixtures("later")
def test_only_what_changed_is_read_again(project: Path, reads: list[str]) -> None:
    first = digest_all(project)
    (project / "data" / "two").write_text("TWO!")
    reads.clear()
    second = digest_all(project)
    assert reads == ["two"]
    assert second[0] != first[0]
    assert second[1] == first[1]


@pytest.mark.usefixtures("later")
def test_a_restored_mtime_does_not_hide_a_change(project: Path) -> None:
    first = digest_all(project)
    file = project / "data" / "one"
    status = file.stat()
    file.write_text("ONE")
    while file.stat().st_ctime_ns == status.st_ctime_ns:  # some file systems tell no times of one tick apart
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert digest_all(project) != first


def test_files_too_young_are_read_again(project: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    newest = max(file.stat().st_ctime_ns for file in (project / "data").rglob("*"))
    monkeypatch.setattr(digest_module, "time_ns", lambda: newest + 1)  # hashed within the tick of the last change
    digest_all(project)
    reads.clear()
    digest_all(project)
    assert sorted(reads) == ["one", "one", "three", "two"]


def test_a_change_that_keeps_the_stamp_is_seen_while_the_file_is_young(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The racy case itself: same size, same times, same inode, other content."""
    file = project / "data" / "one"
    frozen = hash_cache.stamp_of(file.stat())
    monkeypatch.setattr(digest_module, "time_ns", lambda: frozen[2] + 1)
    monkeypatch.setattr(digest_module, "stamp_of", lambda _status: frozen)
    cache = HashCache(project / ".cache")
    first = Digester(project, cache=cache).digest("data/one")
    file.write_text("ONE")
    assert Digester(project, cache=cache).digest("data/one") != first


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    project: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = digest_module._hash_file
    monkeypatch.setattr(digest_module, "_hash_file", lambda full, stamp: (inner(full, stamp)[0], False))
    digest_all(project)
    reads.clear()
    digest_all(project)
    assert sorted(reads) == ["one", "one", "three", "two"]


def test_whole_seconds_need_more_slack() -> None:
    second = 1_000_000_000
    assert not is_settled(5 * second, 6 * second)
    assert is_settled(5 * second, 8 * second)
    assert is_settled(5 * second + 1, 5 * second + second // 2)
    assert not is_settled(5 * second + 1, 5 * second + 2)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("damage", [b"", b"\xff\xff", b"\x00" * 50, b"{}"])
def test_a_damaged_cache_is_as_good_as_none(project: Path, damage: bytes) -> None:
    first = digest_all(project)
    damaged = [file for file in (project / ".cache").rglob("*") if file.is_file()]
    assert len(damaged) == 2
    for file in damaged:
        file.write_bytes(damage)
    assert digest_all(project) == first


def test_a_cache_that_cannot_be_written_changes_nothing(project: Path) -> None:
    (project / ".cache").write_text("a file where the folder should be")
    assert digest_all(project) == digest_all(project)


@pytest.mark.usefixtures("later")
def test_two_processes_do_not_spoil_each_others_cache(project: Path, reads: list[str]) -> None:
    one, two = HashCache(project / ".cache"), HashCache(project / ".cache")
    first = Digester(project, cache=one).digest("data/one")
    second = Digester(project, cache=two).digest("data/two")
    one.save()
    two.save()
    reads.clear()
    last = HashCache(project / ".cache")
    assert Digester(project, cache=last).digest("data/one") == first
    assert Digester(project, cache=last).digest("data/two") == second
    assert reads == ["one"]  # what the other process knew is hashed again


@pytest.mark.usefixtures("later")
def test_entries_that_nobody_uses_do_not_pile_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_cache, "UNUSED_KEPT", 1)
    digest_all(project)
    for name in ("a", "b", "c"):
        (project / name).write_text(name)
        cache = HashCache(project / ".cache")
        Digester(project, cache=cache).digest(name)
        cache.save()
    last = HashCache(project / ".cache")
    assert len(last._load().files) <= 2
