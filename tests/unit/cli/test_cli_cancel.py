"""`mlstack cancel`: a run ends, whoever waits for it says so, and nothing of it is recorded."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlstack.cli.main import main
from mlstack.state.environment_folder import backend_for
from mlstack.state.runs import read_runs
from mlstack.state.state import RunRecord

FILE = """\
version: 1
project: demo
stages:
  slow: {cmd: "touch begun; sleep 600", outs: [slow.txt], retry: {error: 3}}
"""
PROGRAM = Path(sys.executable).parent / "mlstack"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home, root = tmp_path / "home", tmp_path / "demo"
    home.mkdir()
    root.mkdir()
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", home / "gitconfig")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(root)
    (root / "mlstack.yaml").write_text(FILE)
    assert main(["init"]) == 0
    return root


def recorded(root: Path) -> RunRecord:
    (run,) = read_runs(backend_for(None, root, "local"))
    return run


def test_a_run_is_cancelled_while_an_apply_waits_for_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (root.parent / "apply.log").open("wb") as log:
        command = [str(PROGRAM), "apply", "--yes"]
        applying = subprocess.Popen(command, env=dict(os.environ), stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not (root / "begun").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert main(["cancel", "slow"]) == 0
        assert "is cancelled" in capsys.readouterr().out
        assert applying.wait(120) == 1, "it tries no more"
    finally:
        if applying.poll() is None:
            applying.kill()
        applying.wait(60)
    assert recorded(root).status == "cancelled"
    assert not (root / "slow.txt").exists()
    assert main(["cancel", "slow"]) == 1
    assert "no run of it goes on" in capsys.readouterr().err
