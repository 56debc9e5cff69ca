"""What a pull request can contain, and what looking at it must not do."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlstack.diagnostics import ExitCode
from tests.e2e.workspace import BIN, Workspace, clean_environment

FILE = """version: 1
project: hostile
python: system
params: {depth: 1}
stages:
  one:
    cmd: python src/one.py
    deps: [src/one.py]
    params: [depth]
    outs: [out/one.txt]
    metrics: [out/m.json]
"""
EVIL = "open('PWNED', 'w')\n"
LOOKING = (["plan"], ["validate"], ["status"], ["graph"], ["history"], ["explain", "stages.one"], ["doctor"])
SECRET = "TOPSECRET: [\n[core]\n"
CPU_LIMIT, LIMIT = 60, 600
"""Seconds of the processor's and of the clock's time: the latter only for what waits for ever."""


@pytest.fixture
def branch(tmp_path: Path, shared_cache: Path) -> Workspace:
    """A project that was never applied here, with modules that would shadow those of mlstack if its folder counted."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "mlstack.yaml").write_text(FILE)
    (root / "src/one.py").write_text(f"import helper\n{EVIL}")
    for name in ("src/helper.py", "sitecustomize.py", "yaml.py", "msgspec.py"):
        (root / name).write_text(EVIL)
    (tmp_path / "home").mkdir()
    (tmp_path / "secret.txt").write_text(SECRET)
    workspace = Workspace(root, clean_environment(tmp_path / "home", shared_cache))
    workspace.git("init", "-q")
    workspace.dvc("init", "-q")
    return workspace


def look(branch: Workspace, *arguments: str) -> tuple[int, str]:
    """Run mlstack with little memory and time; fails if it needs more, or if it is a bug of mlstack."""
    command = [
        "bash",
        "-c",
        f'ulimit -v 3000000; ulimit -t {CPU_LIMIT}; exec "$@"',
        "-",
        str(BIN / "mlstack"),
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=branch.root, env=branch.environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    said = done.stdout + done.stderr
    assert done.returncode not in {ExitCode.BUG, -signal.SIGSEGV, 139, -signal.SIGXCPU, -signal.SIGKILL}, said
    assert "TOPSECRET" not in said
    assert not (branch.root / "PWNED").exists()
    return done.returncode, said


def commit(branch: Workspace) -> None:
    branch.git("add", "-A", "-f")
    branch.git("commit", "-q", "-m", "A pull request")


@pytest.mark.parametrize("target", ["../secret.txt", "/dev/zero", "/dev/stdin"])
@pytest.mark.parametrize(
    "path",
    ["mlstack.yaml", "dvc.lock", "dvc.yaml", "mlstack.lock", ".dvc/config", ".dvcignore", "src/one.py", "out/m.json"],
)
def test_links_instead_of_files(branch: Workspace, path: str, target: str) -> None:
    place = branch.root / path
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target if target.startswith("/") else branch.root.parent / "secret.txt")
    commit(branch)
    for arguments in (["plan"], ["status"], ["compare"]):
        look(branch, *arguments)


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"dvc.lock": "[" * 100_000}, ExitCode.ERROR),
        ({"dvc.yaml": "- " * 100_000}, ExitCode.ERROR),
        ({"mlstack.lock": '{"format":1,"x":' + "[" * 100_000}, ExitCode.ERROR),
        ({".dvcignore": "a*" * 20 + "b\n", "data/" + "a" * 200: "x"}, ExitCode.OK),
        ({"src/one.py": "x = " + "(" * 100_000}, ExitCode.OK),
        ({"src/one.py": "x = a" + ".a" * 200_000}, ExitCode.OK),
        (
            {"requirements.txt": "-r r0.txt\n", "r40.txt": "a==1\n"}
            | {f"r{n}.txt": f"-r r{n + 1}.txt\n-r ./r{n + 1}.txt\n" for n in range(40)},
            ExitCode.OK,
        ),
        ({"uv.lock": "a=" + "[" * 100_000}, ExitCode.ERROR),
    ],
    ids=["dvc.lock", "dvc.yaml", "mlstack.lock", "dvcignore", "parentheses", "attributes", "requirements", "uv.lock"],
)
def test_bombs(branch: Workspace, files: dict[str, str], code: int) -> None:
    text = FILE.replace("deps: [src/one.py]", "deps: [src/one.py, data]")
    lock = next((name for name in files if name in {"requirements.txt", "uv.lock"}), None)
    text = text.replace("python: system", f"python: {{version: '3.11', lock: {lock}}}") if lock else text
    for path, content in ({"data/x": "1", "mlstack.yaml": text} | files).items():
        (branch.root / path).parent.mkdir(exist_ok=True)
        (branch.root / path).write_text(content)
    commit(branch)
    assert look(branch, "plan")[0] == code


