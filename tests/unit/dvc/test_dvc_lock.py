"""`dvc.lock`: damaged ones are refused with a place, what others wrote stays, nothing is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.dvc.lock_writer import LockWriter
from mlstack.drivers.dvc.lockfile import parse_lock, read_lock
from mlstack.graph.graph import EntryKey, Hashed, LockEntry
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from tests.unit.dvc.dvc_project import Project, stage

MD5 = "0123456789abcdef0123456789abcdef"
ENTRY = f"""\
  {{name}}:
    cmd: cp a b
    deps:
    - path: a
      hash: md5
      md5: {MD5}
      size: 2
    outs:
    - path: b-{{name}}
      hash: md5
      md5: {MD5}
      size: 2
"""
HEAD = "schema: '2.0'\nstages:\n"


def text_of(*names: str) -> str:
    return HEAD + "".join(ENTRY.format(name=name) for name in names)


def entry(name: str, *, size: int = 2) -> LockEntry:
    digest = FileDigest(md5=MD5, size=size)
    key = EntryKey(cmd="cp a b", deps=(Hashed(path="a", digest=digest),), params={}, out_paths=(f"b-{name}",))
    return LockEntry(key=key, outs=(Hashed(path=f"b-{name}", digest=digest),))


def problem(content: str | bytes, directory: str = ".") -> Diagnostic:
    with pytest.raises(MlstackError) as caught:
        parse_lock(content.encode() if isinstance(content, str) else content, directory)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.hint
    return diagnostic


def line_of(diagnostic: Diagnostic) -> tuple[str, int]:
    assert diagnostic.position is not None
    return diagnostic.position.file, diagnostic.position.line


def test_a_conflict_after_a_merge() -> None:
    text = text_of("a") + "<<<<<<< HEAD\n" + ENTRY.format(name="b") + "=======\n>>>>>>> other\n"
    found = problem(text, "models/churn")
    assert (found.code, line_of(found)) == ("dvc-lock-conflict", ("models/churn/dvc.lock", 15))
    assert found.command == "mlstack lock --resolve"


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        ("schema: '3.0'\nstages: {}\n", "dvc-lock-schema", 1),
        ("stages: {}\n", "dvc-lock-schema", 1),
        ("schema: '2.0'\nstages:\n  a: [\n", "dvc-lock-unreadable", 4),
        (text_of("a", "b")[: -len(f"      md5: {MD5}\n      size: 2\n")], "dvc-lock-unreadable", 15),
        (text_of("a", "b", "a"), "dvc-lock-duplicate", 27),
        ("- a\n", "dvc-lock-unreadable", 1),
        (b"schema: '2.0'\nstages:\n  \xff: 1\n", "dvc-lock-unreadable", 3),
        (HEAD + "  a:\n    deps: []\n", "dvc-lock-unreadable", 3),
        (HEAD + "  a: 1\n", "dvc-lock-unreadable", 3),
    ],
)
def test_damaged_files_are_refused_with_their_line(content: str | bytes, code: str, line: int) -> None:
    found = problem(content)
    assert (found.code, line_of(found)[1]) == (code, line)


def test_entries_of_others_stay_byte_for_byte(tmp_path: Path) -> None:
    theirs = (
        "# a comment\nschema: '2.0'\nstages:\n"
        "  zeta:   # odd\n    cmd: [a, b]\n    deps:\n    - {path: s3://x/y, etag: 1, size: 3}\n"
        + ENTRY.format(name="build@us")
        + "  multi:\n    cmd: |\n      x\n\n      y\n    outs:\n    - path: o\n      md5: "
        + MD5
        + "\n      size: 1\n"
        + "datasets:\n- name: x\n"
    )
    (tmp_path / "dvc.lock").write_text(theirs)
    writer = LockWriter(tmp_path, ".")
    zeta = writer.get("zeta")
    assert zeta is not None
    assert zeta.entry is None
    writer.put("new", entry("new"), ())
    assert writer.write()
    now = (tmp_path / "dvc.lock").read_text()
    assert now == theirs.replace("datasets:", ENTRY.format(name="new") + "datasets:")
    writer.remove("new")
    writer.write()
    assert (tmp_path / "dvc.lock").read_text() == theirs
    assert not writer.write()


def test_a_layout_of_its_own_is_kept_in_content(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(
        '{"schema": "2.0", "stages": {"a": {"cmd": "x", "outs": [{"path": "o", "md5": "' + MD5 + '", "size": 1}]}}}'
    )
    writer = LockWriter(tmp_path, ".")
    writer.put("b", entry("b"), ())
    writer.write()
    found = read_lock(tmp_path, ".")
    assert list(found.stages) == ["a", "b"]
    assert (tmp_path / "dvc.lock").read_text().startswith(HEAD + "  a:\n    cmd: x\n")


def test_new_entries_go_where_their_name_belongs(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(text_of("a", "c"))
    writer = LockWriter(tmp_path, ".")
    writer.put("b", entry("b"), ())
    writer.write()
    assert (tmp_path / "dvc.lock").read_text() == text_of("a", "b", "c")
    (tmp_path / "dvc.lock").write_text(text_of("z", "c"))
    writer.put("b", entry("b"), ())
    writer.write()
    assert (tmp_path / "dvc.lock").read_text() == text_of("z", "c", "b")


def test_the_last_entry_takes_the_file_with_it(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(text_of("a"))
    writer = LockWriter(tmp_path, ".")
    writer.remove("a")
    assert writer.write()
    assert not (tmp_path / "dvc.lock").exists()


def test_a_write_of_somebody_else_is_seen(tmp_path: Path) -> None:
    writer = LockWriter(tmp_path, ".")
    writer.put("a", entry("a"), ())
    writer.write()
    (tmp_path / "dvc.lock").write_text(text_of("a", "theirs"))
    writer.put("b", entry("b"), ())
    writer.write()
    assert list(read_lock(tmp_path, ".").stages) == ["a", "theirs", "b"] or list(read_lock(tmp_path, ".").stages) == [
        "a", "b", "theirs",
    ]  # fmt: skip


def test_a_damaged_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("<<<<<<< HEAD\n")
    writer = LockWriter(tmp_path, ".")
    writer.put("a", entry("a"), ())
    with pytest.raises(MlstackError):
        writer.write()
    assert (tmp_path / "dvc.lock").read_text() == "<<<<<<< HEAD\n"
    assert writer.is_dirty


def test_an_unchanged_file_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "dvc.lock"
    file.write_text(text_of("a"))
    past = time.time() - 10
    os.utime(file, (past, past))
    time.sleep(0.11)  # the cache trusts no file that is younger than a tick of the file system's clock
    cache = tmp_path / "cache"
    first = read_lock(tmp_path, ".", cache_folder=cache)
    monkeypatch.setattr("mlstack.drivers.dvc.lockfile.parse_lock", None)
    assert read_lock(tmp_path, ".", cache_folder=cache) == first
    monkeypatch.undo()
    file.write_text(text_of("a", "b"))
    assert list(read_lock(tmp_path, ".", cache_folder=cache).stages) == ["a", "b"]


WRITER = """
import sys
from pathlib import Path
from tests.unit.dvc.test_dvc_lock import entry
from mlstack.drivers.dvc.lock_writer import LockWriter
from mlstack.drivers.dvc.locking import RepositoryLock
from mlstack.drivers.dvc.settings import read_settings
root, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
lock = RepositoryLock(read_settings(root))
writer = LockWriter(root, ".")
print("ready", flush=True)
for number in range(count):
    writer.put(f"{who}{number}", entry(f"{who}{number}"), ())
    with lock.held():
        writer.write()
