"""Bringing, preparing and committing results: nothing of the user's is lost, nothing wrong is taken for right."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent
from mlstack.drivers.dvc.locking import RepositoryLock
from mlstack.drivers.dvc.placing import Placer
from mlstack.drivers.dvc.settings import read_settings
from mlstack.graph.graph import EntryKey, LockEntry, entry_key
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep, Out
from tests.unit.dvc.dvc_project import DVC, Project, params, stage

A = Address("stages.a")


def quiet(_line: str) -> None:
    """Nobody listens."""


def code_of(error: pytest.ExceptionInfo[MlstackError]) -> str:
    assert all(diagnostic.hint for diagnostic in error.value.diagnostics)
    return error.value.diagnostics[0].code


def one_stage(project: Project, *outs: str | Out, cmd: str = "echo made >o") -> EntryKey:
    project.declare(stage("a", cmd, outs=outs or ("o",)))
    key = entry_key(project.graph().stages[A], {})
    assert isinstance(key, EntryKey)
    return key


def objects_in(project: Project) -> list[Path]:
    return sorted(path for path in (project.root / ".dvc/cache/files").rglob("*") if path.is_file())


def test_outputs_that_were_not_made_are_named(project: Project) -> None:
    key = one_stage(project, "o", "x/y", "z")
    project.write("o", "1")
    with pytest.raises(MlstackError, match=r"x/y, z is not there") as error:
        project.store().commit(A, key)
    assert code_of(error) == "output-not-made"


@pytest.mark.parametrize("kind", ["pipe", "broken link", ".dvcignore"])
def test_what_cannot_be_versioned_is_refused(project: Project, kind: str) -> None:
    key = one_stage(project, "folder")
    project.write("folder/fine", "1")
    match kind:
        case "pipe":
            os.mkfifo(project.root / "folder/pipe")
        case "broken link":
            (project.root / "folder/link").symlink_to("nowhere")
        case _:
            project.write("folder/.dvcignore", "x\n")
    with pytest.raises(MlstackError) as error:
        project.store().commit(A, key)
    assert code_of(error) == "special-output"


def test_odd_outputs(project: Project) -> None:
    """Empty files and folders, large files, links, odd names, ignored files: the same hashes as DVC's."""
    project.write(".dvcignore", "*.tmp\n")
    project.write("elsewhere", "linked\n")
    cmd = (
        "mkdir -p empty 'ü b/c d/.hidden'; : >nothing; head -c 3000000 /dev/zero >large; ln -sf ../elsewhere"
        " 'ü b/link'; echo 1 >'ü b/c d/$x'; echo 2 >'ü b/c d/.hidden/é'; echo 3 >'ü b/x.tmp';"
        " mkdir -p 'ü b/none'; chmod +x large"
    )
    project.declare(stage("a", cmd, outs=["empty", "nothing", "large", "ü b"], params=params({"size": 3})))
    assert project.apply() == {A: "ran"}
    ours = project.read("dvc.lock")
    assert "up to date" in project.dvc("status")
    project.dvc("commit", "-f")
    assert project.read("dvc.lock") == ours
    assert project.apply() == {A: "unchanged"}
    assert project.readings().stages[A].missing == ()
    assert not [path for path in objects_in(project) if path.name.endswith(".tmp")]
    assert {path.stat().st_mode & 0o777 for path in objects_in(project)} == {0o444}


def test_a_file_that_was_there_before_the_first_run_is_kept_aside(project: Project) -> None:
    key = one_stage(project, "o", "folder")
    project.write("o", "by hand")
    project.write("folder/x", "by hand too")
    store = project.store()
    store.prepare(A)
    assert not (project.root / "o").exists()
    assert {notice.code for notice in store.notices} == {"kept-aside"}
    kept = sorted(path.read_text() for path in (project.root / ".mlstack/kept").rglob("*") if path.is_file())
    assert kept == ["by hand", "by hand too"]
    project.write("o", "half made by a run that failed")
    again = project.store()
    again.prepare(A)
    assert again.notices == ()
    project.write("o", "made")
    project.write("folder/y", "made")
    again.commit(A, key)
    last = project.store()
    last.prepare(A)
    assert last.notices == ()
    assert not (project.root / "folder").exists()


