"""What may be imported before mlstack knows what it is asked for (design: start-up budget)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

HEAVY = {
    "asyncio",
    "docker",
    "dvc",
    "git",
    "jinja2",
    "networkx",
    "pulumi",
    "pydantic",
    "requests",
    "starlette",
    "uvicorn",
    "yaml",
}


def imported_by(*arguments: str, cwd: Path) -> set[str]:
    """The top-level packages that one call of the installed program imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", BIN / "mlstack", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    modules = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s*(\S+)", done.stderr, re.MULTILINE)
    assert "mlstack.cli.main" in modules
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_nothing_heavy_is_imported(argument: str, tmp_path: Path) -> None:
    heavy = sorted(HEAVY & imported_by(argument, cwd=tmp_path))
    assert not heavy, f"`mlstack {argument}` imports {', '.join(heavy)}"
