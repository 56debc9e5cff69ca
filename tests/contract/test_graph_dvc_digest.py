"""Our digests are those of the real DVC (dvc_data), on made-up trees."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlstack.graph.digest import digest_path
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.sources import FileDigest

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b.txt", "é", "日本", "with space", 'quote"s', "back\\slash", "tab\t", ".hidden", "Z", "a.b", "😀"]
    ),
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12),
).filter(lambda name: name not in {".", "..", ".dvc", ".dvcignore"} and len(name.encode()) < 200)
CONTENTS = st.one_of(st.just(b""), st.binary(max_size=40), st.just(b"line\r\nline\n"))
TREES = st.recursive(
    st.dictionaries(NAMES, CONTENTS, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(CONTENTS, inner), max_size=4),
    max_leaves=12,
)
IGNORES = st.lists(
    st.sampled_from(
        [
            "*.txt",
            "!b.txt",
            "a",
            "/a",
            "a/",
            "**/é",
            "data/a",
            "/data/*",
            "!/data/a",
            "# note",
            "",
            "日*",
            "Z/**",
            "\\#x",
        ]
    ),
    max_size=5,
)
FINE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=FINE)


def build(root: Path, path: str) -> FileDigest:
    """What DVC itself says."""
    from dvc.ignore import DvcIgnoreFilter
    from dvc_data.hashfile.build import build as dvc_build
    from dvc_data.hashfile.db.local import LocalHashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    fs = LocalFileSystem()  # type: ignore[no-untyped-call]
    ignore = DvcIgnoreFilter(fs, str(root))
    odb = LocalHashFileDB(fs, str(root / ".dvc" / "cache"))  # type: ignore[no-untyped-call]
    _, meta, found = dvc_build(odb, str(root / path), fs, "md5", dry_run=True, ignore=ignore)
    assert found.hash_info.value is not None
    assert meta.size is not None
    return FileDigest(md5=found.hash_info.value, size=meta.size, nfiles=meta.nfiles if meta.isdir else None)


def write(folder: Path, tree: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            write(folder / name, content)
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def fresh(root: Path, tree: dict[str, object]) -> None:
    shutil.rmtree(root / "data", ignore_errors=True)
    for file in root.rglob(".dvcignore"):
        file.unlink()
    write(root / "data", tree)


@QUIET
@given(tree=TREES)
def test_a_folder_has_the_digest_that_dvc_gives_it(root: Path, tree: dict[str, object]) -> None:
    fresh(root, tree)
    assert digest_path(root, "data") == build(root, "data")


@QUIET
@given(tree=TREES, ignores=IGNORES)
def test_dvcignore_leaves_out_what_dvc_leaves_out(root: Path, tree: dict[str, object], ignores: list[str]) -> None:
    fresh(root, {"inner": tree, "a": b"1"})
    (root / ".dvcignore").write_text("\n".join(ignores), encoding="utf-8")
    assert digest_path(root, "data/inner") == build(root, "data/inner")
    (root / ".dvcignore").write_text("*.csv\n", encoding="utf-8")
    (root / "data" / ".dvcignore").write_text("\n".join(ignores), encoding="utf-8")
    assert digest_path(root, "data/inner") == build(root, "data/inner")


@QUIET
@given(tree=TREES)
def test_the_cache_changes_no_digest(root: Path, tree: dict[str, object]) -> None:
    fresh(root, tree)
    for _ in range(2):
        cache = HashCache(root / "cache")
        assert digest_path(root, "data", cache=cache) == build(root, "data")
        cache.save()


@given(content=st.binary(max_size=300))
@QUIET
def test_a_file_has_the_digest_that_dvc_gives_it(root: Path, content: bytes) -> None:
    (root / "file").write_bytes(content)
    assert digest_path(root, "file") == build(root, "file")


def test_a_large_folder_is_hashed_in_threads_with_the_same_result(root: Path) -> None:
    write(root / "data", {f"part{number}": os.urandom(3 << 20) for number in range(8)})
    assert digest_path(root, "data") == build(root, "data")


def test_links_are_treated_as_dvc_treats_them(root: Path) -> None:
    write(root, {"data": {"real": b"1"}, "shared": {"x": b"2"}, "target": b"3"})
    (root / "data" / "file-link").symlink_to(root / "target")
    (root / "data" / "folder-link").symlink_to(root / "shared")
    (root / "linked").symlink_to(root / "data")
    assert digest_path(root, "data") == build(root, "data")
    assert digest_path(root, "linked") == build(root, "linked")


def test_what_dvc_always_leaves_out_is_left_out(root: Path) -> None:
    write(root, {"data": {".git": {"x": b"1"}, "sub": {".hg": {"y": b"1"}, ".git": b"file", "kept": b"2"}}})
    write(root / "data" / "nested", {".dvc": {"config": b""}, "z": b"1"})
    assert digest_path(root, "data") == build(root, "data")
    found = digest_path(root, "data")
    assert found is not None
    assert found.nfiles == 1


def test_names_that_are_not_unicode_have_the_digest_that_dvc_gives_them(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    cache = HashCache(root / "cache")
    assert digest_path(root, "data", cache=cache) == build(root, "data")
    cache.save()
