"""Issue 3, "Done when": what makes a stage run, and what does not."""

import pytest

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_dev_only_package_in_the_lock_runs_nothing(applied: Workspace) -> None:
    project = (
        '[project]\nname = "quickstart"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["scikit-learn"]\n'
    )
    groups = "[dependency-groups]\ndev = [{}]\n"
    (applied.root / "pyproject.toml").write_text(project + groups.format(""), encoding="utf-8")
    applied.call("uv", ["lock", "-q"])
    applied.edit("mlstack.yaml", "lock: requirements.txt", "lock: uv.lock")
    applied.mlstack("apply", "--yes")
    applied.commit("uv.lock")
    before = (applied.root / "uv.lock").read_bytes()

    (applied.root / "pyproject.toml").write_text(project + groups.format('"iniconfig"'), encoding="utf-8")
    applied.call("uv", ["lock", "-q"])
    assert (applied.root / "uv.lock").read_bytes() != before
    assert applied.actions() == {}


def test_comment_in_one_script_does_not_run_another_stage(applied: Workspace) -> None:
    with (applied.root / "src" / "evaluate.py").open("a", encoding="utf-8") as script:
        script.write("# a remark\n")
    assert applied.actions() == {"stages.evaluate": "run"}


def test_renamed_pool_and_changed_limits_run_nothing(applied: Workspace) -> None:
    path = applied.root / "mlstack.yaml"
    text = path.read_text(encoding="utf-8")
    pooled = text.replace("    cmd: python src/train.py", "    compute: small\n    cmd: python src/train.py")
    path.write_text(pooled + "\ncompute: {small: {target: local, limits: {cpu: 2}}}\n", encoding="utf-8")
    assert "run" not in applied.actions().values()
    path.write_text(
        pooled.replace("compute: small", "compute: large")
        + "\ncompute: {large: {target: local, limits: {cpu: 1, memory: 1Gi}}}\n",
        encoding="utf-8",
    )
    assert "run" not in applied.actions().values()


def test_changed_target_plans_no_run(applied: Workspace) -> None:
    path = applied.root / "mlstack.yaml"
    text = path.read_text(encoding="utf-8").replace(
        "    cmd: python src/train.py", "    compute: gpu\n    cmd: python src/train.py"
    )
    path.write_text(text + "\ncompute: {gpu: {target: docker}}\n", encoding="utf-8")
    plan = applied.plan()
    assert [row["address"] for row in plan["resource_changes"] if row["change"]["actions"] == ["run"]] == []


def test_edited_module_that_is_only_imported_runs_the_stage_and_explain_names_it(applied: Workspace) -> None:
    assert "src/features.py" not in (applied.root / "mlstack.yaml").read_text(encoding="utf-8")
    applied.edit("src/features.py", "ndmin=2", "ndmin=2, comments=None")
    actions = applied.actions()
    assert actions["stages.train"] == "run"
    assert "stages.prepare" not in actions
    said = applied.mlstack("explain", "stages.train").stdout
    assert "src/features.py" in said
    assert "comments=None" in said


def test_reworded_description_and_retry_run_nothing(applied: Workspace) -> None:
    applied.edit(
        "mlstack.yaml",
        "    cmd: python src/train.py",
        "    description: Learns.\n    retry: {error: 2}\n    timeout: {run: 1h}\n    cmd: python src/train.py",
    )
    assert "run" not in applied.actions().values()
