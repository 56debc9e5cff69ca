"""After mlstack has written, the real `dvc` finds nothing to do; and the other way round."""

import json
import shutil
from pathlib import Path

import pytest

from mlstack.drivers.base import Present
from mlstack.drivers.dvc.objects import is_same_key
from mlstack.graph.graph import EntryKey, entry_key
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep, Out, Stage
from tests.unit.dvc.conftest import project
from tests.unit.dvc.dvc_project import Project, params, stage

__all__ = ["project"]

TRAIN = Address("stages.train")
UP_TO_DATE = "Data and pipelines are up to date."


def pipeline(project: Project) -> Project:
    project.write("raw/wine é.csv", "a,b\n1,2\n")
    project.write(
        "src/prepare.sh",
        'mkdir -p data; cp "raw/wine é.csv" data/a.csv; mkdir -p data/parts/x; '
        "echo 1 >data/parts/x/1; echo 2 >data/parts/ü\n",
    )
    (project.root / "src/prepare.sh").chmod(0o755)
    project.write(
        "src/train.sh",
        "mkdir -p models metrics; cat data/a.csv data/parts/x/1 >models/m; "
        'echo \'{"rmse": 0.5, "deep": {"x": 1}}\' >metrics/m.json; '
        "printf 'step,loss\\n1,2\\n' >metrics/p.csv; chmod +x models/m\n",
    )
    project.write("params.yaml", "depth: 6\nmodel:\n  size: 3\n")
    return project.declare(
        Dataset(address=Address("datasets.wine"), path="raw/wine é.csv"),
        stage(
            "prepare",
            'X=1 && echo "${X}" "${NOT:-y}" >/dev/null && ./src/prepare.sh',
            deps=[Dep("raw/wine é.csv", Address("datasets.wine")), "src/prepare.sh"],
            outs=["data/a.csv", "data/parts"],
        ),
        stage(
            "train",
            "sh src/train.sh",
            deps=[
                Dep("data/a.csv", Address("stages.prepare")),
                Dep("data/parts", Address("stages.prepare")),
                "src/train.sh",
            ],
            params=(
                *params({"depth": 6, "model.size": 3}, file="params.yaml"),
                *params({"lr": 0.1, "deep.er": [1, "x"]}),
            ),
            env={"OMP": "2"},
            outs=[
                "models/m",
                Out(path="metrics/m.json", role="metric", cache=False),
                Out(path="metrics/p.csv", role="plot", cache=False, plot={"x": "step", "y": "loss"}),
            ],
        ),
    )


def assert_clean(project: Project) -> None:
    assert UP_TO_DATE in project.dvc("status")
    before = project.read("dvc.lock")
    out = project.dvc("repro")
    assert "Running" not in out
    assert out.count("didn't change") >= 2
    assert project.read("dvc.lock") == before
    readings = project.readings()
    assert readings.diagnostics == ()
    for reading in readings.stages.values():
        assert reading.recorded is not None
        assert reading.outs == Present()
        assert reading.defined


def test_after_apply_dvc_has_nothing_to_do(project: Project) -> None:
    pipeline(project)
    assert project.apply() == {"datasets.wine": "added", "stages.prepare": "ran", "stages.train": "ran"}
    assert_clean(project)
    assert set(project.apply().values()) == {"added", "unchanged"}
    assert project.readings().metrics == {TRAIN: {"rmse": 0.5, "deep.x": 1.0}}


def test_dvc_would_write_the_same_bytes(project: Project) -> None:
    pipeline(project).apply()
    ours = project.read("dvc.lock")
    definition = project.read("raw/wine é.csv.dvc")
    project.dvc("commit", "-f")
    assert project.read("dvc.lock") == ours
    (project.root / "dvc.lock").unlink()
    project.dvc("commit", "-f")
    assert project.read("dvc.lock") == ours
    (project.root / "raw/wine é.csv.dvc").unlink()
    project.dvc("add", "raw/wine é.csv")
    assert definition.startswith(project.read("raw/wine é.csv.dvc"))


