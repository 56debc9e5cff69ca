"""What must never be kept, lost or done beyond what was asked: run, accept, destroy and lock on a real project."""

import subprocess
import time
from pathlib import Path

import pytest

from mlstack.cli.main import main
from mlstack.graph.hash_cache import HashCache, is_settled, stamp_of
from mlstack.state.environment_folder import backend_for
from mlstack.state.environment_lock import acquire
from mlstack.state.state import Entry
from mlstack.state.store import open_store

FILE = """\
version: 1
project: demo
params: {params}
stages:
  train:
    cmd: {cmd}
    deps: [train.py]
    params: [depth]
    outs: [model.bin]
"""
INLINE, IN_FILE = "{depth: 6}", "params.yaml"
VARIABLE = 'import json, os\nopen("model.bin", "w").write(str(json.loads(os.environ["MLSTACK_PARAMS"])["depth"]))\n'
PARAMS_FILE = 'open("model.bin", "w").write(open("params.yaml").read())\n'
GENERATED = 'open("model.bin", "w").write(open("params.mlstack.yaml").read())\n'


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    home, root = tmp_path / "home", tmp_path / "demo"
    home.mkdir()
    root.mkdir()
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", home / "cache"), ("GIT_CONFIG_GLOBAL", home / "gitconfig")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(root)
    write(root, params=INLINE, script=VARIABLE)
    (root / "params.yaml").write_text("depth: 6\n")
    assert main(["init"]) == 0
    capsys.readouterr()
    return root


def write(root: Path, *, params: str, script: str, cmd: str = "python train.py") -> None:
    (root / "mlstack.yaml").write_text(FILE.format(params=params, cmd=cmd))
    (root / "train.py").write_text(script)


@pytest.mark.parametrize(
    ("params", "script", "code"),
    [
        (IN_FILE, PARAMS_FILE, "try-not-in-params-file"),
        (INLINE, GENERATED, "try-reads-generated-params"),
    ],
)
def test_a_try_that_the_command_would_not_see_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], params: str, script: str, code: str
) -> None:
    write(root, params=params, script=script)
    assert main(["run", "--set", "depth=8", "--json"]) == 1
    assert code in "".join(capsys.readouterr())
    assert not (root / "model.bin").exists()


def test_a_try_in_the_command_itself_needs_no_file(root: Path) -> None:
    write(root, params=IN_FILE, script="import sys; open('model.bin', 'w').write(sys.argv[1])")
    file = root / "mlstack.yaml"
    text = (
        file.read_text().replace("    params: [depth]\n", "").replace("train.py\n", "train.py ${{ params.depth }}\n", 1)
    )
    file.write_text(text)
    assert main(["run", "--set", "depth=8"]) == 0
    assert (root / "model.bin").read_text() == "8"


def test_a_try_is_restored_when_it_is_meant(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--set", "depth=8"]) == 0
    assert not (root / "dvc.lock").exists()
    (root / "model.bin").unlink()
    write(root, params="{depth: 8}", script=VARIABLE)
    capsys.readouterr()
    assert main(["apply", "--yes"]) == 0
    assert "restore" in capsys.readouterr().out
    assert (root / "model.bin").read_text() == "8"


def test_keep_waits_for_nobody_and_takes_the_lock(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with acquire(backend_for(None, root, "local"), operation="apply", environment="local"):
        assert main(["run", "--keep"]) == 1
        assert "lock" in capsys.readouterr().err
        assert not (root / "dvc.lock").exists()
    assert main(["run", "--keep"]) == 0
    assert (root / "dvc.lock").exists()
    capsys.readouterr()
    assert main(["plan", "--detailed-exitcode"]) == 0


def test_accept_leaves_to_the_next_apply_what_a_killed_one_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "--yes"]) == 0
    store = open_store(backend_for(None, root, "local"), project="demo", environment="local")
    store.append(Entry(at="2026-01-01T00:00:00Z", apply_id="killed", event="apply-started"))
    (root / "train.py").write_text(f"# a comment\n{VARIABLE}")
    assert main(["accept", "train", "--because", "a comment"]) == 0
    again = open_store(backend_for(None, root, "local"), project="demo", environment="local")
    assert [entry.event for entry in again.pending()] == ["apply-started", "accepted"]
    capsys.readouterr()
    assert main(["apply", "--yes"]) == 0
    assert main(["plan", "--detailed-exitcode"]) == 0


def test_accept_refuses_what_has_no_effect(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "--yes"]) == 0
    assert main(["accept", "train", "--because", "why"]) == 1
    (root / "train.py").write_text(f"# a comment\n{VARIABLE}")
    (root / "model.bin").unlink()
    subprocess.run(["rm", "-rf", ".dvc/cache"], check=True)
    capsys.readouterr()
    assert main(["accept", "train", "--because", "why"]) == 1
    assert "cannot be kept" in capsys.readouterr().err


