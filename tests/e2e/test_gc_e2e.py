"""What nothing refers to is removed, and only when asked: real Git, real DVC, a small project of shell commands."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workspace import BIN, Workspace, clean_environment
from tests.s3 import s3_server

pytestmark = pytest.mark.e2e

FILE = """
version: 1
project: tiny
python: system
params: {word: first}
stages:
  make:
    cmd: sh make.sh ${{ params.word }}
    deps: [make.sh]
    params: [word]
    outs: [out.txt, folder]
"""
MAKE = 'set -e\necho "$1" > out.txt\nmkdir -p folder\necho same > folder/same.txt\necho "in $1" > folder/own.txt\n'
NOW = ("--older-than", "0")


@pytest.fixture
def tiny(tmp_path: Path) -> Workspace:
    """A project with one commit, `first`, which is applied."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tiny").mkdir()
    workspace = Workspace(tmp_path / "tiny", clean_environment(tmp_path / "home", tmp_path / "cache"))
    (workspace.root / "mlstack.yaml").write_text(FILE)
    (workspace.root / "make.sh").write_text(MAKE)
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("first")
    return workspace


def make(workspace: Workspace, word: str, *, before: str = "first") -> None:
    workspace.edit("mlstack.yaml", f"word: {before}", f"word: {word}")
    workspace.mlstack("apply", "--yes")
    workspace.commit(word)


def unused(workspace: Workspace, *arguments: str) -> dict[str, int]:
    """How many unused things of each kind there are."""
    found = json.loads(workspace.mlstack("gc", "--json", *arguments).stdout)
    return {f"{place['place']} {place['kind']}": place["unused"]["count"] for place in found["places"]}


def assert_restores(workspace: Workspace, revision: str, word: str) -> None:
    workspace.git("checkout", "-q", revision)
    shutil.rmtree(workspace.root / "folder", ignore_errors=True)
    (workspace.root / "out.txt").unlink(missing_ok=True)
    workspace.dvc("checkout")
    assert (workspace.root / "out.txt").read_text() == f"{word}\n"
    assert (workspace.root / "folder" / "own.txt").read_text() == f"in {word}\n"


def test_shows_first_and_removes_tries_only_when_told(tiny: Workspace) -> None:
    make(tiny, "second")
    tiny.git("tag", "v2")
    make(tiny, "third", before="second")
    tiny.mlstack("run", "--set", "word=try")
    assert unused(tiny) == {"cache objects": 0, "cache run-cache": 0, "cache provenance": 0, "runs runs": 0}
    said = tiny.mlstack("gc", *NOW).stdout
    assert "Nothing was removed." in said
    assert "mlstack gc --yes --older-than 0" in said
    # out.txt, the listing of folder and own.txt; same.txt is in the others too
    expected = {"cache objects": 3, "cache run-cache": 1, "cache provenance": 1, "runs runs": 0}
    assert unused(tiny, *NOW) == expected
    tiny.mlstack("gc", *NOW, "--yes")
    assert set(unused(tiny, *NOW).values()) == {0}
    assert tiny.actions() == {}
    for revision, word in (("v2", "second"), ("main~2", "first"), ("main", "third")):
        assert_restores(tiny, revision, word)


def test_what_a_deleted_branch_had_goes_and_a_detached_head_stays(tiny: Workspace) -> None:
    tiny.git("switch", "-q", "-c", "side")
    make(tiny, "second")
    tiny.git("switch", "-q", "--detach")
    tiny.git("branch", "-D", "side")
    assert unused(tiny, *NOW)["cache objects"] == 0
    tiny.git("switch", "-q", "main")
    tiny.dvc("checkout")
    assert unused(tiny, *NOW)["cache objects"] == 3


def test_commits_older_than_keep_count_only_where_something_names_them(tiny: Workspace) -> None:
    tiny.environment = {**tiny.environment, "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"}
    make(tiny, "old")
    tiny.git("tag", "kept")
    make(tiny, "older", before="old")
    tiny.environment = {name: value for name, value in tiny.environment.items() if name != "GIT_COMMITTER_DATE"}
    make(tiny, "new", before="older")
    shutil.rmtree(tiny.root / ".mlstack" / "state" / "local" / "history")  # which says that all of it was applied now
    assert unused(tiny, *NOW)["cache objects"] == 0
    assert unused(tiny, *NOW, "--keep", "30d")["cache objects"] == 3
    tiny.mlstack("gc", *NOW, "--keep", "30d", "--yes")
    for revision, word in (("kept", "old"), ("main", "new")):
        assert_restores(tiny, revision, word)