def test_a_repro_by_hand_shows_up_as_up_to_date(project: Project) -> None:
    pipeline(project).apply()
    project.write("src/train.sh", project.read("src/train.sh") + "echo more >>models/m\n")
    reading = project.readings().stages[TRAIN]
    assert reading.cached is None
    assert "Running stage 'train'" in project.dvc("repro")
    assert set(project.apply().values()) == {"added", "unchanged"}
    assert_clean(project)


def test_dvc_restores_from_our_run_cache(project: Project) -> None:
    pipeline(project).apply()
    before = project.read("src/train.sh")
    project.write("src/train.sh", before + "echo more >>models/m\n")
    assert project.apply()[TRAIN] == "ran"
    project.write("src/train.sh", before)
    out = project.dvc("repro")
    assert "'train' is cached - skipping run" in out
    assert project.read("models/m") == "a,b\n1,2\n1\n"
    assert_clean(project)


def test_we_restore_from_dvcs_run_cache(project: Project) -> None:
    pipeline(project).apply()
    shutil.rmtree(project.root / ".dvc/cache/runs")
    before = project.read("src/train.sh")
    project.write("src/train.sh", before + "echo more >>models/m\n")
    project.dvc("repro")
    project.write("src/train.sh", before + "echo other >>models/m\n")
    project.dvc("repro")
    project.write("src/train.sh", before + "echo more >>models/m\n")
    reading = project.readings().stages[TRAIN]
    assert reading.cached is not None
    assert project.apply()[TRAIN] == "restored"
    assert project.read("models/m").endswith("more\n")
    assert (project.root / "models/m").stat().st_mode & 0o100
    assert_clean(project)


def test_checkout_of_an_older_commit(project: Project) -> None:
    pipeline(project).apply()
    first = project.commit_all()
    project.write("params.yaml", "depth: 8\nmodel:\n  size: 3\n")
    train = project.resources[TRAIN]
    assert isinstance(train, Stage)
    eight = stage(
        "train",
        train.cmd,
        deps=train.deps,
        outs=train.outs,
        env=train.env,
        params=(*params({"depth": 8, "model.size": 3}, file="params.yaml"), *params({"lr": 0.1, "deep.er": [1, "x"]})),
    )
    project.declare(eight)
    assert project.apply()[TRAIN] == "ran"
    project.commit_all()
    project.git("checkout", "-q", first)
    project.dvc("checkout")
    project.declare(train)
    assert set(project.apply().values()) == {"added", "unchanged"}
    assert_clean(project)


def test_other_commands_of_dvc(project: Project) -> None:
    pipeline(project).apply()
    project.commit_all()
    assert "rmse" in project.dvc("metrics", "show")
    vega = json.loads(project.dvc("plots", "show", "--show-vega", "metrics/p.csv"))
    assert vega["data"]["values"], "DVC reads the plot's points"
    project.write("metrics/m.json", '{"rmse": 0.7}')
    assert "rmse" in project.dvc("metrics", "diff")
    project.git("checkout", "metrics/m.json")
    assert "depth" in project.dvc("params", "diff", "--all")
    objects = {path for path in (project.root / ".dvc/cache/files").rglob("*") if path.is_file()}
    project.dvc("gc", "-w", "-f")
    left = {path for path in (project.root / ".dvc/cache/files").rglob("*") if path.is_file()}
    gone = objects - left
    assert len(gone) == 2, gone  # the copies of the metric and the plot, which Git keeps
    assert_clean(project)
    shutil.rmtree(project.root / "data/parts")
    project.dvc("checkout")
    assert project.read("data/parts/ü") == "2\n"


