"""What the files of a hostile branch cannot do while they are hashed and parsed."""

import time
from contextlib import suppress
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.graph.digest import Digester
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.hash_cache import HashCache
from mlstack.graph.ignore import IgnoreRules
from mlstack.graph.imports import ModuleFinder
from mlstack.graph.python_source import LARGEST_MODULE, parse_imports
from mlstack.spec.address import Address
from mlstack.spec.spec import Out, Pool, Spec, Stage

POOL = Address("compute.local")


def spec_with(stage: Stage) -> Spec:
    return Spec(
        file="mlstack.yaml",
        project="p",
        environment="local",
        resources={POOL: Pool(address=POOL), stage.address: stage},
    )


def test_link_that_looks_like_an_object_of_dvc_and_leads_on(tmp_path: Path) -> None:
    root = tmp_path / "project"
    fake = root / "files/md5/aa" / ("b" * 30)
    fake.parent.mkdir(parents=True)
    (tmp_path / "secret").write_text("guess me")
    fake.symlink_to(tmp_path / "secret")
    (root / "data.txt").symlink_to(fake)
    with pytest.raises(MlstackError, match="leads to"):
        Digester(root).digest("data.txt")


def test_object_of_a_cache_elsewhere_is_still_followed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    place = tmp_path / "cache/files/md5/aa" / ("b" * 30)
    place.parent.mkdir(parents=True)
    place.write_text("data")
    (root / "data.txt").symlink_to(place)
    assert Digester(root).digest("data.txt") is not None


@pytest.mark.parametrize("folder", ["out", "."])
def test_output_below_a_link_out_of_the_project_is_refused_by_the_plan(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    stage = Stage(address=Address("stages.a"), cmd="x", pool=POOL, directory=folder, outs=(Out(path="out/x"),))
    found = digest_sources(spec_with(stage), root=root)
    assert [problem.code for problem in found.diagnostics] == ["path-leaves-project"]


@pytest.mark.parametrize(
    "pattern", ["a*" * 12 + "b", "**/a*b*a*b*a*c", "*" + "[ab]*" * 20 + "c", "**/a/" * 8 + "b"], ids=repr
)
def test_patterns_cannot_take_for_ever(tmp_path: Path, pattern: str) -> None:
    (tmp_path / ".dvcignore").write_text(f"{pattern}\n")
    started = time.process_time()
    with suppress(MlstackError):  # refused is as good as quick
        IgnoreRules(tmp_path).below(tmp_path).ignores("/".join(["ab" * 100] * 5), is_folder=False)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*a*b*c", "xxaxbxxcbc", "xxbxaxxc"),
        ("x*y/z*q*r", "x1y/z1q1r", "x1y/z1r1q"),
        ("*.[pq]y*", "a.py.py", "a.ry"),
        ("a*[!b]*c", "a-bc", "abxd"),
        ("**/a?b*c", "q/axbyc", "q/abc"),
    ],
)
def test_patterns_still_mean_the_same(tmp_path: Path, pattern: str, matching: str, other: str) -> None:
    (tmp_path / ".dvcignore").write_text(f"{pattern}\n")
    rules = IgnoreRules(tmp_path).below(tmp_path)
    assert rules.ignores(matching, is_folder=False)
    assert not rules.ignores(other, is_folder=False)


@pytest.mark.parametrize(
    "source",
    [b"(" * 50_000, b"x=" + b"-" * 50_000 + b"1", b"x=a" + b".a" * 50_000, b"# coding: rot13\nx", b"a\0b"],
    ids=["parentheses", "signs", "attributes", "coding", "nul"],
)
def test_source_that_no_parser_likes_is_a_fault(source: bytes) -> None:
    assert parse_imports(source).fault is not None


def test_huge_module_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(b"x;" * (LARGEST_MODULE // 2 + 1))
    finder = ModuleFinder(Digester(tmp_path, cache=HashCache(None)), cache_folder=None)
    assert finder.of_module("big", directory=".") == frozenset({"big.py"})
    assert "larger than 1 MiB" in finder.diagnostics[0].detail
