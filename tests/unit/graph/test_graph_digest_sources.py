"""The one hashing of files: what it finds, what it says, and that it touches nothing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlstack.diagnostics import Diagnostic, Position, Severity
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.lock import ProjectLock, SourcePin, write_lock
from mlstack.graph.sources import SourceDigests
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep, Model, Out, Pool, Python, Resource, Spec, Stage

POOL = Address("compute.local")
WINE = Address("datasets.wine")
TRAIN = Address("stages.train")
MODEL = Address("models.wine")
PLACE = Position("mlstack.yaml", 7, 3)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def stage(**fields: Any) -> Stage:
    usual = {"address": TRAIN, "cmd": "python train.py", "pool": POOL, "outs": (Out(path="out"),)}
    return Stage(**{**usual, **fields})


def find(root: Path, *resources: Resource, cache: bool = False) -> SourceDigests:
    spec = Spec(
        file="mlstack.yaml",
        project="p",
        environment="local",
        resources={POOL: Pool(address=POOL), **{each.address: each for each in resources}},
        declared={each.address: PLACE for each in resources},
    )
    return digest_sources(spec, root=root, cache_folder=root / ".mlstack" / "cache" if cache else None)


def only(found: SourceDigests) -> Diagnostic:
    (problem,) = found.diagnostics
    return problem


# ------------------------------------------------------------------------------------------------------- stages


def test_declared_and_imported_files_are_digested(root: Path) -> None:
    write(root, train_dot_py="import lib", lib_dot_py="", unused_dot_py="")
    found = find(root, stage(deps=(Dep("train.py"),)))
    assert found.modules == {TRAIN: ("lib.py",)}
    assert set(found.files) == {"train.py", "lib.py"}
    assert found.files["lib.py"] is not None
    assert found.files["lib.py"].md5 == "d41d8cd98f00b204e9800998ecf8427e"
    assert found.diagnostics == ()


def test_an_entry_that_is_not_declared_is_added(root: Path) -> None:
    write(root, train_dot_py="")
    assert find(root, stage()).modules == {TRAIN: ("train.py",)}


def test_modules_inside_a_declared_folder_are_covered_by_it(root: Path) -> None:
    write(root, src__train_dot_py="import lib, top", src__lib_dot_py="", top_dot_py="")
    found = find(root, stage(cmd="python src/train.py", deps=(Dep("src"),)))
    assert found.modules == {TRAIN: ("top.py",)}


def test_code_that_a_stage_makes_is_no_module_of_the_repository(root: Path) -> None:
    write(root, train_dot_py="import gen.parser", gen__parser_dot_py="")
    made = stage(address=Address("stages.make"), cmd="make", outs=(Out(path="gen"),))
    assert find(root, made, stage()).modules[TRAIN] == ("train.py",)


def test_a_missing_dep_is_named_with_place_stages_and_the_nearest_name(root: Path) -> None:
    write(root, src__train_dot_py="")
    other = stage(address=Address("stages.other"), cmd="x", deps=(Dep("src/trian.py"),), outs=())
    problem = only(find(root, stage(cmd="x", deps=(Dep("src/trian.py"),)), other))
    assert (problem.code, problem.address, problem.position) == ("missing-dep", TRAIN, PLACE)
    assert "stages.train, stages.other" in problem.detail
    assert problem.hint == 'did you mean "src/train.py"?'
    problem = only(find(root, stage(cmd="x", deps=(Dep("scr/train.py"),))))
    assert problem.hint == 'did you mean "src"?'
    (root / "cafe\u0301.csv").touch()
    problem = only(find(root, stage(cmd="x", deps=(Dep("caf\u00e9.csv"),))))
    assert problem.hint.startswith('did you mean "cafe\\u0301.csv"? It looks the same')


def test_a_missing_dep_that_dvc_holds(root: Path) -> None:
    write(root, raw_dot_csv_dot_dvc="outs: []")
    problem = only(find(root, stage(cmd="x", deps=(Dep("raw.csv"),))))
    assert problem.command.startswith("dvc checkout raw.csv.dvc")


def test_what_cannot_be_read_is_told_once_with_its_place(root: Path) -> None:
    os.mkfifo(root / "pipe")
    other = stage(address=Address("stages.other"), cmd="x", deps=(Dep("pipe"),), outs=())
    problem = only(find(root, stage(cmd="x", deps=(Dep("pipe"),)), other))
    assert (problem.code, problem.address, problem.position) == ("special-file", TRAIN, PLACE)


def test_a_script_that_does_not_exist_is_a_warning(root: Path) -> None:
    write(root, train_dot_py="")
    problem = only(find(root, stage(cmd="python tarin.py")))
    assert (problem.code, problem.severity) == ("missing-script", Severity.WARNING)
    assert problem.hint == 'did you mean "train.py"?'
    made = stage(address=Address("stages.make"), cmd="make", outs=(Out(path="tarin.py"),))
    assert find(root, made, stage(cmd="python tarin.py")).diagnostics == ()


def test_python_path_of_the_stage_counts(root: Path) -> None:
    write(root, train_dot_py="import added", extra__added_dot_py="")
    assert find(root, stage(env={"PYTHONPATH": "extra"})).modules[TRAIN] == ("extra/added.py", "train.py")


# ----------------------------------------------------------------------------------------------------- datasets

DATASET = Dataset(address=WINE, path="data/wine.csv")


def test_outside_of_a_repository_nothing_is_tracked(root: Path) -> None:
    write(root, data__wine_dot_csv="1")
    found = find(root, DATASET)
    assert found.tracked == frozenset()
    assert found.files["data/wine.csv"] is not None


def test_what_git_tracks(root: Path) -> None:
    git(root, "init")
    write(root, data__wine_dot_csv="1", data__other_dot_csv="2", images__a="1", images__b="2")
    other = Dataset(address=Address("datasets.other"), path="data/other.csv")
    images = Dataset(address=Address("datasets.images"), path="images")
    git(root, "add", "data/wine.csv", "images")
    found = find(root, DATASET, other, images)
    assert found.tracked == {WINE, images.address}
    assert found.diagnostics == ()
    git(root, "rm", "--cached", "images/b")
    problem = only(find(root, DATASET, other, images))
    assert (problem.code, problem.severity, problem.address) == (
        "dataset-partly-tracked", Severity.WARNING, images.address)  # fmt: skip


def test_a_project_inside_of_a_repository(root: Path) -> None:
    git(root.parent, "init")
    write(root, data__wine_dot_csv="1")
    git(root.parent, "add", "project/data/wine.csv")
    assert find(root, DATASET).tracked == {WINE}


def test_names_that_are_patterns_are_taken_literally(root: Path) -> None:
    git(root, "init")
    (root / "a").write_text("1")
    (root / "[a]*").write_text("1")
    (root / "日本").write_text("1")
    git(root, "add", "a", "日本")
    odd = Dataset(address=WINE, path="[a]*")
    plain = Dataset(address=Address("datasets.j"), path="日本")
    assert find(root, odd, plain).tracked == {plain.address}


def test_a_repository_that_git_refuses_is_a_warning(root: Path) -> None:
    write(root, data__wine_dot_csv="1")
    (root / ".git").write_text("gitdir: nowhere")
    problem = only(find(root, DATASET))
    assert (problem.code, problem.severity) == ("git-not-asked", Severity.WARNING)


def test_without_git_nothing_is_tracked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "init")
    write(root, data__wine_dot_csv="1")
    monkeypatch.setenv("PATH", str(root))
    assert [problem.code for problem in find(root, DATASET).diagnostics] == ["git-not-asked"]


def test_planning_runs_no_program_that_the_repository_names(root: Path) -> None:
    git(root, "init")
    write(root, data__wine_dot_csv="1", hook_dot_sh=f"#!/bin/sh\ntouch {root}/ran\n")
    (root / "hook.sh").chmod(0o755)
    git(root, "add", "data/wine.csv")
    git(root, "config", "core.fsmonitor", str(root / "hook.sh"))
    assert find(root, DATASET).tracked == {WINE}
    assert not (root / "ran").exists()


def test_a_dataset_that_is_nowhere(root: Path) -> None:
    write(root, data__wein_dot_csv="1")
    problem = only(find(root, DATASET))
    assert (problem.code, problem.address, problem.position) == ("missing-dataset", WINE, PLACE)
    assert problem.hint == 'did you mean "data/wein.csv"?'


def test_a_dataset_that_dvc_has_recorded_may_be_absent(root: Path) -> None:
    write(root, data__wine_dot_csv_dot_dvc="outs: []")
    found = find(root, DATASET)
    assert found.diagnostics == ()
    assert found.files == {"data/wine.csv": None}


def test_a_tracked_dataset_that_was_deleted(root: Path) -> None:
    git(root, "init")
    write(root, data__wine_dot_csv="1")
    git(root, "add", ".")
    (root / "data" / "wine.csv").unlink()
    problem = only(find(root, DATASET, stage(cmd="x", deps=(Dep("data/wine.csv", WINE),))))
    assert problem.command == "git checkout -- data/wine.csv"


def test_a_source_is_pinned_by_the_lock(root: Path) -> None:
    dataset = Dataset(address=WINE, path="data/wine.csv", source="https://files.invalid/1")
    assert find(root, dataset).pins == {}
    pin = SourcePin(url="https://files.invalid/1", md5="a" * 32, size=3)
    write_lock(root, ProjectLock(project="p", sources={WINE: pin}))
    assert find(root, dataset).pins == {WINE: pin.digest()}
    moved = Dataset(address=WINE, path="data/wine.csv", source="https://files.invalid/2")
    assert find(root, moved).pins == {}


def test_a_lock_that_cannot_be_used_is_told(root: Path) -> None:
    (root / "mlstack.lock").write_text("<<<<<<< HEAD\n")
    assert only(find(root)).code == "lock-in-conflict"


# --------------------------------------------------------------------------------- environments, models, caches


def test_environments_of_stages_and_what_is_wrong_with_them(root: Path) -> None:
    write(root, requirements_dot_txt="numpy==2\n", train_dot_py="")
    good = stage(python=Python(lock="requirements.txt", version="3.11"))
    assert find(root, good).environments[TRAIN].packages == {"numpy": "2"}
    write(root, requirements_dot_txt="numpy\n")
    other = stage(address=Address("stages.other"), python=good.python, outs=())
    problem = only(find(root, good, other))
    assert (problem.code, problem.address) == ("unpinned-requirement", TRAIN)
    assert str(problem.position) == "requirements.txt:1:1"


def test_code_of_packages_that_the_environment_takes_from_the_project(root: Path) -> None:
    write(root, requirements_dot_txt="-e ./libs/shared\n", train_dot_py="import shared.parts")
    write(root, libs__shared__src__shared__parts_dot_py="")
    found = find(root, stage(python=Python(lock="requirements.txt", version="3.11")))
    assert found.modules[TRAIN] == ("libs/shared/src/shared/parts.py", "train.py")


def test_the_class_of_a_model(root: Path) -> None:
    write(root, serve_dot_py="import parts", parts_dot_py="", train_dot_py="")
    model = Model(address=MODEL, stage=TRAIN, out="out", framework="python", code="serve:Wine")
    found = find(root, stage(), model)
    assert found.model_code == {MODEL: ("parts.py", "serve.py")}
    assert found.files["serve.py"] is not None
    problem = only(find(root, stage(), Model(address=MODEL, stage=TRAIN, out="out", framework="python", code="srve:W")))
    assert (problem.code, problem.hint) == ("missing-model-code", 'did you mean "serve"?')


def test_warm_and_cold_give_the_same(root: Path) -> None:
    write(root, requirements_dot_txt="numpy==2\n", train_dot_py="import lib", lib_dot_py="(", data__wine_dot_csv="1")
    resources = (DATASET, stage(deps=(Dep("train.py"),), python=Python(lock="requirements.txt", version="3.11")))
    cold = find(root, *resources)
    assert [find(root, *resources, cache=True) for _ in range(3)] == [cold] * 3
    assert (root / ".mlstack" / ".gitignore").read_text() == "*\n"


def test_without_a_cache_folder_nothing_is_written(root: Path) -> None:
    write(root, train_dot_py="", data__wine_dot_csv="1")
    before = sorted(root.rglob("*"))
    find(root, DATASET, stage(deps=(Dep("train.py"),)))
    assert sorted(root.rglob("*")) == before


HEAVY = {"ast", "packaging", "tomllib", "pathspec", "shlex", "subprocess", "yaml", "dvc", "git"}


def test_a_warm_plan_imports_nothing_heavy(root: Path) -> None:
    write(root, requirements_dot_txt="numpy==2\n", train_dot_py="import lib", lib_dot_py="")
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_graph_digest_sources import find, stage, Dep, Python
sys.modules.pop("pytest")
loaded = set(sys.modules)
python = Python(lock="requirements.txt", version="3.11")
find(Path({str(root)!r}), stage(deps=(Dep("train.py"),), python=python), cache=True)
print(sorted((set(sys.modules) - loaded) & {HEAVY!r}))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
