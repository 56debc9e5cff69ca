"""Make the recorded locks in this folder again: python tests/unit/graph/locks/make_locks.py (needs uv and a registry).

Addresses are taken out: a lock is data here, nothing is installed from it.
"""

import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = """\
[project]
name = "wine"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["urllib3[socks]>=2,<3", "click>=8; sys_platform != 'emscripten'", "shared"]
[project.optional-dependencies]
plot = ["six"]
[dependency-groups]
train = ["idna>=3", {include-group = "base"}]
base = ["certifi"]
dev = ["iniconfig>=2"%s]
[tool.uv.workspace]
members = ["libs/shared"]
[tool.uv.sources]
shared = {workspace = true}
"""
SHARED = """\
[project]
name = "shared"
version = "0.2.0"
requires-python = ">=3.11"
dependencies = ["packaging"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""


def run(folder: Path, *arguments: str) -> None:
    subprocess.run(["uv", *arguments, "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def record(source: Path, name: str) -> None:
    text = re.sub(r"(https?)://[^/\"\s]+", r"\1://registry.invalid", source.read_text())
    text = re.sub(r", upload-time = [^,}\s]+(?: [\d:.]+Z?)?", "", text)
    (HERE / name).write_text(text)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "libs" / "shared").mkdir(parents=True)
        (folder / "libs" / "shared" / "pyproject.toml").write_text(SHARED)
        for variant, dev in (("base", ""), ("dev_added", ', "pathspec"')):
            (folder / "pyproject.toml").write_text(PROJECT % dev)
            run(folder, "lock")
            (HERE / f"{variant}.pyproject.toml").write_text(PROJECT % dev)
            record(folder / "uv.lock", f"{variant}.uv.lock")
        run(folder, "export", "--no-dev", "--format", "pylock.toml", "--output-file", "pylock.toml")
        record(folder / "pylock.toml", "pylock.toml")
        run(folder, "export", "--no-dev", "--output-file", "requirements.txt")
        record(folder / "requirements.txt", "requirements.txt")


if __name__ == "__main__":
    main()