def test_push_and_pull_through_a_folder(project: Project, tmp_path: Path) -> None:
    pipeline(project)
    project.dvc("remote", "add", "-d", "store", str(tmp_path / "remote"))
    project.apply()
    project.commit_all()
    project.dvc("push", "--run-cache")
    shutil.rmtree(project.root / ".dvc/cache")
    shutil.rmtree(project.root / "data")
    (project.root / "models/m").unlink()
    readings = project.readings()
    assert readings.stages[TRAIN].missing == ()
    assert readings.stages[TRAIN].outs == Present()  # the remote has it
    graph = project.graph()
    recorded = readings.stages[TRAIN].recorded
    assert recorded is not None
    store = project.store(graph)
    store.bring({out.path: out.digest for out in recorded.outs}, say=print)
    store.bring({dep.path: dep.digest for dep in recorded.key.deps}, say=print)
    assert project.read("models/m") == "a,b\n1,2\n1\n"
    assert_clean(project)


@pytest.mark.parametrize("link", ["hardlink", "symlink", "copy"])
def test_cache_types(project: Project, link: str) -> None:
    project.dvc("config", "cache.type", link)
    pipeline(project).apply()
    assert_clean(project)
    model = project.root / "models/m"
    assert model.is_symlink() == (link == "symlink")
    assert (model.stat().st_nlink > 1) == (link == "hardlink") or link == "symlink"
    assert not (project.root / "metrics/m.json").is_symlink()
    project.write("src/train.sh", project.read("src/train.sh") + "echo more >>models/m\n")
    assert project.apply()[TRAIN] == "ran"
    assert_clean(project)


def test_a_cache_elsewhere_shared_by_a_group(project: Project, tmp_path: Path) -> None:
    project.dvc("config", "--local", "cache.dir", str(tmp_path / "the cache"))
    project.dvc("config", "cache.shared", "group")
    pipeline(project).apply()
    assert not (project.root / ".dvc/cache").exists()
    assert (tmp_path / "the cache/files/md5").stat().st_mode & 0o7777 == 0o2775
    assert_clean(project)


def test_the_key_of_the_run_cache_is_dvcs(project: Project) -> None:
    pipeline(project).apply()
    ours = sorted(path.relative_to(project.root) for path in (project.root / ".dvc/cache/runs").rglob("*"))
    shutil.rmtree(project.root / ".dvc/cache/runs")
    project.dvc("repro", "-f")
    theirs = sorted(path.relative_to(project.root) for path in (project.root / ".dvc/cache/runs").rglob("*"))
    assert ours == theirs
    graph = project.graph()
    known = {
        path: out
        for reading in project.readings().stages.values()
        if reading.recorded
        for path, out in reading.recorded.digests().items()
    }
    key = entry_key(graph.stages[TRAIN], known)
    assert isinstance(key, EntryKey)
    found = project.store(graph).lookup(TRAIN, key)
    assert found is not None
    assert is_same_key(found.key, key)


def test_a_stage_in_a_component_directory(project: Project) -> None:
    project.write("models/churn/train.sh", "cat ../../shared.txt >out.txt\n")
    project.write("shared.txt", "x\n")
    project.directories = (".", "models/churn")
    project.declare(
        Stage(
            address=Address("churn/stages.train"),
            cmd="sh train.sh",
            pool=Address("compute.local"),
            directory="models/churn",
            deps=(Dep("models/churn/train.sh"), Dep("shared.txt")),
            outs=(Out(path="models/churn/out.txt"),),
            params=params({"a": 1}),
        ),
        stage(
            "use",
            "cp models/churn/out.txt b",
            deps=[Dep("models/churn/out.txt", Address("churn/stages.train"))],
            outs=["b"],
        ),
    )
    project.apply()
    assert UP_TO_DATE in project.dvc("status")
    ours = project.read("models/churn/dvc.lock")
    assert "path: ../../shared.txt" in ours
    project.dvc("commit", "-f")
    assert project.read("models/churn/dvc.lock") == ours
    assert set(project.apply().values()) == {"unchanged"}
