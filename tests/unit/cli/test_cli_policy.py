"""`require_approval` and `results: in-pull-request`, on a real project."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from mlstack.cli.approval import Approval
from mlstack.cli.main import main
from mlstack.cli.settings import Settings
from mlstack.diagnostics import MlstackError
from mlstack.graph.change import Action
from mlstack.planner.plan import Plan, Scope, Step
from mlstack.spec.address import Address
from mlstack.spec.spec import Spec

FILE = """\
version: 1
project: demo
python: system
stages:
  train: {cmd: echo 1 >model.bin, outs: [model.bin]}
environments:
  local: {default: true}
  prod: {require_approval: true}
"""
CapSys = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: CapSys) -> Path:
    home, root = tmp_path / "home", tmp_path / "demo"
    home.mkdir()
    root.mkdir()
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", home / "gitconfig")):
        monkeypatch.setenv(name, str(value))
    for name in [name for name in os.environ if name == "CI" or name.startswith(("CI_", "GITHUB_", "MLSTACK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(root)
    (root / "mlstack.yaml").write_text(FILE)
    assert main(["init"]) == 0
    capsys.readouterr()
    return root


def said(capsys: CapSys) -> str:
    """What went to standard error, on one line."""
    return " ".join(capsys.readouterr().err.split())


def digest(capsys: CapSys, *arguments: str) -> str:
    assert main(["plan", "--json", *arguments]) == 0
    return str(json.loads(capsys.readouterr().out)["digest"])


def approval_in_history(capsys: CapSys) -> str:
    assert main(["history", "-e", "prod", "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["records"][0]["approval"])


# ------------------------------------------------------------------------------------------------------- approval


def test_yes_is_no_approval(root: Path, capsys: CapSys) -> None:
    assert main(["apply", "-e", "prod", "--yes"]) == 1
    words = said(capsys)
    assert "This environment needs an approval" in words
    assert digest(capsys, "-e", "prod") in words
    assert main(["apply", "-e", "prod"]) == 1
    assert "This environment needs an approval" in said(capsys), "nobody is there to ask"
    assert not (root / "model.bin").exists()
    assert main(["apply", "-e", "local", "--yes"]) == 0


def test_the_digest_that_was_approved(root: Path, capsys: CapSys) -> None:
    assert main(["plan", "-e", "prod"]) == 0
    shown = said(capsys)
    approved = digest(capsys, "-e", "prod")
    assert approved in shown
    assert main(["apply", "-e", "prod", "--approved", "0" * 64]) == 1
    assert f"Approved was {'0' * 64}; planned this moment, the digest is {approved}" in said(capsys)
    (root / "mlstack.yaml").write_text(FILE.replace("echo 1", "echo 2"))
    assert main(["apply", "-e", "prod", "--approved", approved]) == 1
    assert not (root / "model.bin").exists()
    (root / "mlstack.yaml").write_text(FILE)
    assert main(["apply", "-e", "prod", "--approved", approved]) == 0
    assert (root / "model.bin").read_text() == "1\n"
    capsys.readouterr()
    assert approval_in_history(capsys) == "digest"
    assert main(["apply", "-e", "prod"]) == 0, "what changes nothing needs no approval"


def test_handing_over_a_plan_is_an_approval(root: Path, capsys: CapSys) -> None:
    assert main(["plan", "-e", "prod", "--out", "a.plan"]) == 0
    assert main(["apply", "-e", "prod", "a.plan", "--approved", "0" * 64]) == 1
    assert not (root / "model.bin").exists()
    assert main(["apply", "-e", "prod", "a.plan"]) == 0
    capsys.readouterr()
    assert approval_in_history(capsys) == "plan file"
    assert main(["history", "-e", "prod"]) == 0


@pytest.mark.parametrize(("answer", "how"), [("yes", "typed"), ("y", None)])
def test_a_person_may_type_it(monkeypatch: pytest.MonkeyPatch, answer: str, how: str | None) -> None:
    plan = Plan(
        project="p",
        environment="prod",
        profile=None,
        mlstack_version="0",
        created="",
        scope=Scope(),
        changes=(),
        steps=(Step(address=Address("stages.a"), action=Action.RUN),),
        digest="d",
        lineage=None,
        serial=0,
        commit=None,
        dirty=False,
    )
    spec = Spec(file="mlstack.yaml", project="p", environment="prod", resources={}, require_approval=True)
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    settings = Settings(command="apply", directory=Path(), interactive=True)
    if how is not None:
        assert Approval().obtain(settings, spec, plan, "?") == how
        return
    with pytest.raises(MlstackError) as caught:
        Approval().obtain(settings, spec, plan, "?")
    assert caught.value.diagnostics[0].code == "not-confirmed"


# -------------------------------------------------------------------------------------------------------- results


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def push_to_origin(root: Path) -> None:
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    git("init", "-q", "--bare", str(root.parent / "origin.git"))
    git("remote", "add", "origin", str(root.parent / "origin.git"))
    git("push", "-q", "-u", "origin", "main")
    git("remote", "set-head", "origin", "main")


def test_on_the_branch_that_is_merged_to_results_are_there(
    root: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_origin(root)
    missing = "With `results: in-pull-request`, what is merged to main brings its results along. These have none here: "
    assert main(["plan"]) == 0
    assert f"{missing}stages.train." in said(capsys), "on a laptop a warning"
    monkeypatch.setenv("CI", "true")
    assert main(["plan", "--no-locked"]) == 1
    assert f"{missing}stages.train." in said(capsys)
    assert main(["apply", "--yes", "--no-locked"]) == 1
    assert not (root / "model.bin").exists()
    git("checkout", "-q", "-b", "work")
    assert main(["apply", "--yes", "--no-locked"]) == 0
    git("add", "-A")
    git("commit", "-q", "-m", "results")
    git("checkout", "-q", "main")
    git("merge", "-q", "work")
    capsys.readouterr()
    assert main(["plan", "--detailed-exitcode"]) == 0
    assert missing not in said(capsys)


def test_results_may_come_after_the_merge(root: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mlstack.yaml").write_text(f"{FILE}results: on-merge\n")
    push_to_origin(root)
    monkeypatch.setenv("CI", "true")
    assert main(["apply", "--yes", "--no-locked"]) == 0
    assert "in-pull-request" not in said(capsys)


def test_what_always_runs_may_run_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mlstack.yaml").write_text(FILE.replace("outs: [model.bin]", "always: true"))
    push_to_origin(root)
    monkeypatch.setenv("CI", "true")
    assert main(["apply", "--yes", "--no-locked"]) == 0


def test_a_repository_of_one_s_own_hears_nothing_of_it(
    root: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    assert main(["plan"]) == 0
    assert "in-pull-request" not in said(capsys)
    monkeypatch.setenv("CI", "true")
    assert main(["apply", "--yes", "--no-locked"]) == 0
    assert (root / "model.bin").exists()
