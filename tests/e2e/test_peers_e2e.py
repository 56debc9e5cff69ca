"""mlstack beside DVC and beside bare Python: the same records, and nothing imported that is not needed."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.benchmarks.synthetic import make_repository, write_mlstack
from tests.e2e.conftest import Start
from tests.e2e.workspace import BIN, Workspace

pytestmark = pytest.mark.e2e

HEAVY = {"asyncio", "docker", "dvc", "git", "jinja2", "networkx", "pulumi", "pydantic", "requests", "starlette", "yaml"}


def lock_of(project: Workspace) -> Any:
    return yaml.safe_load((project.root / "dvc.lock").read_text(encoding="utf-8"))


def test_plan_with_nothing_to_do_imports_nothing_heavy(applied: Workspace) -> None:
    time.sleep(0.2)  # files of which the copy is younger than a tenth of a second are not remembered yet
    applied.mlstack("plan")  # fills the caches
    done = applied.call(sys.executable, ["-X", "importtime", str(BIN / "mlstack"), "plan", "--detailed-exitcode"])
    modules = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s*(\S+)", done.stderr, re.MULTILINE)
    assert "mlstack.planner.diff" in modules
    assert sorted(HEAVY & {module.partition(".")[0] for module in modules}) == []


def test_lock_is_what_dvc_itself_writes(applied: Workspace) -> None:
    ours = lock_of(applied)
    applied.dvc("repro", "--force", path=applied.python())
    assert lock_of(applied) == ours


def test_forty_stages_at_once_leave_one_complete_lock(start: Start, tmp_path: Path) -> None:
    environment = start("matrix").environment
    project = Workspace(tmp_path / "synthetic", environment)
    make_repository(project.root, dict(environment))
    write_mlstack(project.root, 40)
    project.mlstack("apply", "--yes")
    project.assert_settled()
    ours = lock_of(project)
    assert len(ours["stages"]) == 40
    project.dvc("repro", "--force")
    assert lock_of(project) == ours


def test_json_and_exit_code_tell_the_same(applied: Workspace) -> None:
    assert applied.plan()["no_changes"] is True
    applied.edit("mlstack.yaml", "depth: 4", "depth: 5")
    document = json.loads(applied.mlstack("plan", "--detailed-exitcode", "--json", code=2).stdout)
    assert document["no_changes"] is False
    assert document["summary"]["run"] == 2