def test_destroy_and_refresh_only_write_nothing_into_the_repository(root: Path) -> None:
    assert main(["destroy", "--yes"]) == 0
    assert main(["apply", "--refresh-only", "--yes"]) == 0
    assert not (root / "mlstack.lock").exists()
    assert not (root / "dvc.yaml").exists()


WITH_DATA = """\
version: 1
project: demo
datasets: {rows: {path: data/rows.csv, source: "file://%s"}}
stages:
  train: {cmd: cp data/rows.csv model.bin, deps: [datasets.rows], outs: [model.bin]}
"""


def test_a_try_fetches_data_and_pins_nothing(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("1,2\n")
    (root / "mlstack.yaml").write_text(WITH_DATA % source)
    before = files_of(root)
    assert main(["run"]) == 0
    assert (root / "model.bin").read_text() == "1,2\n"
    made = files_of(root) - before
    assert made - {"model.bin", "data/rows.csv"} == set()
    assert main(["apply", "--yes"]) == 0
    assert {"data/rows.csv.dvc", "mlstack.lock", "dvc.lock"} <= files_of(root)


def test_a_try_shows_only_what_it_does(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "--yes"]) == 0
    text = (root / "mlstack.yaml").read_text()
    (root / "mlstack.yaml").write_text(text + "    description: for people\n")
    capsys.readouterr()
    assert main(["plan"]) == 0
    assert "~ stages.train" in capsys.readouterr().out
    assert main(["run"]) == 0
    said = "".join(capsys.readouterr())
    assert "Nothing to run" in said
    assert "updat" not in said


def test_what_the_file_no_longer_declares_can_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "mlstack.yaml"
    text = file.read_text()
    file.write_text(
        text + "  old: {cmd: touch old.bin, outs: [old.bin]}\n  older: {cmd: touch older.bin, outs: [older.bin]}\n"
    )
    assert main(["apply", "--yes"]) == 0
    file.write_text(text)
    capsys.readouterr()
    assert main(["plan", "--exclude", "stages.old"]) == 0
    shown = capsys.readouterr().out
    assert ". stages.older" in shown
    assert ". stages.old " not in shown + " "
    assert main(["apply", "--yes", "--target", "old"]) == 0
    shown = capsys.readouterr().out
    assert ". stages.old\n" in shown
    assert "stages.older" in (root / "dvc.yaml").read_text()
    assert "stages.old\n" not in (root / "dvc.yaml").read_text()


@pytest.mark.parametrize("command", [["plan"], ["apply", "--yes"]])
def test_looking_and_not_looking_exclude_each_other(
    root: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "--no-refresh", "--refresh-only"]) == 64
    assert "--no-refresh does not look" in capsys.readouterr().err


def files_of(root: Path) -> set[str]:
    """What Git would see, and what it ignores, without the folders of Git, DVC and mlstack."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] not in {".git", ".dvc", ".mlstack"}}


def test_a_secret_that_is_missing_is_said_before_anything_runs(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with (root / "mlstack.yaml").open("a", encoding="utf-8") as file:
        file.write("  last: {cmd: cp model.bin out.bin, deps: [stages.train], outs: [out.bin], ")
        file.write('env: {TOKEN: {secret: "env://NOT_SET_HERE"}}}\n')
    for command in (["apply", "--yes"], ["run"]):
        assert main(command) == 1
        assert "env://NOT_SET_HERE" in capsys.readouterr().err
        assert not (root / "model.bin").exists()
    monkeypatch.setenv("NOT_SET_HERE", "something")
    assert main(["apply", "--yes"]) == 0


def test_files_that_no_stage_declares_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "mine.txt").write_text("was here before\n")
    write(root, params=INLINE, script=VARIABLE + 'open("s.txt", "w").write("1")\nopen("mine.txt", "a").write("2")\n')
    assert main(["apply", "--yes"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Files came up that no stage declares s.txt: since stages.train ran." in said
    assert main(["apply", "--yes"]) == 0
    assert "no stage declares" not in capsys.readouterr().err
    write(root, params=INLINE, script=VARIABLE)
    assert main(["apply", "--yes"]) == 0
    assert "no stage declares" not in capsys.readouterr().err


def test_status_says_of_a_stage_that_its_run_failed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, params=INLINE, script="raise SystemExit(3)")
    assert main(["apply", "--yes"]) == 1
    capsys.readouterr()
    assert main(["status"]) == 0
    assert "stages.train  failed" in capsys.readouterr().out
    write(root, params=INLINE, script=VARIABLE)  # not what failed
    assert main(["status"]) == 0
    assert "stages.train  not run yet" in capsys.readouterr().out


def test_an_output_is_read_once_and_not_by_every_apply(root: Path) -> None:
    assert main(["apply", "--yes"]) == 0
    stamp = stamp_of((root / "model.bin").stat())
    while not is_settled(stamp[2], time.time_ns()):
        time.sleep(0.02)
    assert main(["apply", "--yes"]) == 0
    assert HashCache(root / ".mlstack" / "cache" / "digests").find_file("model.bin", stamp) is not None