def test_an_output_in_the_last_commit_is_not_kept_aside(project: Project) -> None:
    one_stage(project, Out(path="m.json", role="metric", cache=False))
    project.write("m.json", "{}")
    project.commit_all()
    store = project.store()
    store.prepare(A)
    assert store.notices == ()
    end = project.write(".mlstack/runs/stages.a/0123/result.json", "{}").stat().st_mtime
    for age, notices in ((-1, 0), (1, 1)):
        made = project.write("m.json", "{1}")
        os.utime(made, (end + age, end + age))
        store = project.store()
        store.prepare(A)
        assert len(store.notices) == notices, "what is older than the end of a failed run was made by it"
        os.utime(project.root / ".mlstack/runs/stages.a/prepared", (end - 1, end - 1))


def test_bring_keeps_what_it_would_overwrite(project: Project) -> None:
    key = one_stage(project, "o", "folder")
    project.write("o", "1")
    project.write("folder/a/b", "2")
    project.write("folder/c", "3")
    store = project.store()
    wanted = store.commit(A, key).digests()
    project.write("o", "changed by hand")
    project.write("folder/c", "changed too")
    project.write("folder/new", "new")
    (project.root / "folder/a/b").unlink()
    store = project.store()
    store.bring(wanted, say=quiet)
    assert [project.read(path) for path in ("o", "folder/a/b", "folder/c")] == ["1", "2", "3"]
    assert not (project.root / "folder/new").exists()
    kept = sorted(path.read_text() for path in (project.root / ".mlstack/kept").rglob("*") if path.is_file())
    assert kept == ["changed by hand", "changed too", "new"]
    (project.root / "o").unlink()
    project.write("o/is/a/folder", "x")
    store.bring(wanted, say=quiet)
    assert project.read("o") == "1"


def test_bring_says_what_cannot_be_had(project: Project) -> None:
    one_stage(project)
    with pytest.raises(MlstackError, match="no remote is configured") as error:
        project.store().bring({"o": FileDigest(md5="0" * 32, size=1)}, say=quiet)
    assert code_of(error) == "content-not-here"


def test_a_damaged_object_is_found(project: Project) -> None:
    key = one_stage(project)
    project.write("o", "precious")
    wanted = project.store().commit(A, key)
    (project.root / "o").unlink()
    (damaged,) = objects_in(project)
    damaged.chmod(0o644)
    damaged.write_text("pr")
    project.write("dvc.lock", "")
    store = project.store()
    store.record({A: wanted})
    store.flush()
    reading = project.readings().stages[A]
    assert reading.missing == ("o",), "another size"
    assert isinstance(reading.outs, Absent)
    damaged.write_text("PRECIOUS")
    with pytest.raises(MlstackError) as error:
        store.bring(wanted.digests(), say=quiet)
    assert code_of(error) == "cache-object-damaged"
    assert not damaged.exists()
    assert not (project.root / "o").exists()


def test_a_damaged_object_is_replaced_by_the_next_commit(project: Project) -> None:
    key = one_stage(project)
    project.write("o", "precious")
    project.store().commit(A, key)
    (damaged,) = objects_in(project)
    damaged.chmod(0o644)
    damaged.write_text("")
    project.store().commit(A, key)
    assert damaged.read_text() == "precious"


@pytest.mark.parametrize("what", ["damaged run-cache", "no run-cache", "object gone"])
def test_a_run_cache_that_cannot_help(project: Project, what: str) -> None:
    key = one_stage(project)
    project.write("o", "1")
    project.store().commit(A, key)
    assert project.store().lookup(A, key) is not None
    (run,) = [path for path in (project.root / ".dvc/cache/runs").rglob("*") if path.is_file()]
    match what:
        case "damaged run-cache":
            run.write_text("cmd: [")
        case "no run-cache":
            run.unlink()
        case _:
            objects_in(project)[0].unlink()
            (project.root / "o").unlink()
    assert project.store().lookup(A, key) is None


