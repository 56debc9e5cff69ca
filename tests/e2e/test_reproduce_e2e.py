"""A commit computed again: the same bytes, or the output that differs by name; and nothing here is touched."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.workspace import BIN, Workspace

pytestmark = pytest.mark.e2e


def without_seed(workspace: Workspace) -> None:
    """Take the seed out of the training: its parameter, its option, its use."""
    workspace.edit(
        "mlstack.yaml", " --trees ${{ params.trees }} --seed ${{ params.seed }}", " --trees ${{ params.trees }}"
    )
    workspace.edit("mlstack.yaml", "params: [depth, trees, seed]", "params: [depth, trees]")
    workspace.edit("src/train.py", ", random_state=options.seed", ", subsample=0.5")
    workspace.edit("src/train.py", '    parser.add_argument("--seed", type=int, required=True)\n', "")
    workspace.edit("src/train.py", "and seed give", "give")
    workspace.mlstack("apply", "--yes")
    workspace.commit("No seed")


def everything(workspace: Workspace) -> dict[str, bytes]:
    """The working tree, cache, run-cache and state; not what can be computed again, nor mlstack's own locks."""
    found = {}
    for path in sorted(workspace.root.rglob("*")):
        name = path.relative_to(workspace.root).as_posix()
        skipped = name.startswith((".git/", ".mlstack/cache/", ".mlstack/worktrees", ".dvc/tmp/"))
        if path.is_file() and not skipped:
            found[name] = path.read_bytes()
    return found


def test_the_same_commit_gives_the_same_bytes_and_touches_nothing(applied: Workspace) -> None:
    before = everything(applied)
    done = applied.mlstack("reproduce", "HEAD")
    assert "Reproduced: 5 outputs, 5 identical." in done.stdout
    assert "stages.train     python src/train.py --depth 4" in done.stderr
    assert everything(applied) == before
    assert len(applied.git("worktree", "list").splitlines()) == 1
    assert list((applied.root / ".mlstack" / "worktrees").iterdir()) == []
    applied.assert_settled()


def test_without_a_seed_the_output_that_differs_is_named(applied: Workspace) -> None:
    without_seed(applied)
    done = applied.mlstack("reproduce", "HEAD", "--json", code=1)
    document = json.loads(done.stdout)
    assert not document["same"]
    stages = {stage["address"]: stage for stage in document["stages"]}
    assert stages["stages.prepare"]["same"]
    assert [out["likeness"] for out in stages["stages.train"]["outputs"]] == ["different"]
    assert stages["stages.train"]["outputs"][0]["path"] == "models/progression.joblib"
    assert stages["stages.train"]["causes"][0].startswith("no seed")
    assert stages["stages.evaluate"]["causes"] == [
        "its input models/progression.joblib came out different (stages.train)"
    ]


def test_one_stage_gets_its_inputs_restored(applied: Workspace) -> None:
    document = json.loads(applied.mlstack("reproduce", "HEAD", "evaluate", "--json").stdout)
    assert [stage["address"] for stage in document["stages"]] == ["stages.evaluate"]
    assert document["summary"]["identical"] == 2


def test_an_older_commit_is_computed_as_it_was(applied: Workspace) -> None:
    first = applied.git("rev-parse", "HEAD").strip()
    applied.edit("mlstack.yaml", "depth: 4", "depth: 2")
    applied.mlstack("apply", "--yes")
    applied.commit("Smaller trees")
    applied.edit("src/train.py", "import argparse", "import argparse, no_such_module")
    document = json.loads(applied.mlstack("reproduce", first, "train", "--json").stdout)
    assert document["commit"] == first
    assert document["same"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("no-such-commit",), 4, "There is no such revision"),
        (("HEAD~2",), 4, "Nothing was recorded yet at that commit"),
        (("HEAD", "stages.nothing"), 4, "No such resource"),
        (("HEAD", "datasets.patients"), 64, "only stages can be computed again"),
    ],
)
def test_what_cannot_be_tried_has_a_code_of_its_own(
    applied: Workspace, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in applied.mlstack("reproduce", *arguments, code=code).stderr
    assert len(applied.git("worktree", "list").splitlines()) == 1


def test_data_that_nobody_has_any_more_is_named(applied: Workspace) -> None:
    for path in (applied.root / ".dvc" / "cache" / "files").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.unlink()
    said = applied.mlstack("reproduce", "HEAD", "evaluate", code=4).stderr
    assert "Data of that commit cannot be had any more" in said
    assert "models/progression.joblib" in said


def test_data_that_only_the_remote_has_is_fetched_and_not_kept(applied: Workspace, tmp_path: Path) -> None:
    applied.edit("mlstack.yaml", "project: quickstart", f"project: quickstart\nremote: {tmp_path / 'remote'}")
    applied.mlstack("push")
    applied.commit("A remote")
    shutil.rmtree(applied.root / ".dvc" / "cache")
    document = json.loads(applied.mlstack("reproduce", "HEAD", "evaluate", "--json").stdout)
    assert document["summary"]["identical"] == 2
    assert not any(path.is_file() for path in (applied.root / ".dvc" / "cache").rglob("*"))


def test_a_stage_that_fails_is_not_called_a_difference(applied: Workspace) -> None:
    applied.edit("src/evaluate.py", "def main() -> None:", 'def main() -> None:\n    raise SystemExit("broken")')
    applied.commit("Broken, not applied")
    said = applied.mlstack("reproduce", "HEAD", "evaluate", code=4).stderr
    assert "A stage of that commit failed" in said


def test_what_a_killed_reproduction_left_is_removed_by_the_next(applied: Workspace) -> None:
    applied.edit(
        "src/train.py", "    features, target = load", "    import time; time.sleep(600)\n    features, target = load"
    )
    applied.commit("Slow")
    command = [str(BIN / "mlstack"), "reproduce", "HEAD", "train"]
    with subprocess.Popen(command, cwd=applied.root, env=applied.environment, stderr=subprocess.DEVNULL) as process:
        worktrees = applied.root / ".mlstack" / "worktrees"
        wait_for(lambda: applied.running("train.py"))
        process.send_signal(signal.SIGKILL)
    assert any(worktrees.iterdir())
    applied.mlstack("reproduce", "HEAD", "prepare")
    assert list(worktrees.iterdir()) == []
    assert len(applied.git("worktree", "list").splitlines()) == 1
    wait_for(lambda: not applied.running("train.py"))


def wait_for(condition: Callable[[], bool], *, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_markdown_goes_into_a_file_too(applied: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "report.md"
    applied.mlstack("reproduce", "HEAD", "prepare", "--markdown-into", os.fspath(target))
    text = target.read_text(encoding="utf-8")
    assert text.startswith("**Reproduced: 2 outputs, 2 identical.**")
