"""The simple commands on a real project: Git, DVC, processes."""

import json
import os
import pty
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlstack.cli.addresses import one_address
from mlstack.cli.compare_read import _named
from mlstack.cli.explain import is_unknown
from mlstack.cli.init import project_name
from mlstack.cli.main import main
from mlstack.diagnostics import ExitCode, MlstackError
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.spec.address import Address, Kind
from mlstack.state.environment_folder import backend_for
from mlstack.state.environment_lock import acquire
from mlstack.state.formats import LOCK_KEY, LockFile, encode

FILE = """\
version: 1
project: demo
params: {depth: 6}
datasets:
  raw: {path: data/raw.txt}
stages:
  train:
    cmd: python train.py
    deps: [datasets.raw, train.py]
    params: [depth]
    outs: {model: out/model.bin}
    metrics: [out/metrics.json]
models:
  demo: {from: stages.train.outs.model, framework: python, class: "m:M", gate: {stages.train.metrics.rmse: {max: 2}}}
"""
TRAIN = """\
import json, os
depth = json.loads(os.environ["MLSTACK_PARAMS"])["depth"]
print("training at", depth, flush=True)
print("\\x1b[2Jsteering")
open("out/model.bin", "w").write(open("data/raw.txt").read() * depth)
json.dump({"rmse": 1 / depth}, open("out/metrics.json", "w"))
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "gitconfig").write_text("[user]\nname=T\nemail=t@example.org\n[init]\ndefaultBranch=main\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    root = tmp_path / "demo"
    (root / "data").mkdir(parents=True)
    (root / "data" / "raw.txt").write_text("abc")
    (root / "train.py").write_text(TRAIN)
    (root / "m.py").write_text("class M: ...\n")
    (root / "mlstack.yaml").write_text(FILE)
    monkeypatch.chdir(root)
    assert main(["init"]) == 0
    capsys.readouterr()
    return root


@pytest.fixture
def applied(root: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["apply", "--yes"]) == 0, capsys.readouterr().err
    git("add", "-A")
    git("commit", "-qm", "Train")
    capsys.readouterr()
    return root


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    found = main(list(arguments))
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    return json.loads(output(capsys, *arguments, "--json", code=code))


# ---------------------------------------------------------------------------------------------------- init


def test_init_makes_what_is_missing_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "7 wine & cheese"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert "Wrote a first mlstack.yaml" in output(capsys, "init")
    assert "project: project-7-wine-cheese" in (folder / "mlstack.yaml").read_text()
    assert (folder / ".git").is_dir()
    assert (folder / ".dvc" / "config").is_file()
    assert (folder / ".mlstack" / ".gitignore").read_text() == "*\n"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".git/" not in str(path)}
    assert "nothing was changed" in output(capsys, "init")
    assert before == {path: path.read_bytes() for path in before}
    assert "is valid" in output(capsys, "validate")
    assert main(["apply", "--yes"]) == 0
    assert (folder / "out" / "hello.txt").read_text() == "hello\n"
    capsys.readouterr()
    assert "No changes." in output(capsys, "plan", "--detailed-exitcode")


def test_init_takes_a_dvc_project_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "-q")
    (folder / "dvc.yaml").write_text("stages:\n  make:\n    cmd: echo hi > hi.txt\n    outs: [hi.txt]\n")
    assert main(["init"]) == ExitCode.ERROR
    assert "mlstack init --from-dvc" in capsys.readouterr().err
    assert not (folder / "mlstack.yaml").exists()
    assert document(capsys, "init", "--from-dvc")["done"]
    assert "echo hi > hi.txt" in (folder / "mlstack.yaml").read_text()
    assert main(["init", "--from-dvc"]) == ExitCode.ERROR
    assert "already" in capsys.readouterr().err
    assert "make" in output(capsys, "plan")


@pytest.mark.parametrize(
    ("text", "name"),
    [("wine", "wine"), ("9", "project-9"), ("", "project"), ("名前", "project"), ("a" * 99, "a" * 63), ("a.b", "a-b")],
)
def test_project_names(text: str, name: str) -> None:
    assert project_name(text) == name


def test_init_refuses_a_bad_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--project", "a b"]) == ExitCode.USAGE


# ---------------------------------------------------------------------------------------------------- validate, schema


def test_validate_counts_and_names_environments(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE + "environments:\n  local: {default: true}\n  prod: {require_clean: true}\n"
    (root / "mlstack.yaml").write_text(text)
    assert output(capsys, "validate") == (
        "mlstack.yaml is valid: 1 pool, 1 dataset, 1 stage, 1 model.\nEnvironments: local, prod\n"
    )
    assert document(capsys, "validate")["environments"] == ["local", "prod"]
    assert document(capsys, "validate", "-e", "prod")["environments"] == ["prod"]


def test_validate_lists_every_fault_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE.replace("    cmd:", "    cmdd:").replace("depth]", "dept]")
    (root / "mlstack.yaml").write_text(text + "environments:\n  local: {default: true}\n  prod: {}\n")
    assert main(["validate"]) == ExitCode.ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("--> mlstack.yaml:8:") == 1
    assert re.search(r"mlstack.yaml has \d errors", captured.err)
    found = document(capsys, "validate", code=1)
    assert not found["valid"]
    assert found["error_count"] == len(found["diagnostics"]) >= 2
    assert all(diagnostic["range"]["start"]["line"] > 0 for diagnostic in found["diagnostics"])


def test_validate_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-C", str(tmp_path), "validate"]) == ExitCode.ERROR
    assert "mlstack init" in capsys.readouterr().err


def test_schema(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(output(capsys, "schema"))
    assert "stages" in schema["properties"]
    output(capsys, "schema", "--out", str(tmp_path / "s.json"))
    assert json.loads((tmp_path / "s.json").read_text()) == schema
    assert main(["schema", "--out", str(tmp_path / "missing" / "s.json")]) == ExitCode.ERROR
    assert "cannot be written" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- graph


def test_graph(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "graph").startswith("flowchart LR\n")
    assert output(capsys, "graph", "--format", "dot").startswith("digraph")
    output(capsys, "graph", "--plan", "--out", "g.svg")
    ET.parse(root / "g.svg")
    assert "train" in (root / "g.svg").read_text()
    found = document(capsys, "graph")
    assert {"from": "datasets.raw", "to": "stages.train"} in found["edges"]
    assert main(["graph", "--format", "png"]) == ExitCode.USAGE


# ---------------------------------------------------------------------------------------------------- history, show


def test_history_before_and_after(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Nothing was applied" in output(capsys, "history")
    assert document(capsys, "history")["records"] == []
    assert main(["apply", "--yes"]) == 0
    capsys.readouterr()
    (record,) = document(capsys, "history")["records"]
    text = output(capsys, "history")
    assert record["id"][:8] in text
    assert "just now" in text
    details = output(capsys, "history", record["id"][:4])
    assert "stages.train" in details
    assert record["plan_digest"] in details
    assert document(capsys, "history", record["id"])["id"] == record["id"]
    assert main(["history", "zzz"]) == ExitCode.ERROR
    assert "ID begins with" in capsys.readouterr().err


def test_show(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "show", "train")
    for expected in ("stages.train  mlstack.yaml:7:", "has no changes", "python train.py", "depth: 6", "rmse", "done"):
        assert expected in text
    found = document(capsys, "show", "stages.train")
    assert found["metrics"] == {"rmse": pytest.approx(1 / 6)}
    assert found["result"]["out/model.bin"]["size"] == 18
    assert found["runs"][0]["status"] == "done"
    assert "version" in output(capsys, "show", "datasets.raw")
    assert "gates" in output(capsys, "show", "models.demo")
    assert document(capsys, "show", "models.demo")["result"] == {"out/model.bin": found["result"]["out/model.bin"]}
    assert main(["show", "stages.trian"]) == ExitCode.ERROR
    assert 'did you mean "stages.train"?' in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json-into", "--markdown-into", "--out"])
def test_plan_that_cannot_be_written(root: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["plan", option, str(root / "no" / "such" / "folder")]) == ExitCode.ERROR
    assert "No such file or directory" in " ".join(capsys.readouterr().err.split())


def test_documents_say_which_format_they_have(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "drift", "lock", "history", "doctor"):
        assert document(capsys, command)["format_version"] == "1.0", command


def test_explain_calls_unknown_what_only_apply_will_tell() -> None:
    field = FieldDiff(path="variants.main.version", before="a" * 32, unknown=True)
    reason = Reason(code=ReasonCode.SETTING_CHANGED, subject=field.path, before=field.before)
    change = Change(
        address=Address("endpoints.demo"),
        kind=Kind.ENDPOINT,
        action=Action.UPDATE,
        reasons=(reason,),
        fields=(field,),
    )
    assert is_unknown(change, reason)
    assert not is_unknown(msgspec.structs.replace(change, fields=()), reason)


def test_show_a_saved_plan(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, "plan", "--out", "saved.plan")
    assert "stages.train" in output(capsys, "show", "saved.plan")
    assert document(capsys, "show", "saved.plan")["resource_changes"]
    (root / "saved.plan").write_text("no plan")
    assert main(["show", "saved.plan"]) == ExitCode.ERROR


# ---------------------------------------------------------------------------------------------------- logs


def shown_to_the_end(controller: int) -> bytes:
    """What a terminal shows until nobody writes to it any more: the system hands it over in pieces."""
    shown = b""
    with suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(controller, 4096):
            shown += piece
    os.close(controller)
    return shown


def logs(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "mlstack.cli.main", "logs", *arguments], capture_output=True, check=False
    )


def test_logs(applied: Path) -> None:
    for arguments in (["train"], ["stages.train", "-f"], ["train", "--attempt", "1"]):
        assert logs(*arguments).stdout == b"training at 6\n\x1b[2Jsteering\n"
    assert logs("train", "-n", "1").stdout == b"\x1b[2Jsteering\n"
    lines = [json.loads(line) for line in logs("train", "--json").stdout.splitlines()]
    assert lines[0] == {"address": "stages.train", "line": "training at 6"}
    (folder,) = (applied / ".mlstack" / "runs" / "stages.train").iterdir()
    assert logs("train", "--run", folder.name[:6]).returncode == 0
    for wrong in (["train", "--run", "zzz"], ["train", "--attempt", "7"], ["datasets.raw"]):
        assert logs(*wrong).returncode == ExitCode.ERROR


def test_logs_on_a_terminal_cannot_steer_it(applied: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "mlstack.cli.main", "logs", "train"]
    done = subprocess.run(command, stdout=terminal, stderr=terminal, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    os.close(terminal)
    shown = shown_to_the_end(controller).decode()
    assert "training at 6\r\nsteering" in shown
    assert "\x1b[2J" not in shown


def test_ctrl_d_at_the_question_changes_nothing(root: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "mlstack.cli.main", "apply"]
    asked = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)  # else reading would wait for ever for one that ended without a question
    shown = b""
    while b"Enter a value" not in shown:
        shown += os.read(controller, 4096)
    os.write(controller, b"\x04")
    assert asked.wait(timeout=120) == ExitCode.ERROR
    assert b"Nothing was changed." in shown_to_the_end(controller)


def test_logs_before_a_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "train"]) == ExitCode.ERROR
    assert "has not run on this machine yet" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- unlock, doctor


def test_unlock_needs_the_id(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unlock", "abc", "--yes"]) == ExitCode.ERROR
    assert "not locked" in capsys.readouterr().err
    backend = backend_for(None, root, "local")
    with acquire(backend, operation="apply", environment="local") as lock:
        assert main(["unlock", lock.record.id, "--yes"]) == ExitCode.ERROR
        assert f"kill -INT {os.getpid()}" in capsys.readouterr().err
        far_away = msgspec.structs.replace(lock.record, host="far-away", heartbeat=time.time() - 20, lease=3600.0)
    assert backend.create(LOCK_KEY, encode(LockFile(record=far_away)))
    assert main(["apply", "--yes"]) == ExitCode.ERROR
    told = " ".join(capsys.readouterr().err.split())
    assert f"on far-away (process {os.getpid()})" in told
    assert f"mlstack unlock {far_away.id} -e local" in told
    assert main(["unlock", "abc", "--yes"]) == ExitCode.ERROR
    assert main(["unlock", far_away.id]) == ExitCode.ERROR
    told = capsys.readouterr().err
    assert "It was last heard of" in told
    assert "nobody to ask" in told
    found = {check["name"]: check for check in document(capsys, "doctor")["checks"]}
    assert far_away.id in found["lock"]["found"]
    assert "is removed" in output(capsys, "unlock", far_away.id, "--yes")
    found = {check["name"]: check for check in document(capsys, "doctor")["checks"]}
    assert found["lock"]["found"] == "free"
    output(capsys, "apply", "--yes")


def test_doctor_in_a_project(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "doctor")
    for name in ("python", "git", "dvc", "uv", "pulumi", "docker engine", "image builder", "git repository", "lock"):
        assert re.search(rf"^{name}  +(ok|not needed here) ", text, re.MULTILINE), name


def test_doctor_finds_no_fault_with_what_it_made_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlstack.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    found = {check["name"]: check for check in document(capsys, "doctor", code=1)["checks"]}
    assert (found[".mlstack"]["status"], found[".mlstack"]["found"]) == ("ok", "not there yet")


def test_doctor_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlstack.yaml").write_text(FILE + "unknown: 1\n")
    monkeypatch.chdir(tmp_path)
    found = document(capsys, "doctor", code=1)
    assert not found["well"]
    bad = {check["name"] for check in found["checks"] if check["status"] in ("missing", "problem")}
    assert bad == {"git repository", "dvc repository", "mlstack.yaml"}
    monkeypatch.setenv("PATH", str(tmp_path))
    bad = {c["name"] for c in document(capsys, "doctor", code=1)["checks"] if c["status"] == "missing"}
    assert "git" in bad


def test_doctor_says_of_engines_whether_the_file_needs_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.delenv("BUILDKIT_HOST", raising=False)
    names = ("docker engine", "image builder")
    found = {check["name"]: check for check in document(capsys, "doctor")["checks"]}
    for name in names:
        assert (found[name]["status"], found[name]["needed"]) == ("not needed here", False)
        assert "not needed by this file" in found[name]["purpose"]
    assert found["docker engine"]["found"] == "unix:///nowhere/docker.sock: No such file or directory"
    (root / "mlstack.yaml").write_text(FILE + "compute: {box: {target: docker}}\n")
    assert main(["doctor"]) == ExitCode.ERROR
    said = capsys.readouterr().err
    for name in names:
        assert f"error: {name} is missing" in said
    assert "`target: local` needs none" in " ".join(said.split())


def test_doctor_outside_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == ExitCode.ERROR
    assert "mlstack init" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- compare, predict


def test_compare_with_the_last_commit(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "rmse" in output(capsys, "compare")
    (applied / "mlstack.yaml").write_text(FILE.replace("depth: 6", "depth: 8"))
    (applied / "data" / "raw.txt").write_text("abcdef")
    assert main(["apply", "--yes"]) == 0
    capsys.readouterr()
    rows = {(row["section"], row["address"], row["name"]): row for row in document(capsys, "compare")["rows"]}
    metric = rows["metrics", "stages.train", "rmse"]
    assert (metric["before"], metric["after"]) == (pytest.approx(1 / 6), 0.125)
    assert metric["better"] is True
    assert (rows["params", "stages.train", "depth"]["before"], rows["params", "stages.train", "depth"]["after"]) == (
        6,
        8,
    )
    assert ("data", "datasets.raw", "") in rows
    assert ("models", "models.demo", "") in rows
    text = output(capsys, "compare", "HEAD")
    assert re.search(r"rmse +0\.166667 +0\.125 +-0\.0416667  ▼ better", text)
    output(capsys, "compare", "--markdown-into", "c.md")
    assert "**Metrics**" in (applied / "c.md").read_text()
    assert "| stages.train | rmse |" in output(capsys, "compare", "--markdown")


def test_compare_shows_a_metric_of_two_files_twice() -> None:
    contents = {"m.json": b'{"x": 1, "y": 3}', "n.json": b'{"x": 2}', "gone.json": None}
    found = _named("stages.train", contents)
    assert found == {("stages.train", name): value for name, value in (("m.json:x", 1), ("n.json:x", 2), ("y", 3))}


def test_compare_with_where_the_branch_began(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git("checkout", "-qb", "deeper")
    (applied / "mlstack.yaml").write_text(FILE.replace("depth: 6", "depth: 8"))
    assert main(["apply", "--yes"]) == 0
    git("add", "-A")
    git("commit", "-qm", "Deeper")
    capsys.readouterr()
    found = document(capsys, "compare")
    assert found["base"]["found"] == "merge base with main"
    assert {row["name"] for row in found["rows"] if row["section"] == "metrics"} == {"rmse"}
    assert "Nothing differs" not in output(capsys, "compare", "main")
    assert [row for row in document(capsys, "compare", "HEAD")["rows"] if row["section"] != "metrics"] == []


def test_compare_needs_a_commit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == ExitCode.ERROR
    assert "no commit yet" in capsys.readouterr().err
    git("add", "-A")
    git("commit", "-qm", "Begin")
    assert main(["compare", "v9"]) == ExitCode.ERROR
    assert "no such revision" in capsys.readouterr().err
    assert "depth" in output(capsys, "compare")


def test_predict_without_an_endpoint(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--data", "[1]"]) == ExitCode.ERROR
    assert "Which endpoint" in capsys.readouterr().err
    (applied / "mlstack.yaml").write_text(FILE + "endpoints:\n  demo: {model: models.demo}\n")
    assert main(["predict", "--data", "[1]"]) == ExitCode.ERROR
    assert "was not made yet" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- read-only


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_looking_works_in_a_read_only_folder(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["chmod", "-R", "a-w", str(applied)], check=True)
    try:
        for command in (["validate"], ["graph"], ["history"], ["show", "train"], ["logs", "train"], ["compare"]):
            output(capsys, *command)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(applied)], check=True)


def test_looking_writes_nothing_but_caches(applied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[str, bytes]:
        found = (path for path in applied.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(p): p.read_bytes() for p in found if ".mlstack/cache" not in str(p) and "/.dvc/tmp" not in str(p)}

    before = files()
    for command in (
        ["validate"],
        ["graph", "--plan"],
        ["history"],
        ["show", "train"],
        ["compare"],
        ["doctor"],
        ["schema"],
    ):
        output(capsys, *command)
    assert files() == before


def test_of_one_name_the_one_is_meant_that_can_do_what_is_asked() -> None:
    known = [Address("models.wine"), Address("endpoints.wine"), Address("a/stages.wine"), Address("models.other")]
    assert one_address("wine", known, kinds=(Kind.ENDPOINT,)) == "endpoints.wine"
    assert one_address("other", known, kinds=(Kind.ENDPOINT,)) == "models.other", "so that it is said what models lack"
    with pytest.raises(MlstackError) as caught:
        one_address("wine", known, kinds=(Kind.ENDPOINT, Kind.STAGE))
    assert "'wine' could be endpoints.wine, a/stages.wine." in caught.value.diagnostics[0].detail