def test_params_called_size_are_told_apart(project: Project) -> None:
    """DVC leaves `size` and `nfiles` out of the run-cache's key wherever they stand: two keys share a folder."""
    project.write("params.yaml", "model:\n  size: 1\n")

    def key_of(size: int) -> EntryKey:
        project.declare(stage("a", "x", outs=["o"], params=params({"model": {"size": size}}, file="params.yaml")))
        key = entry_key(project.graph().stages[A], {})
        assert isinstance(key, EntryKey)
        return key

    one, two = key_of(1), key_of(2)
    project.write("o", "same")
    project.store().commit(A, one)
    assert project.store().lookup(A, two) is None
    project.store().commit(A, two)
    found = [project.store().lookup(A, key) for key in (one, two)]
    assert [entry.key.params for entry in found if entry] == [one.params, two.params]


def test_the_newest_result_is_restored(project: Project) -> None:
    key = one_stage(project)
    entries = []
    for number, text in enumerate(("1", "2", "1")):
        project.write("o", text)
        entries.append(project.store().commit(A, key))
        past = time.time() - 100 + number
        for path in (project.root / ".dvc/cache/runs").rglob("*"):
            if path.is_file() and path.stat().st_mtime > past:
                os.utime(path, (past, past))
    assert project.store().lookup(A, key) == entries[2]


def test_runs_that_are_not_to_be_kept(project: Project) -> None:
    key = one_stage(project, "o", Out(path="m", role="metric", cache=False))
    project.write("o", "1")
    project.write("m", "{}")
    project.store().commit(A, key, keep_in_run_cache=False)
    assert not (project.root / ".dvc/cache/runs").exists()
    assert len(objects_in(project)) == 1


def test_a_cache_that_cannot_be_written(project: Project) -> None:
    key = one_stage(project)
    project.write("o", "1")
    project.write(".dvc/cache", "a file")
    with pytest.raises(MlstackError) as error:
        project.store().commit(A, key)
    assert code_of(error) == "cache-unwritable"
    assert project.read("o") == "1"


NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.saving import Saver
from mlstack.drivers.dvc.placing import Placer
from mlstack.drivers.dvc.settings import read_settings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root = Path(sys.argv[1])
settings = read_settings(root)
saver = Saver(root, settings, Objects(settings.cache))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for name in ("small", "large"):
    try:
        saver.save(name)
    except MlstackError as error:
        print(error.diagnostics[0].code)
