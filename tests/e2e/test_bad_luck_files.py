"""Damaged files and a machine that refuses: a sentence and exit code 1, nothing lost, and the way out works."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlstack.diagnostics import ExitCode
from tests.e2e.workspace import BIN, Workspace, clean_environment

pytestmark = pytest.mark.e2e

FILE = """version: 1
project: unlucky
params: {depth: 2}
stages:
  make: {cmd: "cat in.txt > made.txt", deps: [in.txt], outs: [made.txt]}
  use: {cmd: "cat made.txt > out/used.txt", deps: [stages.make], params: [depth], outs: [out/used.txt]}
"""


@pytest.fixture(scope="module")
def applied_plain(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Workspace:
    """Two small stages, applied and committed: made once, copied by `plain`."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "home").mkdir()
    (folder / "project").mkdir()
    workspace = Workspace(folder / "project", clean_environment(folder / "home", shared_cache))
    (workspace.root / "in.txt").write_text("in\n", encoding="utf-8")
    (workspace.root / "mlstack.yaml").write_text(FILE, encoding="utf-8")
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("Results")
    return workspace


@pytest.fixture
def plain(applied_plain: Workspace, tmp_path: Path) -> Workspace:
    """A copy that a test may change as it likes."""
    shutil.copytree(applied_plain.root, tmp_path / "project", symlinks=True)
    return Workspace(tmp_path / "project", applied_plain.environment)


def refused(plain: Workspace, *arguments: str, code: int = ExitCode.ERROR) -> str:
    """What a command says that must fail, on one line, whatever the width."""
    return " ".join(plain.mlstack(*arguments, code=code).stderr.split())


@pytest.mark.parametrize(
    ("name", "side"),
    [(name, "resolve") for name in ("dvc.yaml", "params.mlstack.yaml", "dvc.lock")]
    + [("dvc.lock", "--ours"), ("dvc.lock", "--theirs")],
)
def test_after_a_merge_conflict_either_side_can_be_taken(plain: Workspace, name: str, side: str) -> None:
    plain.git("checkout", "-qb", "other")
    plain.edit("mlstack.yaml", "depth: 2", "depth: 3")
    plain.edit("mlstack.yaml", "cat made.txt >", "cat made.txt made.txt >")
    plain.mlstack("apply", "--yes")
    plain.commit("Theirs")
    plain.git("checkout", "-q", "main")
    plain.edit("mlstack.yaml", "depth: 2", "depth: 4")
    plain.edit("mlstack.yaml", "cat made.txt >", "cat < made.txt >")
    plain.mlstack("apply", "--yes")
    plain.commit("Ours")
    plain.call("git", ["merge", "-q", "other"], code=1)
    for other in {"mlstack.yaml", "dvc.yaml", "params.mlstack.yaml", "dvc.lock"} - {name}:
        plain.git("checkout", "--ours", "--", other)
    text = refused(plain, "apply", "--yes")
    assert f"{name} has conflict markers" in text
    assert "mlstack lock --resolve" in text
    if side == "resolve":
        plain.mlstack("lock", "--resolve")
    else:
        plain.git("checkout", side, "--", name)
    plain.mlstack("apply", "--yes")
    plain.commit("Merge")
    plain.assert_settled()


@pytest.fixture
def without_rights(plain: Workspace) -> Iterator[Workspace]:
    """The outputs are in a folder that this user may not enter."""
    if os.geteuid() == 0:
        pytest.skip("root may enter any folder")
    folder = plain.root / "out"
    folder.chmod(0)
    yield plain
    folder.chmod(stat.S_IRWXU)


def test_a_folder_of_outputs_that_may_not_be_entered(without_rights: Workspace) -> None:
    without_rights.edit("mlstack.yaml", "depth: 2", "depth: 3")
    text = refused(without_rights, "apply", "--yes")
    assert "Permission denied" in text
    (without_rights.root / "out").chmod(stat.S_IRWXU)
    without_rights.mlstack("apply", "--yes")
    without_rights.assert_settled()


def test_a_configuration_of_dvc_that_is_not_text(plain: Workspace) -> None:
    (plain.root / ".dvc" / "config").write_bytes(b"\xff\xfe\x00")
    assert "DVC's configuration cannot be read" in refused(plain, "plan")
    plain.git("checkout", "--", ".dvc/config")
    plain.assert_settled()


def test_a_plan_that_cannot_be_saved(plain: Workspace) -> None:
    plain.edit("mlstack.yaml", "depth: 2", "depth: 3")
    text = refused(plain, "plan", "--out", "no/such/folder/plan.json")
    assert "Name a place that can be written" in text


def test_a_stale_plan_names_what_differs(plain: Workspace) -> None:
    plain.edit("mlstack.yaml", "depth: 2", "depth: 3")
    plain.mlstack("plan", "--out", "saved")
    plain.edit("mlstack.yaml", "depth: 3", "depth: 4")
    text = refused(plain, "apply", "saved")
    assert "stages.use: it was" in text
    assert "depth: 2 -> 3" in text
    assert "depth: 2 -> 4" in text
    assert "stages.make" not in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--json"], ["status"], ["--help"]])
def test_standard_output_on_a_full_disk(plain: Workspace, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [str(BIN / "mlstack"), *arguments]
        done = subprocess.run(
            command, cwd=plain.root, env=plain.environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == ExitCode.ERROR
    assert "No space left on device" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize("arguments", ["plan", "plan --json", "apply --yes --json"])
def test_standard_output_that_is_closed(plain: Workspace, arguments: str) -> None:
    done = plain.call("/bin/sh", ["-c", f'"{BIN / "mlstack"}" {arguments} >&-'])
    assert "bug" not in done.stderr
