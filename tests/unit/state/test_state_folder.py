"""The folder of the state: where it lies, who may write there, what dead processes leave in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.state.environment_folder import backend_for, ensure_own_folder
from mlstack.state.folder import FolderBackend


def code_of(error: pytest.ExceptionInfo[MlstackError]) -> str:
    return error.value.diagnostics[0].code


def test_the_default_lies_in_our_own_folder_which_git_ignores(tmp_path: Path) -> None:
    backend = backend_for(None, tmp_path, "prod")
    assert backend.get("state.json") is None
    assert list(tmp_path.iterdir()) == [], "reading creates nothing"
    backend.create("state.json", b"{}")
    assert (tmp_path / ".mlstack/state/prod/state.json").read_bytes() == b"{}"
    assert (tmp_path / ".mlstack/.gitignore").read_text() == "*\n"
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    status = subprocess.run(["git", "-C", str(tmp_path), "status", "--porcelain"], check=True, capture_output=True)
    assert status.stdout == b""


def test_two_environments_do_not_share_a_folder(tmp_path: Path) -> None:
    backend_for(None, tmp_path, "dev").create("state.json", b"dev")
    assert backend_for(None, tmp_path, "prod").get("state.json") is None
    for odd in ("..", ".", "a/b", "../../etc"):
        where = Path(backend_for(None, tmp_path, odd).location("state.json"))
        assert where.resolve().parent.parent == tmp_path.resolve() / ".mlstack" / "state"


def test_a_path_is_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = tmp_path / "project"
    expected = {
        "shared/prod": project / "shared/prod",
        str(tmp_path / "nfs"): tmp_path / "nfs",
        "~/state": tmp_path / "home/state",
        f"file://{tmp_path}/nfs": tmp_path / "nfs",
    }
    for spec_state, folder in expected.items():
        assert backend_for(spec_state, project, "prod").location("state.json") == str(folder / "state.json")


@pytest.mark.parametrize(
    "url",
    [
        *("https://example.org/x", "file://host/x", "s3://", "s3:///x", "ftp://host/x"),
        *("s3://key:secret@bucket/x", "s3://bucket/x?endpoint=https://elsewhere"),
    ],
)
def test_other_places_are_refused_by_name(tmp_path: Path, url: str) -> None:
    with pytest.raises(MlstackError) as error:
        backend_for(url, tmp_path, "prod")
    assert code_of(error) == "state-backend-unsupported"
    assert url in error.value.diagnostics[0].detail


@pytest.mark.parametrize(
    "url", ["s3://bucket/state", "gs://bucket", "azure://container/x", "abfss://c@account.dfs.core.windows.net/x"]
)
def test_object_stores_are_opened_when_they_are_asked(tmp_path: Path, url: str) -> None:
    assert backend_for(url, tmp_path, "prod").location("state.json") == f"{url}/state.json"
    assert list(tmp_path.iterdir()) == []


def test_our_own_folder_is_made_once_and_left_as_it_is(tmp_path: Path) -> None:
    folder = ensure_own_folder(tmp_path)
    assert folder == tmp_path / ".mlstack"
    (folder / ".gitignore").write_text("*\n!keep\n")
    ensure_own_folder(tmp_path)
    assert (folder / ".gitignore").read_text() == "*\n!keep\n"
    assert [path.name for path in folder.iterdir()] == [".gitignore"]


def test_a_file_in_the_place_of_our_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".mlstack").write_text("")
    with pytest.raises(MlstackError) as error:
        ensure_own_folder(tmp_path)
    assert code_of(error) == "state-not-written"
    assert backend_for(None, tmp_path, "prod").get("state.json") is None
    with pytest.raises(MlstackError):
        backend_for(None, tmp_path, "prod").create("state.json", b"{}")


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(MlstackError) as error:
        FolderBackend(tmp_path).get("state.json")
    assert code_of(error) == "state-not-readable"
    assert str(tmp_path / "state.json") in error.value.diagnostics[0].detail


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/.", ".tmp/x", ""])
def test_what_is_no_key_is_a_bug_of_ours(tmp_path: Path, key: str) -> None:
    backend = FolderBackend(tmp_path / "state")
    for act in (lambda: backend.create(key, b""), lambda: backend.get(key), lambda: backend.delete(key)):
        with pytest.raises(ValueError, match="not a key"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_ends_with_a_slash(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prefix"):
        FolderBackend(tmp_path).keys("jour")


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path / "state")
    backend.create("journal/1", b"1")
    subprocess.run(["rm", "-r", str(tmp_path / "state")], check=True)
    assert backend.create("journal/2", b"2") is not None
    assert backend.replace("state.json", b"3", tag=None) is not None
    assert list(backend.keys("")) == ["journal/2", "state.json"]


def test_what_a_dead_process_left_is_no_key_and_goes_away(tmp_path: Path) -> None:
    leftovers = tmp_path / ".tmp"
    leftovers.mkdir()
    (leftovers / "old").write_bytes(b"half")
    os.utime(leftovers / "old", (1, 1))
    (leftovers / "new").write_bytes(b"somebody is writing this")
    backend = FolderBackend(tmp_path)
    assert list(backend.keys("")) == []
    backend.create("state.json", b"{}")
    assert [path.name for path in leftovers.iterdir()] == ["new"]


_READ_ONLY = """
import os, sys, tempfile
from pathlib import Path
from mlstack.diagnostics import MlstackError
from mlstack.state.environment_folder import backend_for, ensure_own_folder
from mlstack.state.environment_lock import acquire
from mlstack.state.read import open_reader
from mlstack.state.state import Entry
from mlstack.state.store import open_store
from mlstack.state.workspace_lock import workspace_lock

