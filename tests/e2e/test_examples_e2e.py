"""Every example, from a fresh clone to nothing left running, on the real engines."""

import json
import os
import re
from pathlib import Path

import pytest

from mlstack.drivers.local.endpoint_process import wait_until
from tests.e2e.conftest import Start
from tests.e2e.workspace import EXAMPLES, ROOT

GOLDEN = ROOT / "tests" / "golden" / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/mlstack.yaml"))

pytestmark = pytest.mark.e2e


def compare_with_golden(name: str, text: str) -> None:
    """Hashes are left out: those of the server's code and of Python environments change with either."""
    path = GOLDEN / f"{name}.txt"
    text = re.sub(r'"?\b[0-9a-f]{8,}\b"?', "…", text)
    if os.environ.get("MLSTACK_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text == expected, f"{path.relative_to(ROOT)} differs; if it should, `make golden` writes it anew"


@pytest.mark.parametrize("name", NAMES)
def test_plan_of_a_fresh_clone_is_the_golden_one_and_changes_nothing(name: str, start: Start) -> None:
    project = start(name)
    assert project.mlstack("validate").stdout
    plan = project.mlstack("plan")
    compare_with_golden(name, plan.stdout)
    assert project.mlstack("plan", "--detailed-exitcode", code=2).stdout == plan.stdout
    assert project.git("status", "--porcelain") == ""


@pytest.mark.parametrize("name", NAMES)
def test_example_is_applied_settled_and_taken_down(name: str, start: Start) -> None:
    project = start(name)
    project.init()
    project.mlstack("apply", "--yes")
    project.assert_settled()
    project.commit("Results")
    project.assert_settled()
    tracked = project.git("ls-files").splitlines()
    assert not [name for name in tracked if name.startswith((".dvc/cache", ".dvc/tmp", ".mlstack"))]
    assert project.git("status", "--porcelain") == ""

    project.mlstack("destroy", "--yes")
    assert wait_until(lambda: not project.processes(), seconds=120), project.processes()
    remaining = {address: action for address, action in project.actions().items() if action != "no-op"}
    assert all("endpoints." in address for address in remaining), "results outlive a destroy"


def test_readme_of_every_example_names_it(tmp_path: Path) -> None:
    listed = re.findall(r"\]\(([\w-]+)/README\.md\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == NAMES


def test_examples_hold_nothing_generated() -> None:
    generated = {"dvc.yaml", "dvc.lock", "mlstack.lock", "params.mlstack.yaml", ".dvc", ".dvcignore"}
    tracked = {path.name for path in EXAMPLES.rglob("*") if ".mlstack" not in path.parts}
    assert not generated & tracked


def test_matrix_runs_every_combination_and_a_new_value_only_adds(start: Start) -> None:
    project = start("matrix")
    project.init()
    runs = {f"stages.train[depth={depth},seed={seed}]" for depth in (1, 2, 4) for seed in (1, 2)}
    assert {address for address in project.actions() if address.startswith("stages.train")} == runs
    project.mlstack("apply", "--yes")
    best = json.loads((project.root / "metrics" / "best.json").read_text(encoding="utf-8"))
    assert best["depth"] == 2

    project.edit("mlstack.yaml", "depth: [1, 2, 4]", "depth: [1, 2, 3, 4]")
    added = {address for address, action in project.actions().items() if action == "run"}
    assert added == {"stages.train[depth=3,seed=1]", "stages.train[depth=3,seed=2]", "stages.select"}


def test_prod_of_the_monorepo_trains_nothing_that_dev_has_trained(start: Start) -> None:
    project = start("monorepo")
    project.init()
    project.mlstack("apply", "--yes")
    project.commit("Results")
    prod = project.actions("-e", "prod")
    assert prod
    assert not [address for address, action in prod.items() if action == "run"]
    assert (project.root / "models" / "risk" / "dvc.lock").exists()
    assert (project.root / "models" / "progression" / "dvc.lock").exists()
