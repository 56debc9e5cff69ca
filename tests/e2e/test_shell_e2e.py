"""A command or a shell in the environment of a stage: its Python, variables, secrets, folder; nothing is recorded."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal
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


def test_at_a_commit_its_data_is_there_and_the_checkout_is_removed(tiny: Workspace) -> None:
    first = tiny.git("rev-parse", "HEAD").strip()
    tiny.edit("mlstack.yaml", "word: first", "word: second")
    tiny.edit("mlstack.yaml", "COLOUR: blue", "COLOUR: red")
    tiny.mlstack("apply", "--yes")
    done = tiny.mlstack("shell", "make", "--commit", first, "--", "sh", "-c", "cat out.txt; echo $COLOUR; echo x > new")
    assert done.stdout == "first\nblue\n"
    assert (tiny.root / "out.txt").read_text() == "second\n"
    assert not (tiny.root / "new").exists()
    assert list((tiny.root / ".mlstack" / "worktrees").iterdir()) == []
    assert len(tiny.git("worktree", "list").splitlines()) == 1


def test_the_python_is_the_locked_one(applied: Workspace) -> None:
    line = "import sklearn, sys; print(sys.prefix, sklearn.__version__)"
    prefix, version = applied.mlstack("shell", "--", "python", "-c", line).stdout.split()
    # Other tests of the same run may have made environments of their own in the cache that they share.
    assert Path(prefix).is_relative_to(Path(applied.environment["XDG_CACHE_HOME"], "mlstack", "envs"))
    assert f"scikit-learn=={version}" in (applied.root / "requirements.txt").read_text()
    said = applied.mlstack("shell", "train", "--port", "8888", code=1).stderr
    assert "There is no notebook server in this environment" in said


def test_on_a_terminal_the_prompt_says_where_one_is_and_ctrl_c_is_the_commands(tiny: Workspace) -> None:
    environment = {name: value for name, value in tiny.environment.items() if name != "CI"}
    environment |= {"SHELL": "/bin/sh", "TERM": "dumb"}
    with Terminal([BIN / "mlstack", "shell", "make"], folder=tiny.root, environment=environment) as terminal:
        terminal.read_until("(stages.make) $ ")
        # What says so is what is interrupted: a second Ctrl-C could take the next line along, not yet read.
        terminal.write("sh -c 'echo is $COLOUR; exec sleep 600'\n")
        terminal.read_until("is blue\r\n")
        terminal.write("\x03")
        terminal.read_until("(stages.make) $ ")
        terminal.write("exit 3\n")
        assert terminal.wait() == 3