def test_damaged_lock_files_and_odd_refs_of_the_history_keep_what_they_name(tiny: Workspace) -> None:
    make(tiny, "second")
    lock = tiny.root / "dvc.lock"
    good = lock.read_text()
    lock.write_text(f"<<<<<<< ours\n{good}=======\n{{ not yaml\n>>>>>>> theirs\n")
    tiny.commit("A conflict that somebody committed")
    lock.unlink()
    (tiny.root / "mlstack.yaml").rename(tiny.root / "elsewhere.yaml")
    tiny.commit("No project any more")
    tiny.git("tag", "no-project")
    tiny.git("tag", "of-a-tree", "HEAD^{tree}")
    tiny.git("tag", "of-a-file", "HEAD:make.sh")
    tiny.git("checkout", "-q", "main~2")
    assert unused(tiny, *NOW)["cache objects"] == 0
    tiny.git("checkout", "-q", "--orphan", "unborn")
    assert unused(tiny, *NOW)["cache objects"] == 0


def test_a_worktree_and_a_stash_count(tiny: Workspace, tmp_path: Path) -> None:
    tiny.git("worktree", "add", "-q", "--detach", str(tmp_path / "beside"))
    tiny.edit("mlstack.yaml", "word: first", "word: stashed")
    tiny.mlstack("apply", "--yes")
    (tmp_path / "beside" / "dvc.lock").write_bytes((tiny.root / "dvc.lock").read_bytes())
    tiny.git("stash", "push", "-q")
    tiny.edit("mlstack.yaml", "word: first", "word: again")
    tiny.mlstack("apply", "--yes")
    tiny.git("stash", "push", "-q")
    tiny.dvc("checkout")
    assert unused(tiny, *NOW)["cache objects"] == 0
    tiny.git("stash", "clear")
    assert unused(tiny, *NOW)["cache objects"] == 3  # those of `again`: the worktree has the other
    tiny.git("worktree", "remove", "--force", str(tmp_path / "beside"))
    assert unused(tiny, *NOW)["cache objects"] == 6


# ---------------------------------------------------------------------------------------------------- refused


def refused(workspace: Workspace, *arguments: str) -> str:
    before = sorted((workspace.root / ".dvc" / "cache").rglob("*"))
    said = workspace.mlstack("gc", *NOW, "--yes", *arguments, code=1).stderr
    assert sorted((workspace.root / ".dvc" / "cache").rglob("*")) == before
    return said


def test_a_shallow_clone_is_refused(tiny: Workspace, tmp_path: Path) -> None:
    make(tiny, "second")
    tiny.git("clone", "-q", "--depth", "1", f"file://{tiny.root}", str(tmp_path / "shallow"))
    shallow = Workspace(tmp_path / "shallow", tiny.environment)
    assert "This clone does not have the whole history" in refused(shallow)


def test_an_environment_that_cannot_be_read_is_refused_and_named(tiny: Workspace) -> None:
    (tiny.root / ".mlstack" / "state" / "local" / "state.json").write_text('{"cut off')
    said = refused(tiny)
    assert 'what environment "local" refers to cannot be read' in said
    tiny.mlstack("gc", *NOW, "--yes", "--skip-unreadable")


