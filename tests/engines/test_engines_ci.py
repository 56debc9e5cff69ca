"""What `.ci/run` does where engines can be had, and where not: with stand-ins for the programs that take minutes."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.places import ROOM

SCRIPT = ROOM.parent.parent / ".ci" / "run"
MAKE = 'echo "make $1 ${MLSTACK_REQUIRE_ENGINES:-}" >>said; [ "$1" != engines ] || exit %d; exit 7'
CHECKED = ["make engines ", "-m tests.engines check"]
PYTHON = 'echo "$*" >>said; exit %d'


@dataclass
class Place:
    """A checkout with nothing in it but the script."""

    root: Path

    def program(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def run(self) -> tuple[list[str], str]:
        """Return what was called, and what was said of engines. The exit code is always that of the tests."""
        done = subprocess.run(
            [self.root / ".ci" / "run"],
            env={"PATH": str(self.root / "bin")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7, done.stderr
        return (self.root / "said").read_text(encoding="utf-8").splitlines(), done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """One where everything works but the tests."""
    found = Place(tmp_path)
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "run")
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "timeout", "sh"):
        real = shutil.which(name)
        assert real is not None
        (tmp_path / "bin" / name).symlink_to(real)
    for name, text in {"id": "echo 0", "go": "", "apt-get": "", "make": MAKE % 0}.items():
        found.program(f"bin/{name}", text)
    found.program(".venv/bin/python", PYTHON % 0)
    return found


def test_where_engines_work_none_of_their_tests_may_be_left_out(place: Place) -> None:
    called, said = place.run()
    assert called == [*CHECKED, "make test 1"]
    assert said == ""


@pytest.mark.parametrize(
    ("program", "text", "reason", "called"),
    [
        ("bin/id", "echo 1000", "installing and starting them needs root", []),
        ("bin/go", None, "there is no go on the PATH", []),
        ("bin/apt-get", None, "there is no apt-get on the PATH", []),
        ("bin/make", MAKE % 2, "`make engines` could not install them", ["make engines "]),
        (".venv/bin/python", PYTHON % 1, "they are installed and do not work here", CHECKED),
    ],
)
def test_where_engines_cannot_be_had_all_else_is_tested_and_the_reason_said(
    place: Place, program: str, text: str | None, reason: str, called: list[str]
) -> None:
    if text is None:
        (place.root / program).unlink()
    else:
        place.program(program, text)
    got, said = place.run()
    assert got == [*called, "make test "]
    assert said.startswith(f"Tests of real engines are left out: {reason}")