"""


def start_writer(root: Path, who: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), who, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    processes = [start_writer(tmp_path, who, 25) for who in "ab"]
    for process in processes:
        assert process.communicate(timeout=300)[0] == "ready\n"
        assert process.returncode == 0
    assert len(read_lock(tmp_path, ".").stages) == 50


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03])
def test_kill_in_the_middle_of_writing(tmp_path: Path, delay: float) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.lock").write_text(text_of(*(f"kept{number}" for number in range(300))))
    process = start_writer(tmp_path, "a", 100_000)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = read_lock(tmp_path, ".").stages
    assert {f"kept{number}" for number in range(300)} <= found.keys()
    writer = LockWriter(tmp_path, ".")
    writer.put("after", entry("after"), ())
    assert writer.write()


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.unit.dvc.test_dvc_lock import entry
from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.lock_writer import LockWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
writer = LockWriter(Path(sys.argv[1]), ".")
writer.put("b", entry("b"), ())
try:
    writer.write()
except MlstackError as error:
    print(error.diagnostics[0].code, writer.is_dirty)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(writer.write())
"""


def test_no_room_left(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(text_of("a"))
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "file-unwritable True\nTrue\n", done.stderr
    assert (tmp_path / "dvc.lock").read_text() == text_of("a", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dvc.lock"]


def test_threads_record_everything(project: Project) -> None:
    names = [f"s{number:02}" for number in range(40)]
    project.declare(*(stage(name, f"echo {name} >{name}", outs=[name]) for name in names))
    store = project.store()

    def record(name: str) -> None:
        store.record({Address(f"stages.{name}"): entry(name)})

    threads = [threading.Thread(target=record, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert sorted(read_lock(project.root, ".").stages) == names


def test_the_file_is_written_about_once_a_second(project: Project) -> None:
    project.declare(*(stage(f"s{number}", "x", outs=[f"o{number}"]) for number in range(3)))
    now = [100.0]
    store = project.store(clock=lambda: now[0])
    store.record({Address("stages.s0"): entry("s0")})
    assert list(read_lock(project.root, ".").stages) == ["s0"]
    store.record({Address("stages.s1"): entry("s1")})
    assert list(read_lock(project.root, ".").stages) == ["s0"]
    now[0] += 1.0
    store.record({Address("stages.s2"): entry("s2")})
    assert list(read_lock(project.root, ".").stages) == ["s0", "s1", "s2"]
