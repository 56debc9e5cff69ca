"""A second clone with only the remote: what it gets, and what it is told when something is wrong with that remote.

A folder remote and moto's S3, real DVC, real Git, separate processes; between the clones there is nothing but commits.
"""

import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sharing import OBJECTS, OUTPUTS, World, contents, key_of, make_world, start
from tests.e2e.workspace import Workspace, clean_environment
from tests.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.s3 import S3Server, keys_in, s3_server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    return clean_environment(home, home / "cache")


@pytest.fixture(scope="module")
def folder_world(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> World:
    return make_world(tmp_path_factory.mktemp("folder-world"), environment)


@pytest.fixture
def world(folder_world: World, tmp_path: Path) -> World:
    """A world with a folder remote, of the test's own."""
    return folder_world.copy(tmp_path / "world")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        server.bucket("team")
        yield server


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[FaultyS3]:
    with faulty_s3(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def s3_world(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], s3: S3Server, proxy: FaultyS3
) -> World:
    """A world whose remote is a bucket, reached through the proxy."""
    reached = environment | s3.variables | {"AWS_ENDPOINT_URL": proxy.endpoint}
    return make_world(tmp_path_factory.mktemp("s3-world"), reached, remote="s3://team/store")


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "proxy" in request.fixturenames or "s3_world" in request.fixturenames:
        proxy: FaultyS3 = request.getfixturevalue("proxy")
        proxy.faults, proxy.reached = [], None


def never_ran(clone: Workspace) -> bool:
    """Whether no stage was started in a clone."""
    return not list((clone.root / ".mlstack").glob("runs/*/*"))


def hidden(path: Path) -> Path:
    """Take a file away; return where it is now."""
    return path.rename(path.with_name(path.name + ".hidden"))


# ------------------------------------------------------------------------------------------------ a second clone


@pytest.mark.parametrize("kind", ["folder_world", "s3_world"])
def test_a_second_clone_has_everything_and_runs_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shared: World = request.getfixturevalue(kind)
    name = f"second-{tmp_path.name}"
    clone = shared.clone(name)
    clone.mlstack("plan", "--detailed-exitcode", code=0)
    assert not any((clone.root / path).exists() for path in OUTPUTS), "planning brought nothing"
    done = clone.mlstack("pull")
    assert f"fetched {OBJECTS} objects" in done.stdout
    assert contents(clone) == contents(shared.origin)
    assert never_ran(clone)
    clone.assert_settled()
    origin = json.loads(shared.origin.mlstack("show", "models.sum", "--json").stdout)["provenance"]
    assert origin is not None
    assert json.loads(clone.mlstack("show", "models.sum", "--json").stdout)["provenance"] == origin


def test_an_apply_in_a_second_clone_brings_what_is_recorded(world: World) -> None:
    clone = world.clone("second")
    clone.mlstack("apply", "--yes")
    assert contents(clone) == contents(world.origin)
    assert never_ran(clone)


def test_a_change_in_a_second_clone_fetches_only_what_it_needs(world: World) -> None:
    clone = world.clone("second")
    clone.edit("mlstack.yaml", "scale: 3", "scale: 4")
    assert clone.actions() == {"stages.train": "run", "models.sum": "update"}
    clone.mlstack("apply", "--yes", "--target", "stages.train")
    assert not (clone.root / "data/raw.txt").exists(), "split did not run, so its input is not needed"
    assert (clone.root / "model.bin").read_bytes() != (world.origin.root / "model.bin").read_bytes()


# ----------------------------------------------------------------------------------------------- wrong contents


def test_a_damaged_object_of_the_cache_is_found_by_its_hash_and_fetched_again(world: World) -> None:
    clone = world.clone("second")
    clone.mlstack("pull")
    kept = clone.root / ".dvc/cache/files/md5" / key_of(clone.root / "model.bin")
    content = kept.read_bytes()
    kept.chmod(0o644)
    kept.write_bytes(content[::-1])  # as large as before
    (clone.root / "model.bin").unlink()
    done = clone.mlstack("pull")
    assert "was fetched again" in done.stderr
    assert "model.bin" in done.stderr
    assert done.stdout == "Restored 1 path.\n"
    assert contents(clone) == contents(world.origin)
    assert kept.read_bytes() == content


def test_a_damaged_object_of_the_remote_is_not_believed(world: World) -> None:
    blob = world.blob("model.bin")
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(content[::-1])
    clone = world.clone("second")
    done = clone.mlstack("pull", code=1)
    assert "not what its name says" in done.stderr
    assert "model.bin" in done.stderr
    assert not (clone.root / "model.bin").exists()
    assert (clone.root / "parts/a.txt").exists(), "what can be had is there"
    blob.write_bytes(content)
    clone.mlstack("pull")
    assert contents(clone) == contents(world.origin)


def test_a_blob_that_the_remote_lacks_is_named_with_the_commit_that_brought_it(world: World) -> None:
    commit = world.origin.git("rev-parse", "--short", "HEAD").strip()
    world.origin.commit("Something else")
    blob = world.blob("model.bin")
    away = hidden(blob)
    clone = world.clone("second")
    assert clone.actions() == {"stages.train": "run", "models.sum": "update"}, "it is known to be lost"
    for arguments in (("pull",), ("pull", "models.sum")):
        done = clone.mlstack(*arguments, code=1)
        assert f"model.bin came with commit {commit}" in " ".join(done.stderr.split())
    away.rename(blob)
    clone.mlstack("pull")
    clone.assert_settled()


def test_what_neither_cache_nor_remote_has_is_named_by_push(world: World) -> None:
    commit = world.origin.git("rev-parse", "--short", "HEAD").strip()
    clone = world.clone("second")
    world.blob("parts/a.txt").unlink()
    done = clone.mlstack("push", code=1)
    said = " ".join(done.stderr.split())
    assert "Not everything is in the remote" in said
    assert "parts/a.txt" in said
    assert f"came with commit {commit}" in said
    done = world.origin.mlstack("push")
    assert "Pushed 1 object" in done.stdout
    clone.mlstack("pull")
    assert contents(clone) == contents(world.origin)


def test_what_the_cache_has_lost_is_pushed_from_the_workspace(world: World) -> None:
    """After `rm -r .dvc/cache`, a file and a folder that lie there as recorded are all that is left of them."""
    origin = world.origin
    for path in ("model.bin", "parts/a.txt"):
        world.blob(path).unlink()
    shutil.rmtree(origin.root / ".dvc/cache")
    done = origin.mlstack("push")
    assert "Pushed 2 objects" in done.stdout
    clone = world.clone("second")
    clone.mlstack("pull")
    assert contents(clone) == contents(origin)

    world.blob("model.bin").unlink()
    (origin.root / "model.bin").chmod(0o644)
    (origin.root / "model.bin").write_bytes(b"somebody's own")
    shutil.rmtree(origin.root / ".dvc/cache")
    assert "is neither in DVC's cache nor in the remote" in origin.mlstack("push", code=1).stderr


# ------------------------------------------------------------------------------------------ two at once, and kills


def test_two_machines_push_at_once(world: World) -> None:
    shutil.rmtree(world.remote)
    world.remote.mkdir()
    one, two = world.clone("one"), world.clone("two")
    for clone in (one, two):
        shutil.copytree(world.origin.root / ".dvc/cache", clone.root / ".dvc/cache", dirs_exist_ok=True)
    pushing = [start(clone, "push") for clone in (one, two)]
    said = [process.communicate(timeout=240)[0] for process in pushing]
    assert [process.returncode for process in pushing] == [0, 0], said
    third = world.clone("third")
    third.mlstack("pull")
    assert contents(third) == contents(world.origin)
    assert not [path for path in world.remote.rglob("*") if path.is_file() and len(path.name) < 30], "no leftovers"


def _killed_at(proxy: FaultyS3, method: str, number: int, machine: Workspace, command: str) -> int:
    """Run a command and SIGKILL it when its `number`th request of `method` for a content arrives; return its code.

    That request comes through, those after it do not: what else it has sent by then is left to no chance.
    """
    arrived = itertools.count(1)
    is_started = threading.Event()

    def reached(sort: str, path: str) -> None:
        if sort == method and "/files/md5/" in path and next(arrived) == number:
            is_started.wait(120)
            process.kill()

    proxy.faults = [Fault("answer", method, "/files/md5/", after=number, status=503)]
    proxy.reached = reached
    process = start(machine, command)
    is_started.set()
    process.communicate(timeout=240)
    proxy.reached, proxy.faults = None, []
    return int(process.returncode)


@pytest.mark.parametrize("number", [1, 3])
def test_a_push_that_is_killed_goes_on_where_it_stopped(
    s3_world: World, s3: S3Server, proxy: FaultyS3, tmp_path: Path, number: int
) -> None:
    bucket = f"killed-{os.urandom(4).hex()}"
    look = s3.bucket(bucket)
    machine = s3_world.copy(tmp_path / "world").origin
    machine.edit("mlstack.yaml", "s3://team/store", f"s3://{bucket}/store")
    assert _killed_at(proxy, "PUT", number, machine, "push") == -9
    there = {key: size for key, size in keys_in(look).items() if "/files/md5/" in key}
    assert len(there) < OBJECTS
    done = machine.mlstack("push")
    assert "Pushed" in done.stdout
    assert len([key for key in keys_in(look) if "/files/md5/" in key]) == OBJECTS
    machine.commit("Another remote")
    other = World(machine.root.parent, machine.environment).clone("second")
    other.mlstack("pull")
    assert contents(other) == contents(machine)


@pytest.mark.parametrize("number", [1, 4])
def test_a_pull_that_is_killed_leaves_nothing_half_written(
    s3_world: World, proxy: FaultyS3, tmp_path: Path, number: int
) -> None:
    clone = s3_world.clone(f"killed-{tmp_path.name}")
    assert _killed_at(proxy, "GET", number, clone, "pull") == -9
    for path in (clone.root / ".dvc/cache/files/md5").glob("??/*"):
        assert path.name.endswith(".dir") or key_of(path) == f"{path.parent.name}/{path.name}", "whole, or not there"
    clone.mlstack("plan", "--detailed-exitcode", code=0)
    clone.mlstack("pull")
    assert contents(clone) == contents(s3_world.origin)
    clone.assert_settled()


def test_a_push_into_a_folder_that_is_killed_is_not_taken_for_whole(world: World) -> None:
    origin = world.origin
    with (origin.root / "data/raw.txt").open("ab") as file:
        file.write(b"1\n" * 60_000_000)  # takes long enough to be met in the middle
    origin.mlstack("apply", "--yes", "--no-push", "--target", "datasets.raw")
    before = {path for path in world.remote.rglob("*") if path.is_file()}
    process = start(origin, "push")
    until = time.monotonic() + 240
    has_ended, there = False, before
    while there == before:
        assert not has_ended, process.communicate()
        assert time.monotonic() < until
        has_ended = process.poll() is not None  # asked first: what it has written by then is seen
        there = {path for path in world.remote.rglob("*") if path.is_file()}
    process.kill()
    process.communicate()
    for path in (world.remote / "files/md5").glob("??/*"):
        whole = key_of(path) == f"{path.parent.name}/{path.name}" or path.name.endswith(".dir")
        assert whole or len(path.name) != 30, "half of it has the name of the whole"
    origin.mlstack("push", "datasets.raw")
    assert key_of(world.blob("data/raw.txt")) == key_of(origin.root / "data/raw.txt")


# ------------------------------------------------------------------------------------------------ remotes that fail


def test_without_credentials_a_plan_says_what_it_did_not_check(
    s3_world: World, environment: dict[str, str], proxy: FaultyS3
) -> None:
    stranger = {**environment, "AWS_ENDPOINT_URL": proxy.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    clone = s3_world.clone("stranger", stranger)
    done = clone.mlstack("plan", "--detailed-exitcode", code=0)
    assert "not checked" in done.stdout
    assert "redential" in done.stderr
    done = clone.mlstack("pull", code=1)
    assert "s3://team/store" in done.stderr
    assert "redential" in done.stderr


@pytest.mark.parametrize(
    ("fault", "word"),
    [(Fault("answer", status=403, code="AccessDenied", message="Access Denied"), "Forbidden"), (None, "onnect")],
    ids=["403", "unreachable"],
)
def test_a_remote_that_refuses_or_is_away_is_not_checked(
    s3_world: World, proxy: FaultyS3, tmp_path: Path, fault: Fault | None, word: str
) -> None:
    clone = s3_world.clone(f"away-{tmp_path.name}")
    if fault is None:
        clone.environment = {**clone.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    else:
        proxy.faults = [fault]
    done = clone.mlstack("plan", "--detailed-exitcode", code=0)
    assert "not checked" in done.stdout
    assert word in done.stderr
    done = clone.mlstack("pull", code=1)
    assert "s3://team/store" in done.stderr
    assert not any((clone.root / path).exists() for path in OUTPUTS)


def test_a_slow_remote_is_waited_for(s3_world: World, proxy: FaultyS3) -> None:
    clone = s3_world.clone("patient")
    proxy.faults = [Fault("slow", "GET", times=6, seconds=1.0)]
    clone.mlstack("pull")
    assert contents(clone) == contents(s3_world.origin)


def test_answers_that_break_off_and_busy_answers_are_asked_again(s3_world: World, proxy: FaultyS3) -> None:
    clone = s3_world.clone("stubborn")
    proxy.faults = [
        Fault("answer", "GET", times=2, status=503, code="SlowDown", message="Please reduce your request rate."),
        Fault("cut", "GET", key_of(s3_world.origin.root / "model.bin"), times=1),
    ]
    done = clone.mlstack("pull", code=None)
    if done.returncode:  # what broke off was not taken for whole, and was said; the next pull brings it
        assert not (clone.root / "model.bin").exists()
        clone.mlstack("pull")
    assert contents(clone) == contents(s3_world.origin)


def test_an_apply_whose_push_fails_keeps_its_result_and_the_next_one_pushes_it(
    s3_world: World, proxy: FaultyS3, tmp_path: Path
) -> None:
    machine = s3_world.copy(tmp_path / "world").origin
    machine.edit("mlstack.yaml", "scale: 3", "scale: 7")
    proxy.faults = [Fault("answer", "PUT", status=403, code="AccessDenied", message="Access Denied")]
    done = machine.mlstack("apply", "--yes", code=1)
    assert "recorded here, but not in the remote" in done.stderr
    machine.mlstack("plan", "--detailed-exitcode", code=0)
    proxy.faults = []
    done = machine.mlstack("apply", "--yes")
    assert "Pushed 1 object" in done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ results on merge


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_merged_branch_whose_lock_was_lost_is_restored_not_run(
    kind: str, tmp_path: Path, environment: dict[str, str], s3: S3Server
) -> None:
    remote, variables = "../remote", environment
    if kind == "s3":
        s3.bucket(bucket := f"merge-{os.urandom(4).hex()}")
        remote, variables = f"s3://{bucket}/store", environment | s3.variables
    shared = make_world(tmp_path / "world", variables, remote=remote, results="on-merge")
    ci = shared.clone("ci")
    ci.edit("split.sh", "head -500", "head -400")  # both stages have new results
    ci.edit("mlstack.yaml", "scale: 3", "scale: 5")
    ci.git("add", "-u")
    ci.git("commit", "-qm", "Change both stages")
    ci.git("push", "-q", "origin", "HEAD:change")
    ci.mlstack("apply", "--yes")  # and then its commit of dvc.lock gets lost
    assert not never_ran(ci)
    later = shared.clone("later")
    later.git("merge", "-q", "origin/change")
    before = sorted(path for path in (later.root / ".dvc").rglob("*") if path.is_file())
    assert later.actions() == {"stages.split": "restore", "stages.train": "restore", "models.sum": "update"}
    assert later.actions("--no-refresh")["stages.split"] == "run", "the remote was not asked"
    assert sorted(path for path in (later.root / ".dvc").rglob("*") if path.is_file()) == before
    later.mlstack("apply", "--yes")
    assert never_ran(later)
    assert contents(later) == contents(ci)
    later.mlstack("plan", "--detailed-exitcode", code=0)
    assert (later.root / "dvc.lock").read_bytes() == (ci.root / "dvc.lock").read_bytes()


def test_a_result_whose_contents_the_remote_lacks_is_run_again(tmp_path: Path, environment: dict[str, str]) -> None:
    shared = make_world(tmp_path / "world", environment, results="on-merge")
    ci = shared.clone("ci")
    ci.edit("mlstack.yaml", "scale: 3", "scale: 5")
    ci.mlstack("apply", "--yes")
    later = shared.clone("later")
    later.edit("mlstack.yaml", "scale: 3", "scale: 5")
    assert later.actions()["stages.train"] == "restore"
    (shared.remote / "files/md5" / key_of(ci.root / "model.bin")).unlink()
    assert later.actions()["stages.train"] == "run"


# ------------------------------------------------------------------------------------------------ shared environments

ENDPOINT = """\
endpoints:
  sums: {model: models.sum}
environments:
  local: {default: true}
  team: {state: ../team-state}
"""


def test_a_shared_environment_is_given_no_model_that_only_this_machine_has(world: World) -> None:
    origin = world.origin
    file = origin.root / "mlstack.yaml"
    file.write_text(file.read_text() + ENDPOINT)
    origin.edit("mlstack.yaml", "scale: 3", "scale: 6")
    origin.mlstack("apply", "--yes", "--no-push", "--target", "stages.train")
    done = origin.mlstack("plan", "-e", "team", code=1)
    said = " ".join(done.stderr.split())
    assert "given a model that others cannot have" in said
    assert "model.bin" in said
    assert "mlstack push" in said
    assert origin.mlstack("apply", "-e", "team", "--yes", code=1).stderr.count("mlstack push") == 1
    assert not list((world.top / "team-state").rglob("state.json")), "nothing was begun"
    assert "model-not-in-remote" not in origin.mlstack("plan", "--json", code=None).stdout, "the local one may"
    origin.mlstack("push")
    assert "+ create" in origin.mlstack("plan", "-e", "team").stdout
