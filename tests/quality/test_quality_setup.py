"""What a person meets before anything is installed: the targets of make and what is said when something is missing."""

import os
import subprocess
from pathlib import Path

import pytest

GOOD = "exit 0"
OLD = 'case "$*" in *version_info*) exit 1;; --version) echo "Python 3.9.1";; esac'
BARE = 'case "$*" in *ensurepip*) exit 1;; esac'


def preflight(root: Path, folder: Path, script: str | None) -> subprocess.CompletedProcess[str]:
    """Run the check with a stand-in for the interpreter; None: there is none."""
    stand_in = folder / "python-of-test"
    if script is not None:
        stand_in.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [root / ".ci" / "preflight", stand_in.name], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "not on the PATH"),
        (OLD, "Python 3.9.1 is too old; 3.11 or newer"),
        (BARE, "sudo apt install python3-venv"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(script: str | None, said: str, root: Path, tmp_path: Path) -> None:
    done = preflight(root, tmp_path, script)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_usable_interpreter_passes_in_silence(root: Path, tmp_path: Path) -> None:
    done = preflight(root, tmp_path, GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_make_alone_lists_every_target_that_is_for_people(root: Path) -> None:
    listed = subprocess.run(["make", "--no-print-directory"], cwd=root, capture_output=True, text=True, check=True)
    phony = next(line for line in (root / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert {line.split()[1] for line in listed.stdout.splitlines()} == set(phony.split()[1:])


def test_continuous_integration_runs_what_a_person_types(root: Path) -> None:
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
    assert "run: .ci/run" in (root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
