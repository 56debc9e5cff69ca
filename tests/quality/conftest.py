"""What the checks of the project itself share: its folder, its tracked files, its parsed modules."""

import ast
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> tuple[str, ...]:
    """Every file that Git tracks or would track, so that a new file is checked before its first commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()))


@pytest.fixture(scope="session")
def texts(tracked: tuple[str, ...]) -> Mapping[str, str]:
    """The tracked text files, by name."""
    found = {}
    for name in tracked:
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            found[name] = data.decode("utf-8")
    return found


@pytest.fixture(scope="session")
def library(tracked: tuple[str, ...]) -> Mapping[str, ast.Module]:
    """The modules of mlstack itself, parsed, by name."""
    names = [name for name in tracked if name.startswith("mlstack/") and name.endswith(".py")]
    assert names, "no module found below mlstack/"
    return {name: ast.parse((ROOT / name).read_text(encoding="utf-8"), filename=name) for name in names}