def test_a_state_on_a_disk_that_is_not_mounted_is_refused(tiny: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    text = (tiny.root / "mlstack.yaml").read_text()
    environments = f"environments: {{local: {{default: true}}, prod: {{state: {place}}}}}\n"
    (tiny.root / "mlstack.yaml").write_text(text + environments)
    said = refused(tiny)
    assert 'environment "prod"' in said
    assert "It may be a disk that is not mounted" in said
    place.mkdir()
    tiny.mlstack("gc", *NOW, "--yes")


def test_a_lost_listing_is_named_with_its_commit(tiny: Workspace) -> None:
    first = tiny.git("rev-parse", "--short", "HEAD").strip()
    make(tiny, "second")
    (listing,) = [
        path
        for path in (tiny.root / ".dvc" / "cache" / "files").rglob("*.dir")
        if path.parent.name + path.name in tiny.git("show", "HEAD~1:dvc.lock")
    ]
    listing.chmod(0o600)
    listing.unlink()
    said = refused(tiny)
    assert "It is not known which files a folder consists of" in said
    assert f"came with commit {first}" in " ".join(said.split())
    tiny.mlstack("gc", *NOW, "--yes", "--skip-unreadable")
    assert_restores(tiny, "main", "second")


def test_an_apply_that_works_keeps_gc_out(tiny: Workspace) -> None:
    tiny.edit("make.sh", "set -e\n", "set -e\ntouch started\nsleep 600\n")
    with subprocess.Popen(
        [BIN / "mlstack", "apply", "--yes"],
        cwd=tiny.root,
        env=tiny.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for((tiny.root / "started").exists)
        wait_for(lambda: any(pid != process.pid for pid in readers(tiny)))
        assert "The working tree is in use" in tiny.mlstack("gc", *NOW, "--yes", code=1).stderr
        process.kill()
        process.wait()
    assert "mlstack stages.make" in tiny.mlstack("gc", *NOW, "--yes", code=1).stderr  # it goes on without its apply
    tiny.kill_everything()
    tiny.mlstack("gc", *NOW, "--yes")


def readers(workspace: Workspace) -> list[int]:
    """The processes on DVC's list of who reads: what goes on without its apply is put there after its start."""
    users = workspace.root / ".dvc" / "tmp" / "rwlock"
    listed = json.loads(users.read_bytes()).get("read", {}) if users.exists() else {}
    return [user["pid"] for found in listed.values() for user in found]


def wait_for(condition: Any, *, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_cache_that_others_may_use_takes_a_word(tiny: Workspace, tmp_path: Path) -> None:
    tiny.dvc("cache", "dir", "--local", str(tmp_path / "everybody"))
    assert "Others may have their results there" in refused(tiny)
    tiny.mlstack("gc", *NOW, "--yes", "--not-shared")


# ---------------------------------------------------------------------------------------------------- bad luck


def test_a_kill_in_the_middle_loses_nothing_that_is_needed(tiny: Workspace) -> None:
    make(tiny, "second")
    top = tiny.root / ".dvc" / "cache" / "files" / "md5"
    garbage = []
    for number in range(4000):
        path = top / f"{number % 256:02x}" / f"{number:030x}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("of nobody")
        garbage.append(path)
    with subprocess.Popen(
        [BIN / "mlstack", "gc", *NOW, "--yes"], cwd=tiny.root, env=tiny.environment, stdout=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: process.poll() is not None or not all(path.exists() for path in garbage))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    tiny.mlstack("gc", *NOW, "--yes")
    assert not any(path.exists() for path in garbage)
    for revision, word in (("main~1", "first"), ("main", "second")):
        assert_restores(tiny, revision, word)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_cannot_be_removed_is_named(tiny: Workspace) -> None:
    tiny.mlstack("run", "--set", "word=try")
    folders = [path for path in (tiny.root / ".dvc" / "cache" / "files" / "md5").iterdir() if path.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert "Not all of it could be removed" in tiny.mlstack("gc", *NOW, "--yes", code=1).stderr
    finally:
        for folder in folders:
            folder.chmod(0o755)


# ---------------------------------------------------------------------------------------------------- remote


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tiny: Workspace, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "remote")
        return
    with s3_server() as server:
        server.bucket("store")
        tiny.environment = {**tiny.environment, **server.variables}
        yield "s3://store/results"


def test_the_remote_is_cleaned_on_request_and_dvc_goes_on_with_it(tiny: Workspace, tmp_path: Path, remote: str) -> None:
    tiny.dvc("remote", "add", "-d", "store", remote)
    tiny.mlstack("push")
    tiny.commit("A remote")  # DVC pulls a commit from the remote that this commit names
    make(tiny, "second")
    tiny.git("switch", "-q", "-c", "side")
    make(tiny, "third", before="second")
    tiny.mlstack("push", "--run-cache")
    tiny.dvc("push", "--all-commits")  # DVC notes what the remote has
    tiny.git("switch", "-q", "main")
    tiny.git("branch", "-D", "side")
    tiny.dvc("checkout")
    assert "Others may have their results there" in refused(tiny, "--remote")
    assert unused(tiny, "--remote")["remote objects"] == 0  # younger than two weeks
    shown = unused(tiny, *NOW, "--remote")
    assert shown["remote objects"] == 3
    assert shown["remote run-cache"] == 1
    assert shown["remote provenance"] == 1
    tiny.mlstack("gc", *NOW, "--remote", "--not-shared", "--yes")
    assert set(unused(tiny, *NOW, "--remote").values()) == {0}
    tiny.git("clone", "-q", str(tiny.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone", tiny.environment)
    clone.dvc("pull", "--all-commits")
    assert_restores(clone, "main~1", "first")
    tiny.edit("mlstack.yaml", "word: second", "word: third")
    tiny.mlstack("apply", "--yes", "--no-push")
    tiny.commit("third again")
    tiny.dvc("push")
    clone.git("pull", "-q", "origin", "main")
    clone.dvc("pull")
    assert (clone.root / "out.txt").read_text() == "third\n"
