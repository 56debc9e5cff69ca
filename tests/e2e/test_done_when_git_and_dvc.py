"""Issue 3, "Done when": what Git and DVC do by hand is seen, and nothing runs for it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_after_apply_plan_and_dvc_agree_that_nothing_is_left(applied: Workspace) -> None:
    applied.assert_settled()
    assert applied.git("status", "--porcelain") == ""
    metrics = json.loads(applied.dvc("metrics", "show", "--json"))
    assert 50 < metrics[""]["data"]["metrics/test.json"]["data"]["rmse"] < 60
    plots = applied.dvc("plots", "show", "--json")
    assert "plots/predictions.csv" in plots


def test_metrics_that_somebody_edited_are_not_committed_as_results(applied: Workspace) -> None:
    head, metrics = applied.git("rev-parse", "HEAD"), applied.root / "metrics" / "test.json"
    metrics.write_text('{"rmse": 1.0}')
    said = applied.mlstack("apply", "--yes", "--commit").stderr
    assert "Not what dvc.lock records, so no part of the record: metrics/test.json." in said
    assert applied.git("rev-parse", "HEAD") == head
    assert metrics.read_text() == '{"rmse": 1.0}'


def test_dvc_repro_by_hand_leaves_no_stage_to_run(applied: Workspace) -> None:
    applied.edit("src/evaluate.py", '"mae":', '"absolute":')
    assert applied.actions() == {"stages.evaluate": "run"}
    applied.dvc("repro", path=applied.python())
    assert "run" not in applied.actions().values()


def test_older_commit_with_dvc_checkout_leaves_no_stage_to_run(applied: Workspace) -> None:
    first = applied.git("rev-parse", "HEAD").strip()
    model = (applied.root / "models" / "progression.joblib").read_bytes()
    applied.edit("mlstack.yaml", "depth: 4", "depth: 2")
    applied.mlstack("apply", "--yes")
    applied.commit("Smaller trees")
    assert (applied.root / "models" / "progression.joblib").read_bytes() != model

    applied.git("checkout", "-q", first)
    applied.dvc("checkout")
    applied.assert_settled()
    assert (applied.root / "models" / "progression.joblib").read_bytes() == model


def test_second_clone_with_a_copied_cache_has_nothing_to_do(applied: Workspace, tmp_path: Path) -> None:
    clone = Workspace(tmp_path / "clone", applied.environment)
    applied.git("clone", "-q", str(applied.root), str(clone.root))
    shutil.copytree(applied.root / ".dvc" / "cache", clone.root / ".dvc" / "cache")
    assert clone.actions() == {}
    assert clone.mlstack("plan", "--detailed-exitcode").returncode == 0
    clone.dvc("checkout")
    clone.assert_settled()


def test_fresh_clone_without_cache_does_not_lose_the_record(applied: Workspace, tmp_path: Path) -> None:
    clone = Workspace(tmp_path / "clone", applied.environment)
    applied.git("clone", "-q", str(applied.root), str(clone.root))
    lock = (clone.root / "dvc.lock").read_bytes()
    clone.mlstack("plan", code=None)
    assert (clone.root / "dvc.lock").read_bytes() == lock
    assert clone.git("status", "--porcelain") == ""


def test_foreign_stage_is_never_overwritten(applied: Workspace) -> None:
    dvc_yaml = applied.root / "dvc.yaml"
    own = "\n  mine:\n    cmd: echo mine > mine.txt\n    outs:\n    - mine.txt\n"
    dvc_yaml.write_text(dvc_yaml.read_text(encoding="utf-8").rstrip("\n") + own, encoding="utf-8")
    applied.dvc("repro", "mine")
    applied.edit("mlstack.yaml", "depth: 4", "depth: 3")
    applied.mlstack("apply", "--yes")
    assert "cmd: echo mine > mine.txt" in dvc_yaml.read_text(encoding="utf-8")
    applied.assert_settled()
