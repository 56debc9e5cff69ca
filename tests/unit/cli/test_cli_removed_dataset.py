"""A dataset that the file does not declare any more, or at another path: its record goes, its data never does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.cli.main import main

FILE = """\
version: 1
project: demo
python: system
stages:
  train: {{cmd: echo 1 >model.bin, outs: [model.bin]}}
{datasets}
"""
DATASETS = "datasets: {{wine: {{path: data/wine.csv}}, beer: {{path: data/beer.csv, source: 'file://{source}'}}}}"
CapSys = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: CapSys) -> Path:
    """A project with two recorded datasets and one of somebody else, all committed, whose file has lost the two."""
    home, root, source = tmp_path / "home", tmp_path / "demo", tmp_path / "beer.csv"
    home.mkdir()
    (root / "data").mkdir(parents=True)
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", home / "gitconfig")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(root)
    (root / "data" / "wine.csv").write_text("1\n")
    (root / "data" / "theirs.csv").write_text("3\n")
    source.write_text("2\n")
    (root / "mlstack.yaml").write_text(FILE.format(datasets=DATASETS.format(source=source)))
    assert main(["init"]) == 0
    assert main(["apply", "--yes"]) == 0
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/theirs.csv"], check=True)
    git("add", "-A")
    git("commit", "-q", "-m", "data")
    (root / "mlstack.yaml").write_text(FILE.format(datasets=""))
    capsys.readouterr()
    return root


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def rows(capsys: CapSys, *arguments: str) -> dict[str, str]:
    assert main(["plan", "--json", *arguments]) == 0
    changes = json.loads(capsys.readouterr().out)["resource_changes"]
    return {change["address"]: change["change"]["actions"][0] for change in changes}


def cached(root: Path) -> set[str]:
    return {path.name for path in (root / ".dvc" / "cache" / "files").rglob("*") if path.is_file()}


def test_its_record_goes_and_its_data_stays(root: Path, capsys: CapSys) -> None:
    found = rows(capsys)
    assert (found["datasets.wine"], found["datasets.beer"]) == ("forget", "forget")
    before = cached(root)
    assert main(["apply", "--yes", "--commit"]) == 0
    for name in ("wine", "beer", "theirs"):
        assert (root / "data" / f"{name}.csv").exists()
    assert cached(root) >= before
    assert sorted(path.name for path in (root / "data").glob("*.dvc")) == ["theirs.csv.dvc"]
    assert json.loads((root / "mlstack.lock").read_text())["sources"] == {}
    assert git("status", "--short").split() == ["M", "mlstack.yaml"], "what was forgotten is committed"
    capsys.readouterr()
    assert main(["plan", "--detailed-exitcode"]) == 0


def test_destroy_and_a_try_leave_it_alone(root: Path) -> None:
    assert main(["destroy", "--yes"]) == 0
    assert main(["run", "--force"]) == 0
    assert (root / "data" / "wine.csv.dvc").exists()
    assert (root / "data" / "beer.csv.dvc").exists()


def test_one_can_be_named(root: Path, capsys: CapSys) -> None:
    assert main(["apply", "--yes", "--target", "datasets.wine"]) == 0
    assert not (root / "data" / "wine.csv.dvc").exists()
    capsys.readouterr()
    assert rows(capsys)["datasets.beer"] == "forget"


def test_a_new_name_for_the_same_path_forgets_nothing(root: Path, capsys: CapSys) -> None:
    (root / "mlstack.yaml").write_text(FILE.format(datasets="datasets: {red: {path: data/wine.csv}}"))
    found = rows(capsys)
    assert "datasets.wine" not in found
    assert found["datasets.red"] == "no-op"


def test_a_file_that_is_damaged_or_not_ours_is_nobody_s(root: Path, capsys: CapSys) -> None:
    (root / "data" / "wine.csv.dvc").write_text("outs: 3\n")
    assert "datasets.wine" not in rows(capsys)


def declare_moved(root: Path, **paths: str) -> None:
    known = {"wine": "data/wine.csv", "beer": "data/beer.csv"} | paths
    source = f"file://{root.parent / 'beer.csv'}"
    datasets = f"wine: {{path: {known['wine']}}}, beer: {{path: {known['beer']}, source: '{source}'}}"
    (root / "mlstack.yaml").write_text(FILE.format(datasets=f"datasets: {{{datasets}}}"))


def test_another_path_takes_the_record_along(root: Path, capsys: CapSys) -> None:
    declare_moved(root, wine="data/red.csv", beer="data/ale.csv")
    assert main(["plan"]) == 1
    assert 'did you mean "data/wine.csv"?' in capsys.readouterr().err
    (root / "data" / "wine.csv").rename(root / "data" / "red.csv")
    assert main(["plan"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "datasets.wine will be updated in place (because it was data/wine.csv)" in said
    assert '~ path: "data/wine.csv" -> "data/red.csv"' in said
    assert main(["run", "--force"]) == 0
    assert (root / "data" / "wine.csv.dvc").exists(), "a try records nothing"
    assert main(["apply", "--yes", "--commit"]) == 0
    recorded = sorted(path.name for path in (root / "data").glob("*.dvc"))
    assert recorded == ["ale.csv.dvc", "red.csv.dvc", "theirs.csv.dvc"]
    assert (root / "data" / "ale.csv").read_text() == "2\n"
    assert git("status", "--short").split() == ["M", "mlstack.yaml"], "the old record is out of Git too"
    capsys.readouterr()
    assert main(["plan", "--detailed-exitcode"]) == 0


def test_another_path_that_git_tracks(root: Path, capsys: CapSys) -> None:
    (root / "small.csv").write_text("1\n")
    git("add", "small.csv")
    declare_moved(root, wine="small.csv")
    assert rows(capsys)["datasets.wine"] == "update"
    assert main(["apply", "--yes"]) == 0
    assert not (root / "data" / "wine.csv.dvc").exists()
    assert not (root / "small.csv.dvc").exists()
    capsys.readouterr()
    assert main(["plan", "--detailed-exitcode"]) == 0
