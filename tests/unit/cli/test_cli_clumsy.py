"""What a clumsy or hostile person meets: a sentence and the right exit code, no traceback and nothing destroyed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.cli.main import main
from mlstack.diagnostics import ExitCode
from mlstack.drivers.local.machine import Machine, describe_machine

FILE = """\
version: 1
project: demo
python: system
stages:
  a: {cmd: 'echo 1 >"$MLSTACK_OUT_O"', outs: {o: "o-${{ matrix.x }}"}, matrix: {x: [1, 2, 3, 4]}}
"""
CapSys = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home, root = tmp_path / "home", tmp_path / "demo"
    for folder in (home, root):
        folder.mkdir()
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", home / "gitconfig")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(root)
    (root / "mlstack.yaml").write_text(FILE)
    return root


def test_copies_of_a_plan_that_cannot_be_written(root: Path, capsys: CapSys) -> None:
    for option in ("--json-into", "--markdown-into", "--out"):
        place = root / "no" / "such" / "place"
        assert main(["plan", option, str(place)]) == ExitCode.ERROR
        assert str(place) in "".join(capsys.readouterr().err.split())


def test_a_plan_is_written_into_a_pipe_and_does_not_take_its_place(root: Path) -> None:
    pipe = root / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen([sys.executable, "-c", f"print(len(open({str(pipe)!r}).read()))"], stdout=subprocess.PIPE)
    try:
        assert main(["plan", "--out", str(pipe)]) == ExitCode.OK
        said, _ = reader.communicate(timeout=60)
    finally:
        reader.kill()
    assert int(said) > 100
    assert pipe.is_fifo()


@pytest.mark.parametrize("place", ["/dev/zero", "."])
def test_a_plan_file_that_is_none(root: Path, capsys: CapSys, place: str) -> None:
    assert root.is_dir()
    assert main(["apply", place]) == ExitCode.ERROR
    assert "The plan file cannot be read" in capsys.readouterr().err


def test_a_folder_that_was_removed(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: CapSys) -> None:
    (root / "sub").mkdir()
    monkeypatch.chdir(root / "sub")
    (root / "sub").rmdir()
    assert main(["plan"]) == ExitCode.ERROR
    assert "The current folder is not there any more" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["nowhere", "mlstack.yaml"])
def test_a_link_that_leads_nowhere_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: CapSys, target: str
) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "mlstack.yaml").symlink_to(target)
    monkeypatch.chdir(root / "sub")
    assert main(["plan"]) == ExitCode.ERROR, "and the project above is not taken for this one"
    told = capsys.readouterr().err
    assert "mlstack.yaml" in told
    assert "link" in told


def test_a_commit_on_no_branch_is_said(root: Path, capsys: CapSys) -> None:
    assert main(["init"]) == 0
    for command in (["add", "-A"], ["commit", "-qm", "x"], ["checkout", "-q", "--detach"]):
        subprocess.run(["git", *command], check=True)
    assert main(["apply", "--yes", "--commit"]) == 0
    assert "HEAD is detached: no branch holds this commit" in capsys.readouterr().err
    assert root.is_dir()


def test_a_tag_that_is_gone_does_not_keep_an_endpoint_alive(root: Path, capsys: CapSys) -> None:
    served = "models: {m: {from: stages.a.outs.o, framework: sklearn}}\nendpoints: {e: {model: models.m@gone}}\n"
    stage = 'stages: {a: {cmd: "echo 1 >o", outs: {o: o}}}\n'
    (root / "mlstack.yaml").write_text(f"version: 1\nproject: demo\npython: system\n{stage}{served}")
    assert main(["init"]) == 0
    assert main(["plan"]) == ExitCode.ERROR
    assert "no tag, branch or commit 'gone'" in " ".join(capsys.readouterr().err.split())
    assert main(["destroy", "--yes"]) == ExitCode.OK


def test_the_machine_is_looked_at_once_for_all_stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert root.is_dir()
    looks: list[Machine] = []

    def look() -> Machine:
        looks.append(describe_machine())
        return looks[-1]

    monkeypatch.setattr("mlstack.drivers.local.stages.describe_machine", look)
    assert main(["plan"]) == 0
    assert len(looks) == 1
