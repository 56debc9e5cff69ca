"""One remote, two programs: what mlstack pushes `dvc pull` brings, and the other way round; on a folder and on S3."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent, NotChecked, Present
from mlstack.drivers.dvc.exchange import Exchange
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.dvc.read import ResultReadings, read_results
from mlstack.drivers.dvc.transfer import Progress, fetch
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep, Out
from tests.s3 import S3Server, keys_in, s3_server
from tests.unit.dvc.conftest import project
from tests.unit.dvc.dvc_project import Project, stage

__all__ = ["project"]

TRAIN = Address("stages.train")
MODEL = "a,b\n1,2\n3\n1\n"
OBJECTS = 5  # the dataset, two files of a folder and its listing, the model


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


class Store:
    """A remote and a look into it past both programs."""

    def __init__(self, url: str, look: Callable[[], dict[str, int]], spoil: Callable[[str, bytes], None]) -> None:
        self.url, self.look, self.spoil = url, look, spoil


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, project: Project
) -> Store:
    if request.param == "folder":
        folder = tmp_path / "remote"
        return Store(
            str(folder),
            lambda: {
                path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
            },
            lambda key, content: _overwrite(folder / key, content),
        )
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
        project.variables[name] = value
    name = f"bucket-{os.urandom(4).hex()}"
    bucket = s3.bucket(name)
    bucket_keys = f"s3://{name}/a/store"
    return Store(
        bucket_keys,
        lambda: {key.removeprefix("a/store/"): size for key, size in keys_in(bucket).items()},
        lambda key, content: obstore.put(bucket, f"a/store/{key}", content) and None,
    )


def _overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def pipeline(project: Project) -> Project:
    project.write("raw.csv", "a,b\n1,2\n")
    return project.declare(
        Dataset(address=Address("datasets.raw"), path="raw.csv"),
        stage(
            "prepare",
            "mkdir -p parts/x; cp raw.csv parts/a; echo 3 >>parts/a; echo 1 >parts/x/1",
            deps=[Dep("raw.csv", Address("datasets.raw"))],
            outs=["parts"],
        ),
        stage(
            "train",
            "cat parts/a parts/x/1 >model; echo '{\"m\": 1}' >m.json",
            deps=[Dep("parts", Address("stages.prepare"))],
            outs=["model", Out(path="m.json", role="metric", cache=False)],
        ),
    )


def graph_with(project: Project, remote: str | None) -> ResourceGraph:
    import msgspec

    graph = project.graph()
    return msgspec.structs.replace(graph, spec=msgspec.structs.replace(graph.spec, remote=remote))


def exchange(project: Project, remote: str | None) -> Exchange:
    return Exchange(graph_with(project, remote), root=project.root, cache_folder=project.cache_folder)


def readings(project: Project, remote: str | None, *, refresh: bool = True) -> ResultReadings:
    graph = graph_with(project, remote)
    return read_results(graph, root=project.root, cache_folder=project.cache_folder, refresh=refresh)


def lose_everything(project: Project) -> None:
    """Leave only what a clone has."""
    shutil.rmtree(project.root / ".dvc/cache")
    shutil.rmtree(project.root / "parts")
    for name in ("raw.csv", "model"):
        (project.root / name).unlink()


def quiet(_line: str) -> None:
    """Say nothing."""


def test_what_mlstack_pushes_dvc_pulls(project: Project, store: Store) -> None:
    pipeline(project).apply()
    ours = exchange(project, store.url)
    assert len(ours.configure()) == 2
    assert ours.configure() == [] or exchange(project, store.url).configure() == []
    pushed = ours.push(say=quiet)
    assert (pushed.moved, pushed.there, pushed.problem) == (OBJECTS, 0, None)
    assert len(store.look()) == OBJECTS
    assert "in sync" in project.dvc("status", "--cloud")
    lose_everything(project)
    project.dvc("pull")
    assert project.read("model") == MODEL
    assert "up to date" in project.dvc("status")
    again = exchange(project, store.url).push(say=quiet)
    assert (again.moved, again.there, again.problem) == (0, OBJECTS, None)


def test_what_dvc_pushes_mlstack_pulls(project: Project, store: Store) -> None:
    pipeline(project).apply()
    project.dvc("remote", "add", "-d", "mine", store.url)
    project.dvc("push", "--run-cache")
    lose_everything(project)
    found = readings(project, None)  # no `remote:` in the file: DVC's own default is taken
    assert found.stages[TRAIN].outs == Present()
    pulled = exchange(project, None).pull(run_cache=True, say=quiet)
    assert pulled.problem is None
    assert pulled.moved == OBJECTS
    assert pulled.runs == 2
    assert set(pulled.restored) == {"raw.csv", "parts", "model"}
    assert project.read("parts/x/1") == "1\n"
    assert "up to date" in project.dvc("status")
    assert set(project.apply().values()) == {"added", "unchanged"}
    assert exchange(project, None).pull(say=quiet).restored == ()


def test_the_run_cache_goes_both_ways(project: Project, store: Store) -> None:
    pipeline(project).apply()
    project.write("raw.csv", "a,b\n3,4\n")
    project.apply()
    pushed = exchange(project, store.url).push(run_cache=True, say=quiet)
    assert pushed.runs == 4
    assert len([key for key in store.look() if key.startswith("runs/")]) == 4
    exchange(project, store.url).configure()
    shutil.rmtree(project.root / ".dvc/cache")
    project.dvc("fetch", "--run-cache")
    assert len(list((project.root / ".dvc/cache/runs").glob("*/*/*"))) == 4
    shutil.rmtree(project.root / ".dvc/cache")
    assert exchange(project, store.url).pull(run_cache=True, say=quiet).runs == 4
    # the result of before, whose contents are in the remote only
    project.write("raw.csv", "a,b\n1,2\n")
    cached = readings(project, store.url).stages[Address("stages.prepare")].cached
    assert cached is not None


def test_a_clone_sees_what_the_remote_lacks(project: Project, store: Store) -> None:
    pipeline(project).apply()
    exchange(project, store.url).push(say=quiet)
    lose_everything(project)
    assert readings(project, store.url).stages[TRAIN].outs == Present()
    assert isinstance(readings(project, store.url, refresh=False).stages[TRAIN].outs, NotChecked)
    gone = next(key for key, size in store.look().items() if size == len(MODEL))
    store.spoil(gone, MODEL.encode()[::-1])  # as large as before, and wrong: seen when it is fetched
    assert readings(project, store.url).stages[TRAIN].outs == Present()
    pulled = exchange(project, store.url).pull(say=quiet)
    assert pulled.missing == ("model",)
    assert pulled.problem is not None
    assert "not what its name says" in pulled.problem.detail
    assert not (project.root / "model").exists()
    md5 = gone.removeprefix("files/md5/").replace("/", "")
    assert not list((project.root / ".dvc/cache").rglob(f"*{md5[2:]}*")), "nothing unchecked is in the cache"
    assert project.read("raw.csv") == "a,b\n1,2\n"


def test_progress_counts_only_what_has_arrived(project: Project, store: Store) -> None:
    pipeline(project).apply()
    exchange(project, store.url).push(say=quiet)
    lose_everything(project)
    gone = next(key for key, size in store.look().items() if size == len(MODEL))
    store.spoil(gone, MODEL.encode()[::-1])
    sharing, counts = exchange(project, store.url).sharing, list[int]()
    md5s = [key.removeprefix("files/md5/").replace("/", "") for key in store.look() if key.startswith("files/md5/")]
    moved = fetch(
        sharing.require(),
        Objects(project.root / ".dvc/cache"),
        md5s,
        progress=Progress(lambda done, _of, _size: counts.append(done)),
    )
    assert len(moved.damaged) == 1
    assert max(counts) == len(moved.moved) == OBJECTS - 1


def test_a_half_uploaded_object_is_pushed_again(project: Project, store: Store) -> None:
    pipeline(project).apply()
    exchange(project, store.url).push(say=quiet)
    whole = store.look()
    half = next(key for key, size in whole.items() if size == len(MODEL))
    store.spoil(half, b"a,b")
    pushed = exchange(project, store.url).push(say=quiet)
    assert pushed.moved == 1
    assert store.look() == whole


def test_a_folder_is_whole_only_with_all_its_files(project: Project, store: Store) -> None:
    pipeline(project).apply()
    exchange(project, store.url).push([Address("stages.prepare")], say=quiet)
    assert len(store.look()) == OBJECTS - 1, "what was named and what it needs"
    lose_everything(project)
    found = readings(project, store.url)
    assert found.stages[Address("stages.prepare")].outs == Present()
    assert isinstance(found.stages[TRAIN].outs, Absent)
    assert found.stages[TRAIN].missing == ("model",)


def test_a_place_that_is_not_there_is_no_proof(project: Project, store: Store, tmp_path: Path) -> None:
    pipeline(project).apply()
    lose_everything(project)
    wrong = str(tmp_path / "not-mounted") if not store.url.startswith("s3") else "s3://no-such-bucket-here/x"
    found = readings(project, wrong)
    assert isinstance(found.stages[TRAIN].outs, NotChecked)
    assert [problem.code for problem in found.diagnostics] == ["remote-unreachable"]
    with pytest.raises(MlstackError, match="cannot be asked"):
        exchange(project, wrong).pull(say=quiet)


def test_a_package_that_is_missing_is_named_with_what_installs_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dvc_gs", None)
    pipeline(project).apply()
    with pytest.raises(MlstackError) as caught:
        exchange(project, "gs://bucket/store").push(say=quiet)
    assert [(problem.code, problem.command) for problem in caught.value.diagnostics] == [
        ("remote-not-installed", "pip install 'mlstack[gs]'")
    ]
