"""The frame of the command line: loading on demand, global options, usage errors, the error boundary, completion."""

import errno
import json
import os
import pty
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from mlstack.cli import boundary, frame
from mlstack.cli.commands import BY_NAME, COMMANDS, GROUPS, CommandEntry
from mlstack.cli.main import main
from mlstack.cli.settings import Globals, Settings, build_settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError

PROGRAM = [sys.executable, "-m", "mlstack.cli.main"]
HEAVY = ("pulumi", "dvc", "dvc.repo", "docker", "git", "starlette", "pydantic", "yaml", "jinja2", "asyncio", "requests")
DESIGN = (
    "init validate plan apply destroy run compare accept status show explain graph lineage history rollback drift lock "
    "reproduce shell logs cancel predict push pull gc unlock doctor schema comment eject"
)
LATER = "rollback comment"


def run(*arguments: str, **rest: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, **rest)


# ---------------------------------------------------------------------------------------------------- the table


def test_the_table_has_the_commands_of_the_design() -> None:
    assert {entry.name for entry in COMMANDS} == set(DESIGN.split()) - set(LATER.split())
    assert {entry.group for entry in COMMANDS} == set(GROUPS)
    assert len(BY_NAME) == len(COMMANDS)


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_can_be_loaded_and_explains_itself(
    entry: CommandEntry, capsys: pytest.CaptureFixture[str]
) -> None:
    function = getattr(import_module(entry.module), entry.function)
    assert callable(function)
    assert main([entry.name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: mlstack {entry.name}" in text
    assert "Global options:" in text
    assert "--directory" in text
    assert len(text.split("\n")) > 8


@pytest.mark.parametrize("argument", ["--help", "--version", "-h", "help", ""])
def test_help_imports_nothing_heavy(argument: str, tmp_path: Path) -> None:
    script = (
        "import sys; from mlstack.cli.main import main\n"
        f"code = main({[argument] if argument else []!r})\n"
        "print(code, sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.startswith("0 ")
    loaded = set(done.stderr.replace("'", " ").replace(",", " ").split())
    assert not loaded & set(HEAVY)
    assert not [name for name in loaded if name.startswith("mlstack.cli.") and name.rpartition(".")[2] in BY_NAME]


def test_help_has_main_commands_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"{group}:") for group in GROUPS]
    assert places == sorted(places)
    assert text.index("  plan ") < text.index("  apply ") < text.index("  doctor ")
    assert all(len(line) <= 80 for line in text.split("\n"))
    assert main([]) == 0
    assert capsys.readouterr().out == text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from mlstack import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mlstack {__version__}\n"


# ---------------------------------------------------------------------------------------------------- usage errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plann"], 'did you mean "plan"?'),
        (["plan", "--targett", "x"], 'did you mean "--target"?'),
        (["--jsn", "plan"], 'did you mean "--json"?'),
        (["plan", "--color", "blue"], '"blue" is none of auto, always, never'),
        (["plan", "too", "many"], "unexpected extra argument"),
        (["explain"], "Missing argument"),
        (["history", "--limit", "x"], "not a valid"),
        (["apply", "--parallelism", "0"], "0"),
        (["plan", "-C"], "requires an argument"),
        (["xyz"], 'no command "xyz"'),
        (["-C", "/does/not/exist", "validate"], "not a folder"),
        (["unlock"], "Missing argument"),
        (["plan\x1b[31m"], "plan\\x1b[31m"),
    ],
)
def test_usage_errors_exit_64(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.startswith("error: ")
    assert "\x1b" not in captured.err


def test_usage_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--nonsense", "--json"]) == ExitCode.USAGE
    document = json.loads(capsys.readouterr().out)
    assert document["diagnostics"][0]["code"] == "usage"


# ---------------------------------------------------------------------------------------------------- a command


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put a command of our own behind `status`; what it saw is in the list."""
    seen: list[Any] = []

    def status(
        context: typer.Context,
        depth: int = typer.Option(1, "--max-depth"),
        names: list[str] = typer.Option([], "--name"),  # noqa: B008 - typer's way
        refresh: bool = typer.Option(True, "--refresh/--no-refresh"),
    ) -> int | None:
        settings = settings_of(context)
        seen.append((settings, depth, names, refresh))
        action = os.environ.get("PROBE", "")
        if action == "error":
            raise MlstackError(Diagnostic(code="x", summary="It went wrong", detail="Because."))
        if action == "bug":
            raise ValueError("nobody thought of this")
        if action == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/place/of/something")
        if action == "interrupt":
            raise KeyboardInterrupt
        if action == "pipe":
            raise BrokenPipeError
        return ExitCode.CHANGES if action == "changes" else None

    import mlstack.cli.status as module

    monkeypatch.setattr(module, "status", status)
    return seen


def settings_seen(probe: list[Any]) -> Settings:
    found = probe[-1][0]
    assert isinstance(found, Settings)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ["-e", "prod", "--json", "-v", "--color", "always", "status"],
        ["status", "-e", "prod", "--json", "-v", "--color", "always"],
        ["-e", "other", "--color=never", "status", "--environment=prod", "--color=always", "--json", "--verbose"],
        ["--json", "status", "-ve", "prod", "--color", "always"],
    ],
)
def test_global_options_before_and_after(probe: list[Any], arguments: list[str]) -> None:
    assert main(arguments) == 0
    found = settings_seen(probe)
    assert (found.environment, found.json, found.verbose, found.color) == ("prod", True, True, "always")
    assert found.command == "status"
    assert found.out.color


def test_global_options_by_variables(probe: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSTACK_ENVIRONMENT", "staging")
    monkeypatch.setenv("MLSTACK_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("MLSTACK_JSON", "1")
    assert main(["status"]) == 0
    found = settings_seen(probe)
    assert (found.environment, found.directory, found.json) == ("staging", tmp_path, True)
    assert main(["-e", "before", "status"]) == 0
    assert settings_seen(probe).environment == "before"
    assert main(["-e", "before", "status", "-e", "after"]) == 0
    assert settings_seen(probe).environment == "after"


def test_own_options_by_variables(probe: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSTACK_MAX_DEPTH", "5")
    monkeypatch.setenv("MLSTACK_NAME", "a b")
    monkeypatch.setenv("MLSTACK_REFRESH", "0")
    assert main(["status"]) == 0
    assert probe[-1][1:] == (5, ["a", "b"], False)
    monkeypatch.setenv("MLSTACK_STATUS_MAX_DEPTH", "6")
    assert main(["status"]) == 0
    assert probe[-1][1] == 6
    assert main(["status", "--max-depth", "7", "--refresh"]) == 0
    assert probe[-1][1:] == (7, ["a", "b"], True)


def test_every_option_of_every_command_has_a_variable() -> None:
    for entry in COMMANDS:
        for param in frame.load_command(entry).params:
            if param.param_type_name == "option" and param.expose_value and "--help" not in param.opts:
                longest = max(param.opts, key=len)
                expected = "MLSTACK_" + longest[2:].replace("-", "_").upper()
                assert expected in param.envvar, (entry.name, param.opts)


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        ("", 0, ""),
        ("changes", 2, ""),
        ("error", 1, "error: It went wrong\n  Because.\n"),
        ("interrupt", 130, "\nInterrupted.\n"),
    ],
)
def test_exit_codes(
    probe: list[Any],
    action: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PROBE", action)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["status"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_errors_as_json(probe: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PROBE", "error")
    assert main(["status", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["diagnostics"][0]["summary"] == "It went wrong"


def test_errors_of_streams_are_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def fail() -> None:
        raise MlstackError(Diagnostic(code="x", summary="One"), Diagnostic(code="y", summary="Two"))

    given = Globals(command="apply", stream=True, json=True, directory=tmp_path)
    assert boundary.guarded(given, fail) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines] == ["diagnostic", "diagnostic"]
    assert lines[0]["@level"] == "error"


def test_what_the_system_refuses_is_no_bug(
    probe: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROBE", "full")
    assert main(["-C", str(tmp_path), "status"]) == ExitCode.ERROR
    said = capsys.readouterr().err
    assert "/place/of/something: No space left on device." in said
    assert "bug" not in said


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_bug_exits_3_and_leaves_a_file(
    probe: list[Any],
    has_folder: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / ".mlstack" if has_folder else temporary
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PROBE", "bug")
    assert main(["-C", str(tmp_path), "status", "--name", "s3cr3t"]) == ExitCode.BUG
    said = capsys.readouterr().err
    (log,) = folder.glob("bug-*.log")
    assert "".join(str(log).split()) in "".join(said.split())
    assert "Traceback" not in said
    text = log.read_text()
    assert "nobody thought of this" in text
    assert "Traceback" in text
    assert "s3cr3t" not in text.partition("Traceback")[0]


def test_broken_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m mlstack.cli.main schema | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", str(boundary.BROKEN_PIPE))


def test_closed_standard_output_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m mlstack.cli.main --version >&-"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)


def test_ascii_outputs(tmp_path: Path) -> None:
    (tmp_path / "mlstack.yaml").write_text("version: 1\nproject: p\nstages:\n  名前: {cmd: x, outs: [o]}\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = run("validate", cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert done.stderr.isascii()


# ---------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(("value", "ci"), [("", False), ("0", False), ("false", False), ("1", True), ("true", True)])
def test_ci(value: str, ci: bool) -> None:
    assert build_settings(Globals(), environ={"CI": value}).ci is ci


def test_nobody_is_asked_without_a_terminal() -> None:
    assert build_settings(Globals(), environ={}).interactive is False


def test_a_person_is_asked_on_a_terminal(tmp_path: Path) -> None:
    script = (
        "from mlstack.cli.settings import *\n"
        "s = build_settings(Globals()); print(s.interactive, s.out.color, s.out.terminal, s.ci)\n"
    )
    controller, terminal = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")} | {"TERM": "xterm"}
    for extra, expected in (
        ({}, "True True True False"),
        ({"NO_COLOR": "1"}, "True False True False"),
        ({"CI": "true"}, "False True True True"),
    ):
        done = subprocess.Popen(
            [sys.executable, "-c", script], stdin=terminal, stdout=terminal, stderr=terminal, env=environment | extra
        )
        assert done.wait(120) == 0
        shown = b""
        while not shown.endswith(b"\n"):  # the system hands over what is written in pieces
            shown += os.read(controller, 1000)
        assert shown.decode().strip() == expected
    os.close(controller)
    os.close(terminal)


# ---------------------------------------------------------------------------------------------------- completion


def complete(words: str, cwd: Path) -> list[str]:
    environment = {
        **os.environ,
        "_MLSTACK_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    script = "import sys; from mlstack.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "mlstack.yaml").write_text(
        "version: 1\nproject: p\nstages:\n  train: {cmd: x, outs: [o]}\n  test: {cmd: x, outs: [q]}\n"
        "environments:\n  local: {default: true}\n\n  # another\n  prod: {require_clean: true}\n"
    )
    return tmp_path


def test_completion_of_commands_and_options(tmp_path: Path) -> None:
    assert complete("mlstack pl", tmp_path) == ["plan"]
    assert set(complete("mlstack ", tmp_path)) == set(BY_NAME)
    assert complete("mlstack plan --tar", tmp_path) == ["--target"]
    assert complete("mlstack plan --environ", tmp_path) == ["--environment"]
    assert complete("mlstack --color a", tmp_path) == ["auto", "always"]


def test_completion_of_addresses_and_environments(project: Path) -> None:
    assert complete("mlstack explain stages.", project) == []
    assert main(["-C", str(project), "validate"]) == 0
    assert complete("mlstack explain stages.t", project) == ["stages.train", "stages.test"]
    assert complete("mlstack plan --target stages.tr", project) == ["stages.train"]
    assert complete(f"mlstack -C {project} show stages.tr", project.parent) == ["stages.train"]
    assert complete("mlstack plan -e ", project) == ["local", "prod"]


def test_completion_never_fails(project: Path) -> None:
    cache = project / ".mlstack" / "cache"
    cache.mkdir(parents=True)
    (cache / "spec-x.json").write_bytes(b"{garbage")
    assert complete("mlstack explain stages.", project) == []
    (project / "mlstack.yaml").write_bytes(b"\xff\xfe")
    assert complete("mlstack plan -e ", project) == []
    assert complete("mlstack explain ", project.parent) == []


def test_show_completion(tmp_path: Path) -> None:
    done = run("--show-completion", cwd=tmp_path, env={**os.environ, "SHELL": "/bin/bash"})
    if done.returncode == 0:
        assert "_MLSTACK_COMPLETE" in done.stdout or "COMPLETE" in done.stdout
    assert "Traceback" not in done.stderr
