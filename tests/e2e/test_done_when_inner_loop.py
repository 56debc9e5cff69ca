"""Issue 3, "Done when": trying something records nothing, and what was tried need not run again."""

import json

import pytest

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_run_leaves_the_lock_untouched_and_apply_restores(applied: Workspace) -> None:
    lock = (applied.root / "dvc.lock").read_bytes()
    applied.mlstack("run", "--set", "depth=8")
    assert (applied.root / "dvc.lock").read_bytes() == lock
    assert applied.git("status", "--porcelain", "--", "dvc.lock", "dvc.yaml", "mlstack.yaml") == ""

    applied.edit("mlstack.yaml", "depth: 4", "depth: 8")
    actions = applied.actions()
    assert actions["stages.train"] == "restore"
    assert "run" not in actions.values()
    applied.mlstack("apply", "--yes")
    applied.assert_settled()
    rmse = json.loads((applied.root / "metrics" / "test.json").read_text(encoding="utf-8"))["rmse"]
    assert rmse > 60, "the deep trees that `run` tried are what apply brought"


def test_apply_puts_recorded_results_in_the_place_of_those_of_a_try(applied: Workspace) -> None:
    """The metrics of a try must not be committed as those of the recorded model."""
    metrics = (applied.root / "metrics" / "test.json").read_bytes()
    assert "mlstack apply" in applied.mlstack("run", "--set", "depth=2").stderr
    assert (applied.root / "metrics" / "test.json").read_bytes() != metrics
    before = applied.git("rev-parse", "HEAD")

    said = applied.mlstack("apply", "--yes", "--commit").stderr
    assert "metrics/test.json" in said
    assert (applied.root / "metrics" / "test.json").read_bytes() == metrics
    assert applied.git("rev-parse", "HEAD") == before, "there is nothing to commit"
    applied.assert_settled()
    assert not (applied.root / ".mlstack" / "kept").exists(), "the cache has what was replaced"


def test_apply_leaves_what_somebody_wrote_over_a_result(applied: Workspace) -> None:
    model = applied.root / "models" / "progression.joblib"
    model.unlink()
    model.write_bytes(b"by hand")
    applied.mlstack("apply", "--yes")
    assert model.read_bytes() == b"by hand"


def test_compare_shows_what_a_change_did_to_the_metrics(applied: Workspace) -> None:
    applied.edit("mlstack.yaml", "depth: 4", "depth: 2")
    applied.mlstack("apply", "--yes")
    said = applied.mlstack("compare", "HEAD").stdout
    assert "rmse" in said
    assert "depth" in said


def test_accepted_change_runs_nothing_and_is_recorded(applied: Workspace) -> None:
    with (applied.root / "src" / "train.py").open("a", encoding="utf-8") as script:
        script.write("# a remark\n")
    assert applied.actions()["stages.train"] == "run"
    applied.mlstack("accept", "stages.train", "--because", "only a remark")
    assert "run" not in applied.actions().values()
    assert "only a remark" in applied.mlstack("history", "--json").stdout


def test_failing_stage_says_so_and_changes_no_record(applied: Workspace) -> None:
    lock = (applied.root / "dvc.lock").read_bytes()
    applied.edit("src/evaluate.py", "def main() -> None:", 'raise SystemExit("no such thing")\n\n\ndef main() -> None:')
    done = applied.mlstack("apply", "--yes", code=1)
    assert "no such thing" in done.stdout + done.stderr
    assert (applied.root / "dvc.lock").read_bytes() == lock
    assert applied.actions() == {"stages.evaluate": "run"}
