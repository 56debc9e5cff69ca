"""`mlstack doctor` asks the places that a file names: remote, registry, cluster.

That all are well is seen where there are some: by the quickstart on a cluster.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import s3_server

FILE = """\
version: 1
project: wine
remote: REMOTE
registry: localhost:1/team
targets: {kubernetes: {kubeconfig: /nowhere/config}}
compute: {gpu: {target: kubernetes}, more: {target: kubernetes}}
pulumi: {secrets_provider: {passphrase: {secret: "env://NOT_SET_BY_ANYBODY"}}}
stages:
  train: {compute: gpu, cmd: "true", outs: [model.txt]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def rows(root: Path, remote: str) -> dict[str, Any]:
    """What `doctor` finds, in a process of its own: DVC's library sets up logging for good."""
    (root / "mlstack.yaml").write_text(FILE.replace("REMOTE", remote), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "mlstack"), "doctor", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_places_that_do_not_answer_are_named_each(root: Path) -> None:
    found = rows(root, "s3://store/dvc")
    assert found["registry"]["status"] == "problem"
    assert found["registry"]["found"].startswith("localhost:1/team: ")
    assert found["cluster of compute.gpu"]["status"] == "problem"
    records = found["pulumi's records"]
    assert (records["status"], "NOT_SET_BY_ANYBODY is not set" in records["found"]) == ("problem", True)
    assert "/nowhere/config" in found["cluster of compute.gpu"]["found"]
    assert "cluster of compute.more" not in found, "it is the same one"


def test_a_remote_is_asked_whether_it_is_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        missing = rows(root, "s3://store/dvc")["remote"]
        assert (missing["status"], "there is no bucket store" in missing["found"]) == ("problem", True)
        assert missing["hint"].endswith("dvc status --cloud")
        server.bucket("store")
        there = rows(root, "s3://store/dvc")["remote"]
        assert (there["status"], there["found"]) == ("ok", "s3://store/dvc")


def test_a_folder_that_the_first_push_makes_is_no_fault(root: Path) -> None:
    assert "made by the first push" in rows(root, "../store")["remote"]["found"]
    (root.parent / "store").mkdir()
    assert rows(root, "../store")["remote"]["status"] == "ok"


def test_a_remote_that_came_with_the_repository_is_not_asked(root: Path) -> None:
    (root / ".dvc").mkdir()
    text = "['remote \"far\"']\n    url = ssh://far.invalid/store\n    keyfile = /etc/shadow\n"
    (root / ".dvc" / "config").write_text(text, encoding="utf-8")
    found = rows(root, "far")["remote"]
    assert (found["status"], found["needed"]) == ("not asked", False)
    assert "keyfile" in found["found"]
