"""A command or a shell in the environment of a stage: its Python, variables, secrets, folder; nothing is recorded."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.workspace import BIN, Workspace, clean_environment

pytestmark = pytest.mark.e2e

FILE = """
version: 1
project: tiny
python: system
params: {word: first}
stages:
  make:
    cmd: echo ${{ params.word }} > out.txt
    params: [word]
    env: {COLOUR: blue, TOKEN: {secret: "env://GIVEN_TOKEN"}}
    outs: {made: out.txt}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Workspace:
    """A project with one commit that is applied."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tiny").mkdir()
    environment = {**clean_environment(tmp_path / "home", tmp_path / "cache"), "GIVEN_TOKEN": "very-secret-value"}
    workspace = Workspace(tmp_path / "tiny", environment)
    (workspace.root / "mlstack.yaml").write_text(FILE)
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("first")
    return workspace


def test_a_command_has_what_the_stage_has_and_its_code_is_passed_on(tiny: Workspace) -> None:
    line = 'echo "$COLOUR $TOKEN $MLSTACK_STAGE $MLSTACK_OUT_MADE"; pwd; exit 7'
    said = tiny.mlstack("shell", "make", "--", "sh", "-c", line, code=7).stdout
    place = tiny.root
    assert said == f"blue very-secret-value stages.make {place}/out.txt\n{place}\n"
    # without an address: what all stages have, and nothing of a single one
    said = tiny.mlstack("shell", "--", "sh", "-c", 'echo "$COLOUR|$TOKEN|$MLSTACK_STAGE|$MLSTACK_PROJECT"').stdout
    assert said == "|||tiny\n"
    assert tiny.mlstack("shell", "--", "sh", "-c", "kill -9 $$", code=137).stdout == ""
    assert "no such command" in tiny.mlstack("shell", "--", "no-such-program", code=127).stderr
    assert "after two dashes" in tiny.mlstack("shell", "make", "ls", code=64).stderr
    assert tiny.git("status", "--porcelain") == ""


def test_commands_can_come_from_standard_input(tiny: Workspace) -> None:
    done = subprocess.run(
        [BIN / "mlstack", "shell", "make"],
        cwd=tiny.root,
        env={**tiny.environment, "SHELL": "/bin/sh"},
        input="echo $COLOUR\nexit 5\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (5, "blue\n")
