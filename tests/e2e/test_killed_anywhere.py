"""SIGKILL of `lock` and `accept` between any two changes on the disk: the next command brings about the same."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.forked import Forked
from tests.e2e.workspace import Workspace, clean_environment

pytestmark = pytest.mark.e2e

KILLED = -9
FILE = """version: 1
project: killed
datasets:
  one: {path: data/one.txt, source: "file://FOLDER/one.txt"}
stages:
  make: {cmd: 'echo ran >> "$WITNESS"; cat in.txt > made.txt', deps: [in.txt], outs: [made.txt]}
"""


@pytest.fixture(scope="module")
def applied_stage(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Workspace:
    """A data set that is not pinned yet, and a stage that is applied: made once, copied by `copies`."""
    folder = tmp_path_factory.mktemp("killed")
    for name in ("home", "project"):
        (folder / name).mkdir()
    (folder / "one.txt").write_text("one\n", encoding="utf-8")
    environment = clean_environment(folder / "home", shared_cache) | {"WITNESS": str(folder / "witness")}
    project = Workspace(folder / "project", environment)
    (project.root / "in.txt").write_text("in\n", encoding="utf-8")
    (project.root / "mlstack.yaml").write_text(FILE.replace("FOLDER", str(folder)), encoding="utf-8")
    project.git("init", "-q", "-b", "main")
    project.init()
    project.mlstack("apply", "--yes", "--target", "stages.make")
    project.commit("Results")
    return project


@pytest.fixture
def forked(applied_stage: Workspace) -> Iterator[Forked]:
    with Forked(applied_stage.environment) as forked:
        yield forked


def killed_copies(forked: Forked, project: Workspace, folder: Path, *command: str) -> Iterator[Workspace]:
    """Give a copy for every change that a command makes, before which it was killed; the last one was not."""
    for changes in range(100):
        copy = Workspace(folder / f"{changes}", project.environment)
        shutil.copytree(project.root, copy.root, symlinks=True)
        code, said = forked.mlstack(copy.root, *command, kill_at=changes)
        assert code in (KILLED, 0), said
        seen = copy.git("status", "--porcelain", "--untracked-files=all")
        assert ".tmp" not in seen, "what was half written is seen by nobody"
        yield copy
        if code == 0:
            return
    pytest.fail("it makes changes without an end")


def test_lock_that_was_killed_is_made_good_by_the_next(
    forked: Forked, applied_stage: Workspace, tmp_path: Path
) -> None:
    seen = []
    for copy in killed_copies(forked, applied_stage, tmp_path, "lock"):
        code, said = forked.mlstack(copy.root, "lock")
        assert code == 0, said
        seen.append([(copy.root / name).read_bytes() for name in ("mlstack.lock", "data/one.txt", "data/one.txt.dvc")])
    assert len(seen) > 5
    assert all(files == seen[-1] for files in seen)
    copy.mlstack("lock", "--check")
    assert copy.dvc("status", "--json").strip() == "{}"


def ran(project: Workspace) -> int:
    """How often the stage ran, in all copies together."""
    return Path(project.environment["WITNESS"]).read_text(encoding="utf-8").count("ran")


def test_accept_that_was_killed_is_made_good_by_the_next(
    forked: Forked, applied_stage: Workspace, tmp_path: Path
) -> None:
    edited = Workspace(tmp_path / "edited", applied_stage.environment)
    shutil.copytree(applied_stage.root, edited.root, symlinks=True)
    (edited.root / "in.txt").write_text("in  \n", encoding="utf-8")
    accept = ("accept", "stages.make", "--because", "a space")
    before, kept, killed = ran(edited), [], 0
    for copy in killed_copies(forked, edited, tmp_path, *accept):
        code, said = forked.mlstack(copy.root, "plan", "--json", "--target", "stages.make")
        assert code == 0, said
        kept.append('"accepted"' in said)
        if not kept[-1]:
            code, said = forked.mlstack(copy.root, *accept)
            assert code == 0, said
        code, said = forked.mlstack(copy.root, "apply", "--yes", "--target", "stages.make")
        assert code == 0, said
        assert ran(edited) == before, f"killed before change {killed}, the stage ran again"
        assert forked.mlstack(copy.root, "plan", "--detailed-exitcode", "--target", "stages.make")[0] == 0
        killed += 1
    assert killed > 5
    assert kept == sorted(kept), "what was accepted once stays so"
    assert kept[-1]
    assert not kept[0]
    assert copy.dvc("status", "--json", "make").strip() == "{}"
