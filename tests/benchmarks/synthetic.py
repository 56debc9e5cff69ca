"""Projects of any size, made of trivial stages, and the same work as the peers write it down.

Stage `s00017` writes one line; every tenth stage starts a new chain, the others read what the stage before wrote. So
the width grows with the size, and neither side is helped by a special shape.
"""

import json
import os
import subprocess
from pathlib import Path

CHAIN = 10


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of every measured command: no user configuration, compiled modules kept, no colours."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "bench",
        "GIT_AUTHOR_EMAIL": "bench@example.com",
        "GIT_COMMITTER_NAME": "bench",
        "GIT_COMMITTER_EMAIL": "bench@example.com",
        "NO_COLOR": "1",
        "DVC_NO_ANALYTICS": "1",
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
    }


def stage_names(count: int) -> list[str]:
    """The names of `count` stages, in the order of their chains."""
    return [f"s{number:05d}" for number in range(count)]


def _links(count: int) -> list[tuple[str, str, str]]:
    """Name, input and output of each stage."""
    names = stage_names(count)
    return [
        (name, "data/input.txt" if number % CHAIN == 0 else f"out/{names[number - 1]}.txt", f"out/{name}.txt")
        for number, name in enumerate(names)
    ]


def _command(source: str, out: str, name: str) -> str:
    return f"echo {name} > {out} && cat {source} > /dev/null"


def make_repository(root: Path, environment: dict[str, str]) -> None:
    """Make `root` a Git and DVC repository with one input file and one commit."""
    (root / "data").mkdir(parents=True)
    (root / "out").mkdir()
    (root / ".gitignore").write_text("/out/\n", encoding="utf-8")
    (root / "data" / "input.txt").write_text("input\n", encoding="utf-8")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "Start"],
    ):
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)


def write_mlstack(root: Path, count: int) -> None:
    """Write `mlstack.yaml` with `count` stages."""
    lines = ["version: 1", "project: synthetic", "stages:"]
    names = set(stage_names(count))
    for name, source, out in _links(count):
        stem = Path(source).stem
        dep = f"stages.{stem}.outs.text" if stem in names else source
        lines += [
            f"  {name}:",
            f"    cmd: {_command(source, out, name)}",
            f"    deps: [{dep}]",
            f"    outs: {{text: {out}}}",
        ]
    (root / "mlstack.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


MIXED = {"datasets": 10, "stages": 70, "models": 10, "endpoints": 10}
"""The resources of `write_mixed`, by kind."""

_MODEL = """\
class Length:
    def load(self, path):
        self.length = len(open(path).read())

    def predict(self, inputs):
        return {"length": [self.length]}
"""


def write_mixed(root: Path) -> None:
    """Write a project of 100 resources of all kinds: datasets that DVC holds, stages, models and live endpoints."""
    write_mlstack(root, MIXED["stages"])
    text = (root / "mlstack.yaml").read_text(encoding="utf-8").replace("stages:", "python: system\nstages:", 1)
    (root / "length.py").write_text(_MODEL, encoding="utf-8")
    for number in range(MIXED["datasets"]):
        (root / "data" / f"d{number}.csv").write_text(f"{number}\n", encoding="utf-8")
    with (root / "mlstack.yaml").open("w", encoding="utf-8") as file:
        file.write(text)
        file.writelines(["datasets:\n", *(f"  d{n}: {{path: data/d{n}.csv}}\n" for n in range(MIXED["datasets"]))])
        file.write("models:\n")
        for number in range(MIXED["models"]):
            source = f"stages.s{number:05d}.outs.text"
            file.write(f'  m{number}: {{from: {source}, framework: python, class: "length:Length"}}\n')
        file.writelines(["endpoints:\n", *(f"  e{n}: {{model: models.m{n}}}\n" for n in range(MIXED["endpoints"]))])


def write_dvc(root: Path, count: int) -> None:
    """Write `dvc.yaml` with the same stages."""
    stages = {
        name: {"cmd": _command(source, out, name), "deps": [source], "outs": [out]}
        for name, source, out in _links(count)
    }
    (root / "dvc.yaml").write_text(json.dumps({"stages": stages}, indent=1), encoding="utf-8")  # JSON is YAML


def write_terraform(root: Path, count: int) -> None:
    """Write `main.tf` with as many `terraform_data`, linked in the same way. That type needs no provider download."""
    root.mkdir(parents=True)
    names = set(stage_names(count))
    blocks = []
    for name, source, _ in _links(count):
        stem = Path(source).stem
        value = f"terraform_data.{stem}.output" if stem in names else '"input"'
        blocks.append(f'resource "terraform_data" "{name}" {{\n  input = {value}\n}}\n')
    (root / "main.tf").write_text("\n".join(blocks), encoding="utf-8")
