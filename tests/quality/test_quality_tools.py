"""The tools that hold style, types and import layers, run as `make lint` and a person would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

TOOLS = {
    "ruff check": ("ruff", "check", "--quiet", "--output-format", "concise", "."),
    "ruff format": ("ruff", "format", "--check", "--quiet", "."),
    "mypy --strict": ("mypy", "--no-error-summary"),
    "import layers": ("lint-imports", "--no-cache"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_has_nothing_to_say(tool: str, root: Path) -> None:
    name, *arguments = TOOLS[tool]
    done = subprocess.run([BIN / name, *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{tool} found:\n{done.stdout}{done.stderr}", pytrace=False)
