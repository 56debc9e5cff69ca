"""Inputs and code by hash: what is damaged, missing or hostile never reaches the command."""

import hashlib
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from mlstack.runner.fetch import Fetcher
from mlstack.runner.layout import blob_key, bundle_key
from mlstack.runner.problems import Problem
from mlstack.runner.store import Store
from tests.unit.runner.runner_place import Place, held

WRITE = "open('out.txt', 'w').write('made')\n"
LISTED = "import os; print(sorted(os.path.join(f, n) for f, _, ns in os.walk('data') for n in ns))\n" + WRITE


def fetcher(place: Place) -> Fetcher:
    root, scratch = place.folder / "root", place.folder / "scratch"
    root.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return Fetcher(place.store, str(root), str(scratch), say=print, stop=threading.Event())


def test_files_and_folders_are_brought(place: Place) -> None:
    tree = place.tree({"a": b"1", "deep/b": b"2", "same": b"1", "empty": b""})
    script = place.blob(b"#!/bin/sh\n")
    got = fetcher(place).bring((held("data/raw", tree), held("bin/go", script, executable=True)))
    assert got == 5
    root = place.folder / "root"
    assert (root / "data/raw/deep/b").read_bytes() == b"2"
    assert (root / "data/raw/empty").read_bytes() == b""
    assert (root / "bin/go").stat().st_mode & stat.S_IXUSR
    assert not (root / "data/raw/a").stat().st_mode & stat.S_IXUSR


def test_what_is_there_is_not_fetched_again_and_what_is_wrong_is(place: Place) -> None:
    tree = held("data", place.tree({"a": b"1", "b": b"2", "c": b"3"}))
    assert fetcher(place).bring((tree,)) == 3
    root = place.folder / "root"
    (root / "data/a").write_bytes(b"changed")
    (root / "data/b").unlink()
    (root / "data/of another time").write_bytes(b"x")
    assert fetcher(place).bring((tree,)) == 2
    assert sorted(path.name for path in (root / "data").iterdir()) == ["a", "b", "c"]
    assert (root / "data/a").read_bytes() == b"1"


@pytest.mark.parametrize("data", [b"", b"other", b"wine and more"])
def test_a_damaged_blob_is_refused(place: Place, data: bytes) -> None:
    md5 = place.blob(b"wine")
    place.order(WRITE, inputs=(held("data/wine.csv", md5),))
    place.store.put(blob_key(md5), data)
    code, output = place.run()
    assert code == 121
    assert f"the content {md5} of data/wine.csv is damaged in the remote" in output
    assert not (place.work / "project/data/wine.csv").exists()
    assert place.ends()[0].cause == "refused"


def test_a_missing_blob_is_named(place: Place) -> None:
    tree = place.tree({"a": b"1", "b": b"2"})
    place.order(WRITE, inputs=(held("data", tree),))
    place.store.delete([blob_key(hashlib.md5(b"2").hexdigest())])
    code, output = place.run()
    assert code == 121
    assert "for data/b" in output
    assert "mlstack push" in output


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "a/../../b", "", "a//b"])
def test_a_listing_that_leaves_its_folder_is_refused(place: Place, name: str) -> None:
    with pytest.raises(Problem, match="is no file of a folder"):
        fetcher(place).bring((held("data", place.tree({name: b"x"})),))


def test_a_damaged_listing_is_refused(place: Place) -> None:
    tree = place.tree({"a": b"1"})
    place.store.put(blob_key(tree), b"[]")
    with pytest.raises(Problem, match="damaged in the remote"):
        fetcher(place).bring((held("data", tree),))


def test_code_that_is_not_what_was_planned_is_refused(place: Place) -> None:
    planned = hashlib.md5(b"print('planned')").hexdigest()
    place.order("print('edited since')", inputs=(held("train.py", planned, held=False),))
    code, output = place.run()
    assert code == 121
    assert "train.py in the code bundle is not what was planned" in output
    assert "edited since" not in output


def test_code_that_is_missing_is_named(place: Place) -> None:
    place.order(WRITE, inputs=(held("src/lib.py", "0" * 32, held=False),))
    code, output = place.run()
    assert code == 121
    assert "src/lib.py is not in the code bundle" in output


def test_a_damaged_bundle_is_refused(place: Place) -> None:
    order = place.order(WRITE)
    key = bundle_key(order.bundle)
    data = place.store.get(key)
    assert data is not None
    place.store.put(key, data[: len(data) // 2])
    code, output = place.run()
    assert code == 121
    assert "is damaged in the remote" in output


def test_a_bundle_that_is_gone_is_named(place: Place) -> None:
    order = place.order(WRITE)
    place.store.delete([bundle_key(order.bundle)])
    code, output = place.run()
    assert code == 121
    assert f"no code bundle {order.bundle[:12]}" in output


def evil(name: str, kind: bytes = tarfile.SYMTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "members",
    [
        (evil("../escaped", tarfile.REGTYPE),),
        (evil("/tmp/escaped", tarfile.REGTYPE),),
        (evil("out", target="/etc"),),
        (evil("out", target="../../.."),),
        (evil("there", target=".."), evil("there/escaped", tarfile.REGTYPE)),
        (evil("pipe", tarfile.FIFOTYPE),),
        (evil("hard", tarfile.LNKTYPE, "/etc/passwd"),),
    ],
)
def test_a_bundle_that_leaves_the_project_is_refused(place: Place, members: tuple[tarfile.TarInfo, ...]) -> None:
    bundle = place.bundle({"train.py": WRITE}, members=members)
    place.order(WRITE, bundle=bundle)
    code, output = place.run()
    assert code == 121, output
    assert not (place.work / "escaped").exists()
    assert not Path("/tmp/escaped").exists()
    assert place.result() is None


def test_links_inside_the_bundle_work(place: Place) -> None:
    bundle = place.bundle(
        {"lib/real.py": WRITE, "train.py": "import link"}, members=(evil("link.py", target="lib/real.py"),)
    )
    place.order("", bundle=bundle)
    code, output = place.run()
    assert code == 0, output


def test_a_remote_that_does_not_answer_is_a_matter_of_storage(place: Place) -> None:
    place.order(WRITE)
    source = "s3://nowhere/mlstack/order.json"
    dead = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    code, output = place.run(MLSTACK_ORDER=source, AWS_REGION="us-east-1", **dead)
    assert code == 120
    assert "s3://nowhere/mlstack does not answer for order.json" in output


def test_a_folder_that_may_not_be_written_is_said(place: Place) -> None:
    with pytest.raises(Problem, match="cannot be used"):
        Store("/proc/nothing")


@pytest.mark.parametrize("url", ["ssh://host/path", "http://host/path", "relative/path"])
def test_what_is_no_object_store_is_refused(url: str) -> None:
    with pytest.raises(Problem, match="is no object store"):
        Store(url)


def test_inputs_of_an_attempt_before_are_used_again(place: Place) -> None:
    place.order(LISTED + "raise SystemExit(1)", inputs=(held("data", place.tree({"a": b"1", "b": b"2"})),))
    assert "2 files fetched" in place.run()[1]
    _, output = place.run()
    assert "0 files fetched" in output
    assert "['data/a', 'data/b']" in output