"""


def test_no_room_left_in_the_cache(project: Project) -> None:
    project.write("small", "x" * 2000)
    project.write("large", "x" * 2_000_000)
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(project.root)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "cache-unwritable\ncache-unwritable\n", done.stderr
    assert objects_in(project) == []


KILLED = """
import sys
from pathlib import Path
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.saving import Saver
from mlstack.drivers.dvc.placing import Placer
from mlstack.drivers.dvc.settings import read_settings
root = Path(sys.argv[1])
settings = read_settings(root)
print("ready", flush=True)
Saver(root, settings, Objects(settings.cache)).save("large")
"""


def test_kill_while_an_object_is_written(project: Project) -> None:
    project.write("large", os.urandom(1 << 20) * 200)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(project.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.communicate()
    for path in objects_in(project):
        assert path.name.endswith(".tmp") or path.stat().st_size == 200 << 20, "half of it has the name of the whole"
    project.declare(stage("a", "true", outs=["large"]))
    key = entry_key(project.graph().stages[A], {})
    assert isinstance(key, EntryKey)
    (out,) = project.store().commit(A, key).outs
    assert (project.root / ".dvc/cache/files/md5" / out.digest.md5[:2] / out.digest.md5[2:]).stat().st_size == 200 << 20
    project.write("dvc.yaml", "")
    project.dvc("gc", "-w", "-f")
    assert [path for path in objects_in(project) if not path.name.endswith(".tmp")] == []


# ---------------------------------------------------------------------------------------------------- locks


def test_patience_with_a_dvc_command_ends(project: Project) -> None:
    key = one_stage(project)
    project.write("o", "1")
    settings = read_settings(project.root)
    with RepositoryLock(settings).held():
        store = project.store(repository_lock=RepositoryLock(settings, patience=0.1))
        with pytest.raises(MlstackError, match=rf"process {os.getpid()}") as error:
            store.commit(A, key)
        assert code_of(error) == "dvc-busy"
    store.commit(A, key)


def test_dvc_waits_for_us_and_we_for_dvc(project: Project) -> None:
    """DVC really sees our lock: it refuses to work while we hold it."""
    one_stage(project)
    with RepositoryLock(read_settings(project.root)).held():
        assert "Unable to acquire lock" in project.dvc("checkout", check=False)
    assert "Unable to acquire lock" not in project.dvc("checkout")


def test_what_gc_removes_before_dvc_lock_names_it_is_saved_again(project: Project) -> None:
    key = one_stage(project)
    project.write("o", "1")
    store = project.store()
    entry = store.commit(A, key)
    project.dvc("gc", "-w", "-f")
    assert objects_in(project) == []
    store.record({A: entry})
    store.flush()
    assert len(objects_in(project)) == 1


def test_a_stage_that_dvc_runs_at_this_moment(project: Project) -> None:
    """A `dvc repro` of the user runs `b` while we commit `a`; `b` itself has to wait until it is done."""
    go = project.root / "go"
    project.declare(
        stage("a", "echo 1 >o", outs=["o"]),
        stage("b", "while [ ! -e go ]; do sleep 0.05; done; echo 2 >p", outs=["p"]),
    )
    project.store().write_definitions()
    process = subprocess.Popen([*DVC, "repro", "-q", "b"], cwd=project.root, env=project.variables)
    try:
        rwlock = project.root / ".dvc/tmp/rwlock"
        deadline = time.monotonic() + 120
        while not (rwlock.exists() and '/p"' in rwlock.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        key = entry_key(project.graph().stages[A], {})
        assert isinstance(key, EntryKey)
        store = project.store()
        store.prepare(A)
        project.write("o", "1\n")
        store.record({A: store.commit(A, key)})
        store.flush()
        hasty = project.store(repository_lock=RepositoryLock(read_settings(project.root), patience=0.2))
        with pytest.raises(MlstackError, match=rf"process {process.pid}") as error:
            hasty.prepare(Address("stages.b"))
        assert code_of(error) == "dvc-runs"
        patient = project.store()
        waiting = threading.Thread(target=patient.prepare, args=(Address("stages.b"),))
        waiting.start()
        go.touch()
        waiting.join(timeout=120)
        assert not waiting.is_alive()
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()
    readings = project.readings()
    assert readings.diagnostics == ()
    assert {address for address, reading in readings.stages.items() if reading.recorded} == {A, Address("stages.b")}


# ---------------------------------------------------------------------------------------------------- several


def test_stages_in_parallel(project: Project) -> None:
    names = [f"s{number:02}" for number in range(30)]
    project.declare(*(stage(name, f"echo {name} >out/{name}", outs=[f"out/{name}"]) for name in names))
    graph = project.graph()
    store = project.store(graph)
    store.write_definitions()
    problems: list[MlstackError] = []

    def carry_out(name: str) -> None:
        address = Address(f"stages.{name}")
        try:
            key = entry_key(graph.stages[address], {})
            assert isinstance(key, EntryKey)
            store.prepare(address)
            project.write(f"out/{name}", f"{name}\n")
            store.record({address: store.commit(address, key)})
        except MlstackError as error:
            problems.append(error)

    threads = [threading.Thread(target=carry_out, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert problems == []
    assert "up to date" in project.dvc("status")


def test_a_second_clone_with_a_copied_cache(project: Project, tmp_path: Path) -> None:
    project.write("in", "1\n")
    project.declare(
        stage(
            "a",
            "cp in o && echo '{\"x\": 1}' >m.json",
            deps=["in"],
            outs=["o", Out(path="m.json", role="metric", cache=False)],
        )
    )
    project.apply()
    project.commit_all()
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(project.root), str(clone)], check=True)
    subprocess.run(["cp", "-r", str(project.root / ".dvc/cache"), str(clone / ".dvc/cache")], check=True)
    other = Project(clone, tmp_path / "home").declare(*(project.resources[A],))  # type: ignore[arg-type]
    reading = other.readings()
    assert reading.stages[A].missing == ()
    assert reading.stages[A].defined
    assert reading.metrics == {A: {"x": 1.0}}
    assert not (clone / "o").exists()
    assert other.apply() == {A: "unchanged"}


def test_a_dataset_is_added_as_dvc_would(project: Project) -> None:
    for number in range(30):
        project.write(f"data/{number % 3}/é {number}", f"{number}\n")
    project.declare(
        Dataset(address=Address("datasets.d"), path="data"),
        stage("a", "cat data/*/* >o", deps=[Dep("data", Address("datasets.d"))], outs=["o"]),
    )
    project.apply()
    assert "up to date" in project.dvc("status")
    ours = project.read("data.dvc")
    assert "address: datasets.d" in ours
    project.dvc("add", "data")
    assert project.read("data.dvc") == ours
    project.write("data/new", "x\n")
    assert project.apply() == {"datasets.d": "added", A: "ran"}
    assert "up to date" in project.dvc("status")


def test_a_dvc_file_of_the_user_is_never_overwritten(project: Project) -> None:
    project.write("data.csv", "1\n")
    project.dvc("add", "data.csv")
    dataset = Dataset(address=Address("datasets.d"), path="data.csv")
    project.declare(dataset)
    theirs = project.read("data.csv.dvc")
    project.store().add_dataset(dataset, say=quiet)
    assert project.read("data.csv.dvc") == theirs
    project.write("data.csv", "2\n")
    with pytest.raises(MlstackError) as error:
        project.store().add_dataset(dataset, say=quiet)
    assert code_of(error) == "foreign-dvc-file"
    assert project.read("data.csv.dvc") == theirs


def test_an_entry_of_a_killed_apply_is_laid_over(project: Project) -> None:
    from mlstack.state.state import Entry

    key = one_stage(project)
    project.write("o", "1")
    left = project.store().commit(A, key)

    def pending(entry: LockEntry) -> list[Entry]:
        import msgspec

        return [Entry(at="", apply_id="", event="step-done", address=A, lock_entry=msgspec.to_builtins(entry))]

    assert project.readings().stages[A].recorded is None
    assert project.readings(pending(left)).stages[A].recorded == left
    other = LockEntry(key=EntryKey(cmd="other", deps=(), params={}, out_paths=("o",)), outs=left.outs)
    assert project.readings(pending(other)).stages[A].recorded is None


def test_a_metric_that_two_files_have_is_known_by_its_file(project: Project) -> None:
    command = 'echo \'{"x": 1, "y": 3}\' >m.json && echo \'{"x": 2}\' >n.json'
    outs = [Out(path=path, role="metric", cache=False) for path in ("m.json", "n.json")]
    project.declare(stage("a", command, outs=outs))
    project.apply()
    assert project.readings().metrics == {A: {"m.json:x": 1.0, "n.json:x": 2.0, "y": 3.0}}


# ---------------------------------------------------------------------------------------------------- placing


def test_a_folder_is_placed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".mlstack").mkdir()
    (tmp_path / "object").write_text("1")
    files = [(name, str(tmp_path / "object")) for name in ("a", "b/c")]
    target = tmp_path / "data" / "set"
    moved: list[bool] = []
    rename = os.rename

    def refuse(source: str, to: str) -> None:
        moved.append((target / "a").exists())
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", refuse)
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        Placer(tmp_path, ("copy",)).place_folder(str(target), files)
    assert not target.exists()
    code = errno.EXDEV
    Placer(tmp_path, ("copy",)).place_folder(str(target), files)
    assert (target / "b" / "c").read_text() == "1", "on another file system it grows at its place"
    monkeypatch.setattr(os, "rename", rename)
    Placer(tmp_path, ("hardlink",)).place_folder(f"{target}-2", files)
    assert Path(f"{target}-2", "b", "c").samefile(tmp_path / "object")
    assert moved == [False, False]
    assert list((tmp_path / ".mlstack" / "tmp").iterdir()) == []