def everything(root, environment):
    backend = backend_for(None, root, environment)
    who = {"project": "p", "environment": environment}
    yield "append", lambda: open_store(backend, **who).append(Entry(at="", apply_id="", event="apply-started"))
    yield "compact", lambda: open_store(backend, **who).compact()
    yield "lock", lambda: acquire(backend, operation="apply", environment=environment).release()
    yield "read", lambda: open_reader(backend, **who).state()
    def workspace():
        with workspace_lock(root, operation="apply"):
            pass
    yield "workspace", workspace
    yield "own", lambda: ensure_own_folder(root)

with tempfile.TemporaryDirectory() as name:
    root = Path(name)
    for operation, act in everything(root, "used"):
        act()
    next(everything(root, "used"))[1]()
    fresh = root / "fresh"
    fresh.mkdir()
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        for where in (root, fresh):
            for operation, act in everything(where, "used"):
                try:
                    act()
                    print(operation, "fine")
                except MlstackError as error:
                    print(operation, error.diagnostics[0].code)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
"""


def test_in_a_read_only_project_everything_that_writes_says_so_and_reading_works() -> None:
    done = subprocess.run([sys.executable, "-c", _READ_ONLY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used, fresh = done.stdout.splitlines()[:6], done.stdout.splitlines()[6:]
    assert used == [
        "append folder-read-only",
        "compact folder-read-only",
        "lock folder-read-only",
        "read fine",
        "workspace folder-read-only",
        "own fine",
    ]
    assert fresh == [
        "append folder-read-only",
        "compact fine",
        "lock folder-read-only",
        "read fine",
        "workspace folder-read-only",
        "own folder-read-only",
    ]


def test_reading_a_small_state_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from mlstack.state.environment_folder import backend_for
from mlstack.state.read import open_reader
backend = backend_for(None, Path(sys.argv[1]), "prod")
if sys.argv[2] == "write":
    from mlstack.state.state import Entry
    from mlstack.state.store import open_store
    open_store(backend, project="p", environment="prod").append(Entry(at="", apply_id="", event="apply-started"))
else:
    reader = open_reader(backend, project="p", environment="prod")
    reader.state(), reader.pending(), reader.runs(), reader.history()
    print(*sys.modules)
"""
    heavy = {
        "psutil",
        "filelock",
        "socket",
        "threading",
        "subprocess",
        "asyncio",
        "logging",
        "pydantic",
        "yaml",
    }
    for what in ("read", "write", "read"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), what], capture_output=True, text=True, check=True
        )
        assert heavy.isdisjoint(done.stdout.split())