def test_state_that_was_committed_is_refused(branch: Workspace) -> None:
    state = branch.root / ".mlstack/state/local"
    state.mkdir(parents=True)
    (state / "state.json").write_text("{}")
    commit(branch)
    for arguments in (["plan"], ["validate"], ["status"], ["destroy", "--yes"], ["predict", "--data", "[[1]]"]):
        code, said = look(branch, *arguments)
        assert code == ExitCode.ERROR
        assert "came with the repository" in " ".join(said.split())


def test_own_folder_that_leads_elsewhere_is_not_written_to(branch: Workspace) -> None:
    elsewhere = branch.root.parent / "elsewhere"
    elsewhere.mkdir()
    (branch.root / ".mlstack").symlink_to(elsewhere)
    commit(branch)
    for arguments in LOOKING:
        look(branch, *arguments)
    assert list(elsewhere.iterdir()) == []


def test_folder_that_looks_like_a_bare_repository_runs_nothing(branch: Workspace) -> None:
    inner = branch.root / "inner"
    shutil.copytree(branch.root / "src", inner / "src")
    (inner / "mlstack.yaml").write_text(FILE)
    (inner / ".gitattributes").write_text("* filter=evil diff=evil\n")
    make = Workspace(inner, {**branch.environment, "GIT_DIR": "."})
    make.git("init", "-q")
    for name, value in (
        ("core.bare", "false"),
        ("core.worktree", str(inner)),
        ("core.fsmonitor", "touch PWNED; false"),
    ):
        make.git("config", name, value)
    for name in ("filter.evil.clean", "filter.evil.process", "diff.evil.textconv", "core.sshCommand"):
        make.git("config", name, "touch PWNED; cat")
    hostile = Workspace(inner, branch.environment)
    for arguments in (*LOOKING, ["compare"]):
        look(hostile, *arguments)


def test_outputs_behind_a_link_out_of_the_project_touch_nothing(branch: Workspace) -> None:
    home = branch.root.parent / "victim"
    home.mkdir()
    (home / "one.txt").write_text("mine")
    (branch.root / "out").symlink_to(home)
    commit(branch)
    assert look(branch, "apply", "--yes")[0] == ExitCode.ERROR
    assert (home / "one.txt").read_text() == "mine"
    assert [path.name for path in home.iterdir()] == ["one.txt"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
def test_looking_starts_only_git_writes_only_caches_and_connects_nowhere(
    branch: Workspace, tmp_path: Path, arguments: list[str]
) -> None:
    commit(branch)
    (tmp_path / "secret.txt").touch()
    trace = tmp_path / "trace"
    calls = "execve,openat,open,creat,connect,kill,tkill,tgkill,unlinkat,unlink,renameat2,renameat,rename,mkdir,mkdirat"
    strace = [shutil.which("strace") or "", "-f", "-qq", "-s", "4096", "-o", str(trace), "-e", f"trace={calls}"]
    subprocess.run(
        [*strace, str(BIN / "mlstack"), *arguments],
        cwd=branch.root,
        env={**branch.environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=True,
        timeout=LIMIT,
    )
    lines = [line for line in whole_calls(trace.read_text(errors="replace")) if "= -1 " not in line]
    started = {Path(found[1]).name for line in lines if (found := re.search(r'execve\("([^"]+)"', line))}
    assert started - {"mlstack", "git"} <= ({"docker"} if arguments == ["doctor"] else set())  # to ask for its version
    assert [line for line in lines if "connect(" in line and "AF_UNIX" not in line] == []
    wrote = [line for line in lines if re.search(r"O_WRONLY|O_RDWR|O_CREAT|unlink|rename|mkdir|creat\(", line)]
    places = {found for line in wrote for found in re.findall(r'"([^"]+)"', line)}
    allowed = (str(branch.root / ".mlstack"), "/dev/")
    assert {place for place in places if not place.startswith(allowed)} == set()
    own = str(tmp_path)
    read = {found[1] for line in lines if "open" in line and (found := re.search(r'"([^"]+)"', line))}
    inside = (str(branch.root), str(tmp_path / "home"))
    assert {place for place in read if place.startswith(own) and not place.startswith(inside)} == set()


def whole_calls(trace: str) -> Iterator[str]:
    """The lines of a trace, with what strace has cut in two because another thread called something meanwhile."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>")
        elif found := re.fullmatch(r"\s*<\.\.\. \w+ resumed>(.*)", call):
            yield begun.pop(thread, "") + found[1]
        else:
            yield line
    yield from begun.values()


def test_completion_reads_nothing_of_devices(branch: Workspace) -> None:
    (branch.root / "mlstack.yaml").unlink()
    (branch.root / "mlstack.yaml").symlink_to("/dev/zero")
    environment = {
        **branch.environment,
        "_MLSTACK_COMPLETE": "complete_bash",
        "COMP_WORDS": "mlstack plan -e ",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [BIN / "mlstack"], cwd=branch.root, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.stderr == ""


def test_own_folder_is_for_its_owner_alone(branch: Workspace) -> None:
    commit(branch)
    look(branch, "plan")
    assert (branch.root / ".mlstack").stat().st_mode & 0o777 == 0o700
