"""`${{ endpoints.progression.url }}`: known after apply, put in where a process needs it, and nowhere else."""

import json
import os
from pathlib import Path

import psutil
import yaml

from tests.e2e.conftest import Start
from tests.e2e.workspace import Workspace

PLACEHOLDER = "(known after apply)"

MORE = """\
  front:
    model: models.progression
    env:
      BACKEND: "${{ endpoints.progression.url }}/v2"
      SERVES: "${{ models.progression.version | upper }}"
      DATA: "${{ datasets.patients.digest }}"
      PREPARED: "${{ stages.prepare.outs.train.digest }}"
"""
CARD = """\
  card:
    cmd: echo "$VERSION" > card.txt
    env: {VERSION: "version ${{ models.progression.version }}"}
    outs: [card.txt]

models:
"""


def process_of(workspace: Workspace, endpoint: str) -> psutil.Process:
    recorded = json.loads(workspace.mlstack("show", endpoint, "--json").stdout)["recorded"]
    return psutil.Process(recorded["attributes"]["pid"])


def model_version(workspace: Workspace) -> str:
    lock = yaml.safe_load((workspace.root / "dvc.lock").read_text(encoding="utf-8"))
    outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
    return str(outs["models/progression.joblib"])


def files_with(text: str, root: Path) -> list[str]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path.relative_to(root)))
    return found


def test_an_endpoint_and_a_stage_get_what_others_gave(start: Start) -> None:
    workspace = start("quickstart")
    file = workspace.root / "mlstack.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("models:\n", CARD, 1) + MORE, encoding="utf-8")
    workspace.init()

    shown = workspace.mlstack("plan").stdout
    assert f"env.BACKEND: {PLACEHOLDER}" in shown
    workspace.mlstack("apply", "--yes")
    workspace.assert_settled()
    version = model_version(workspace)
    assert (workspace.root / "card.txt").read_text() == f"version {version}\n"
    seen = process_of(workspace, "endpoints.front").environ()
    assert seen["BACKEND"] == f"{workspace.url('endpoints.progression')}/v2"
    assert seen["SERVES"] == version.upper()
    assert seen["DATA"]
    assert seen["DATA"] != version
    assert f"md5: {seen['PREPARED']}" in (workspace.root / "dvc.lock").read_text()
    assert files_with(PLACEHOLDER, workspace.root) == []
    workspace.commit("Results")

    process = process_of(workspace, "endpoints.front")
    workspace.mlstack("apply", "--yes", "--replace", "endpoints.progression")
    assert process.is_running(), "the url stayed, so what uses it was left alone"
    workspace.assert_settled()

    workspace.edit("mlstack.yaml", "depth: 4", "depth: 3")
    assert workspace.actions()["stages.card"] == "run"
    workspace.mlstack("apply", "--yes")
    workspace.assert_settled()
    newer = model_version(workspace)
    assert newer != version
    assert (workspace.root / "card.txt").read_text() == f"version {newer}\n"
    assert process_of(workspace, "endpoints.front").environ()["SERVES"] == newer.upper()
    assert files_with(PLACEHOLDER, workspace.root) == []
