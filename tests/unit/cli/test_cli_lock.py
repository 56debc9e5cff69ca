"""`mlstack lock`: what is pinned, and what is pinned anew."""

import json
import os
from pathlib import Path

import pytest

from mlstack.cli.main import main

FILE = """\
version: 1
project: demo
datasets:
  a: {{path: data/a.csv, source: "file://{folder}/a.csv"}}
  b: {{path: data/b.csv, source: "file://{folder}/b.csv"}}
stages:
  train: {{cmd: cat data/a.csv data/b.csv >out.csv, deps: [datasets.a, datasets.b], outs: [out.csv]}}
"""


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two pinned sources, which have changed since."""
    home, root, source = tmp_path / "home", tmp_path / "demo", tmp_path / "source"
    for folder in (home, root, source):
        folder.mkdir()
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", os.devnull)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(root)
    (root / "mlstack.yaml").write_text(FILE.format(folder=source))
    assert main(["init"]) == 0
    for name in ("a", "b"):
        (source / f"{name}.csv").write_text("1\n")
    assert main(["lock"]) == 0
    for name in ("a", "b"):
        (source / f"{name}.csv").write_text("2\n2\n")
    assert main(["lock"]) == 0
    capsys.readouterr()


def changed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["lock", "--json", *arguments]) == 0
    return [line.partition(":")[0] for line in json.loads(capsys.readouterr().out)["changes"]]


@pytest.mark.parametrize(
    ("arguments", "renewed"),
    [
        ([], []),
        (["--upgrade"], ["datasets.a", "datasets.b"]),
        (["--upgrade", "datasets.b"], ["datasets.b"]),
        (["a", "--upgrade"], ["datasets.a"]),
        (["--upgrade", "a", "--upgrade", "b"], ["datasets.a", "datasets.b"]),
    ],
)
def test_what_is_named_is_pinned_anew_and_without_a_name_everything(
    capsys: pytest.CaptureFixture[str], arguments: list[str], renewed: list[str]
) -> None:
    assert changed(capsys, *arguments) == renewed
    for name in ("a", "b"):
        assert (Path("data") / f"{name}.csv").stat().st_size == (4 if f"datasets.{name}" in renewed else 2)
    assert changed(capsys, "--upgrade", "datasets.a") == ([] if "datasets.a" in renewed else ["datasets.a"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["datasets.a"], "Addresses go with --upgrade"),
        (["--upgrade", "stages.train"], "stages.train: there is no source to look at anew"),
        (["--upgrade", "--check"], "--check writes nothing"),
        (["--upgrade", "--resolve"], "resolve first"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = Path("mlstack.lock").read_text()
    assert main(["lock", *arguments]) == 64
    assert said in capsys.readouterr().err
    assert Path("mlstack.lock").read_text() == before
