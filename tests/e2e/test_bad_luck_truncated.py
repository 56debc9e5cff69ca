"""Every file that mlstack keeps, cut off and spoilt in every way that a crash, a disk or a merge can: end to end.

Never a crash, never a lost result; a sentence that names the file, and a way out that works.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlstack.diagnostics import ExitCode
from tests.e2e.forked import Forked
from tests.e2e.workspace import BIN, Workspace, clean_environment

pytestmark = pytest.mark.e2e

# Names and contents that are no ASCII, so that a file can end in the middle of a character.
FILE = """version: 1
project: unlucky
params: {{depth: 2, note: "größer"}}
datasets:
  held: {{path: held.csv}}
  got: {{path: got.csv, source: "{source}"}}
stages:
  make:
    cmd: 'echo make >> "$WITNESS"; cat in.txt held.csv got.csv > größe.txt'
    deps: [in.txt, datasets.held, datasets.got]
    outs: [größe.txt]
  use:
    cmd: 'echo use >> "$WITNESS"; while [ -e "$WITNESS.hold" ]; do sleep 0.05; done; cat größe.txt > out/used.txt'
    deps: [stages.make]
    params: [depth, note]
    outs: [out/used.txt]
"""

STATE = ".mlstack/state/local"
KEPT = {
    "snapshot": f"{STATE}/state.json",
    "backup": f"{STATE}/state.backup.json",
    "journal, first": f"{STATE}/journal/*<",
    "journal, last": f"{STATE}/journal/*>",
    "history": f"{STATE}/history/*<",
    "lock": f"{STATE}/lock.json",
    "run that is done": f"{STATE}/runs/stages.make/*<",
    "run that was left": f"{STATE}/runs/stages.use/*>",
    "order of a run": ".mlstack/runs/stages.use/*/order.json>",
    "result of a run": ".mlstack/runs/stages.use/*/result.json>",
    "holder of the workspace": ".mlstack/workspace.holder.json",
    "dvc.lock": "dvc.lock",
    "dvc.yaml": "dvc.yaml",
    "params": "params.mlstack.yaml",
    "mlstack.lock": "mlstack.lock",
    "dataset": "held.csv.dvc",
    "dataset with a source": "got.csv.dvc",
    "run-cache": ".dvc/cache/runs/*/*/*<",
    "ignored by Git": ".gitignore",
    "plan": "saved.plan",
    "cached spec": ".mlstack/cache/spec-*<",
    "cached lock": ".mlstack/cache/dvc/lock-*<",
    "cached digests": ".mlstack/cache/digests/digests.msgpack",
}


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The ways in which a file can be spoilt; each differs from the file."""
    lines = data.splitlines(keepends=True)
    middle = len(lines) // 2
    made = {
        "empty": b"",
        "zeros": bytes(len(data)),
        "first byte": data[:1],
        "no newline": data.rstrip(b"\n"),
        "whole lines": b"".join(lines[:middle]),
        "middle of a line": b"".join(lines[:middle]) + lines[middle][: len(lines[middle]) // 2],
        "middle of a character": next((data[: at + 1] for at, byte in enumerate(data) if byte >= 0xC0), data),
        "garbage behind": data + b"garbage\n",
        "another JSON": b"{}\n",
        "a conflict": b"<<<<<<< HEAD\n" + data + b"=======\n" + data + b">>>>>>> other\n",
    }
    return ((name, spoilt) for name, spoilt in made.items() if spoilt != data)


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[Workspace]:
    """A project whose second apply was killed while `use` ran; `use` itself went on and ended well."""
    folder = tmp_path_factory.mktemp("truncated")
    (folder / "home").mkdir()
    (folder / "source.csv").write_text("ü,1\n", encoding="utf-8")
    root = folder / "project"
    root.mkdir()
    environment = clean_environment(folder / "home", shared_cache) | {"WITNESS": str(folder / "witness")}
    workspace = Workspace(root, environment)
    (root / "in.txt").write_text("in\n", encoding="utf-8")
    file = FILE.format(source=f"file://{folder / 'source.csv'}")
    (root / "mlstack.yaml").write_text(file, encoding="utf-8")
    workspace.git("init", "-q", "-b", "main")
    workspace.init()
    (root / "held.csv").write_text("é\n", encoding="utf-8")  # not tracked by Git: DVC holds it
    workspace.mlstack("apply", "--yes")
    workspace.commit("Results")
    (root / "in.txt").write_text("another\n", encoding="utf-8")
    (folder / "witness").unlink()
    hold = folder / "witness.hold"
    hold.touch()
    apply = subprocess.Popen([BIN / "mlstack", "apply", "--yes"], cwd=root, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    try:
        while "use" not in ((folder / "witness").read_text() if (folder / "witness").exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        apply.send_signal(signal.SIGKILL)
        apply.wait()
        hold.unlink()
    while workspace.processes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workspace.mlstack("plan", "--out", "saved.plan")
    yield workspace
    workspace.kill_everything()


def found(root: Path, pattern: str) -> Path:
    """The file that a pattern means: `<` the first in order, `>` the newest."""
    if pattern[-1] not in "<>":
        return root / pattern
    files = sorted(root.glob(pattern[:-1]))
    return files[0] if pattern[-1] == "<" else max(files, key=lambda path: (path.stat().st_mtime, path.name))


@pytest.fixture(scope="module")
def forked(left_behind: Workspace) -> Iterator[Forked]:
    with Forked(left_behind.environment) as commands:
        yield commands


@pytest.mark.parametrize("what", KEPT)
def test_a_spoilt_file_is_named_and_nothing_is_lost(
    left_behind: Workspace, forked: Forked, tmp_path: Path, what: str
) -> None:
    name = found(left_behind.root, KEPT[what]).relative_to(left_behind.root)
    data = (left_behind.root / name).read_bytes()
    commands = [["status"], ["plan"], ["apply", "--yes"]]
    commands += {"plan": [["apply", "saved.plan"]], "history": [["history"]]}.get(what, [])
    for how, spoilt in damages(data):
        case = f"{what}, {how}"
        project = Workspace(tmp_path / "project", left_behind.environment)
        shutil.copytree(left_behind.root, project.root, symlinks=True)
        witness = Path(project.environment["WITNESS"])
        witness.write_text("", encoding="utf-8")
        (project.root / name).chmod(0o644)
        (project.root / name).write_bytes(spoilt)
        refused = False
        for command in commands:
            code, said = forked.mlstack(project.root, *command)
            assert code in (ExitCode.OK, ExitCode.ERROR), f"{case}, {command}: {code}\n{said}"
            assert "Traceback" not in said, f"{case}, {command}\n{said}"
            if code == ExitCode.ERROR:
                assert name.name in "".join(said.split()), f"{case}, {command}: the file is not named\n{said}"
                assert "hint:" in said, f"{case}, {command}: no way out\n{said}"
                refused = refused or command == ["apply", "--yes"]
        if refused:
            (project.root / name).write_bytes(data)  # from the backup, from Git, from a copy
            code, said = forked.mlstack(project.root, "apply", "--yes")
            assert code == ExitCode.OK, f"{case}: {said}"
        code, said = forked.mlstack(project.root, "plan", "--detailed-exitcode")
        assert code == ExitCode.OK, f"{case}: the next plan is not empty\n{said}"
        # `make` was recorded before the kill; `use` was done, and is collected unless what says so is gone.
        ran = witness.read_text(encoding="utf-8").split()
        assert "make" not in ran, f"{case}: a result was lost"
        assert ran.count("use") <= 1, f"{case}: it ran twice"
        if refused:
            assert ran == [], f"{case}: a result was lost"
        assert (project.root / "out/used.txt").read_text(encoding="utf-8") == "another\né\nü,1\n", case
        shutil.rmtree(project.root)
