"""What `.ci/run` does where engines can be had, and where not: with stand-ins for the programs that take minutes."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.groups import GROUPS
from tests.engines.places import ROOM

SCRIPT = ROOM.parent.parent / ".ci" / "run"
MAKE = 'echo "make $*${MLSTACK_REQUIRE_ENGINES:+ of $MLSTACK_REQUIRE_ENGINES}" >>said; [ "$1" != engines ] || exit 0'
MAKE += "; exit 7"
WITHOUT_KUBERNETES = MAKE.replace("|| exit 0", '|| { [ "$2" != ENGINES=kubernetes ]; exit; }')
PYTHON = 'echo "$*" >>said; exit 0'
WITHOUT_DOCKER = 'echo "$*" >>said; [ "$4" != docker ]; exit'
NAMES = [group.name for group in GROUPS]


def asked(*names: str) -> list[str]:
    return [line for name in names for line in (f"make engines ENGINES={name}", f"-m tests.engines check {name}")]


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
    for name, text in {"id": "echo 0", "go": "", "apt-get": "", "make": MAKE}.items():
        found.program(f"bin/{name}", text)
    found.program(".venv/bin/python", PYTHON)
    return found


def test_where_engines_work_none_of_their_tests_may_be_left_out(place: Place) -> None:
    called, said = place.run()
    assert called == [*asked(*NAMES), f"make test of {' '.join(NAMES)}"]
    assert said == ""


@pytest.mark.parametrize(
    ("program", "text", "reason"),
    [
        ("bin/id", "echo 1000", "installing and starting them needs root"),
        ("bin/go", None, "there is no go on the PATH"),
        ("bin/apt-get", None, "there is no apt-get on the PATH"),
    ],
)
def test_where_no_engine_can_be_had_all_else_is_tested_and_the_reason_said(
    place: Place, program: str, text: str | None, reason: str
) -> None:
    if text is None:
        (place.root / program).unlink()
    else:
        place.program(program, text)
    assert place.run() == (["make test"], f"Tests of real engines are left out: {reason}.\n")


def test_a_group_that_cannot_be_installed_leaves_out_its_own_tests_only(place: Place) -> None:
    place.program("bin/make", WITHOUT_KUBERNETES)
    called, said = place.run()
    assert "-m tests.engines check kubernetes" not in called
    assert called[-1] == f"make test of {' '.join(name for name in NAMES if name != 'kubernetes')}"
    assert said == (
        "Tests of real engines (kubernetes) are left out: `make engines ENGINES=kubernetes` could not install them; "
        "the lines above say what failed.\n"
    )


def test_a_group_that_does_not_work_leaves_out_its_own_tests_only(place: Place) -> None:
    place.program(".venv/bin/python", WITHOUT_DOCKER)
    called, said = place.run()
    assert called == [*asked(*NAMES), f"make test of {' '.join(name for name in NAMES if name != 'docker')}"]
    assert said.startswith("Tests of real engines (docker) are left out: they are installed and do not work here")
