"""Code bundles: what is in them, what never is, and that the same files give the same name."""

import gzip
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.remote_run import bundle as bundle_module
from mlstack.drivers.remote_run.bundle import Bundle, make_bundle, upload_bundle
from mlstack.runner.layout import bundle_key
from mlstack.runner.store import Store
from mlstack.spec.address import Address
from mlstack.spec.spec import Checkpoint, Dataset, Out, SecretRef
from tests.unit.dvc.dvc_project import Project, stage
from tests.unit.remote_run.git_project import project as project  # noqa: PLC0414 - a fixture

METRIC = Out(path="metric.json", role="metric", cache=False)


def make(project: Project, **more: object) -> Bundle:
    return make_bundle(project.root, project.graph(), into=project.root / ".mlstack" / "cache", **more)  # type: ignore[arg-type]


def members(bundle: Bundle) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(bundle.path, mode="r:gz") as tar:
        return {member.name: member for member in tar}


@pytest.fixture
def filled(project: Project) -> Project:
    project.write("src/train.py", "print(1)\n").chmod(0o755)
    project.write("params.yaml", "depth: 6\n")
    project.write(".gitignore", "/data\n/model\n*.pyc\n")
    project.declare(
        stage(
            "train", "python src/train.py", deps=["src/train.py"], outs=["model", Out(path="metric.json", cache=False)]
        ),
        Dataset(address=Address("datasets.wine"), path="data/wine.csv"),
    )
    project.commit_all()
    return project


def test_what_git_has_and_would_have_is_in_it(filled: Project) -> None:
    filled.write("src/new.py", "not committed yet")
    filled.write("src/junk.pyc", "ignored")
    filled.write("data/wine.csv", "held by DVC")
    filled.write("model", "made")
    filled.write("metric.json", "{}")
    filled.write("dvc.lock", "schema: '2.0'\n")
    (filled.root / "params.yaml").unlink()
    assert sorted(members(make(filled))) == [".gitignore", "src/new.py", "src/train.py"]


def test_the_same_files_have_the_same_name_wherever_and_whenever(filled: Project, tmp_path: Path) -> None:
    first = make(filled)
    other = tmp_path / "clone of another person"
    subprocess.run(["git", "clone", "-q", filled.root, other], check=True, env=filled.variables)
    for path in other.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    (other / "src/train.py").chmod(0o700)
    time.sleep(0.01)
    second = make_bundle(other, filled.graph(), into=tmp_path / "into")
    assert first.name == second.name
    assert first.path.read_bytes() == second.path.read_bytes()
    unpacked = gzip.decompress(first.path.read_bytes())
    assert len(unpacked) == first.size
    (member,) = [each for name, each in members(first).items() if name == "src/train.py"]
    assert (member.mode, member.uid, member.uname, member.mtime) == (0o755, 0, "", 315532800)


@pytest.mark.parametrize("change", ["content", "name", "mode"])
def test_every_change_gives_another_name(filled: Project, change: str) -> None:
    before = make(filled).name
    script = filled.root / "src/train.py"
    match change:
        case "content":
            script.write_text("print(2)\n")
        case "name":
            script.rename(filled.root / "src/fit.py")
        case "mode":
            script.chmod(0o644)
    assert make(filled).name != before


def test_results_of_stages_change_nothing(filled: Project) -> None:
    before = make(filled).name
    filled.write("metric.json", '{"rmse": 0.4}')
    filled.write("dvc.lock", "schema: '2.0'\nstages: {}\n")
    assert make(filled).name == before


def test_secrets_stay_here(filled: Project) -> None:
    filled.declare(stage("push", "true", outs=["x"], secrets={"TOKEN": SecretRef("file://keys/token.txt")}))
    filled.write("keys/token.txt", "hunter2")
    filled.write(".env", "TOKEN=hunter2")
    filled.write("sub/.env.local", "TOKEN=hunter2")
    bundle = make(filled)
    assert bundle.left_out == (".env", "sub/.env.local")
    assert b"hunter2" not in gzip.decompress(bundle.path.read_bytes())


def test_checkpoints_stay_here(filled: Project) -> None:
    filled.declare(stage("long", "true", outs=["x"], checkpoint=Checkpoint(path="ckpt")))
    filled.write("ckpt/step", "1")
    assert "ckpt/step" not in members(make(filled))


def test_declared_dependencies_are_taken_though_git_ignores_them(filled: Project) -> None:
    filled.write("conf/own.yaml", "a: 1")
    filled.write("conf/cache.pyc", "x")
    filled.write(".gitignore", "/conf\n")
    assert not any(name.startswith("conf") for name in members(make(filled)))
    taken = members(make(filled, take=("conf", "src/train.py")))
    assert {"conf/own.yaml", "conf/cache.pyc"} <= set(taken)


def test_what_dvcignore_leaves_out_of_a_dependency_is_left_out(filled: Project) -> None:
    filled.write(".dvcignore", "*.pyc\n")
    filled.write("conf/own.yaml", "a: 1")
    filled.write("conf/cache.pyc", "x")
    assert "conf/cache.pyc" not in members(make(filled, take=("conf",)))


def test_links_stay_links_and_those_that_leave_are_left_out(filled: Project, tmp_path: Path) -> None:
    (filled.root / "inside").symlink_to("src/train.py")
    (filled.root / "absolute").symlink_to(filled.root / "src/train.py")
    (filled.root / "outside").symlink_to("../" + tmp_path.name)
    bundle = make(filled)
    found = members(bundle)
    assert found["inside"].issym()
    assert found["inside"].linkname == "src/train.py"
    assert bundle.left_out == ("absolute", "outside")


def test_names_of_every_kind(filled: Project) -> None:
    names = ["ä/日本.py", "with space", "new\nline", "-x", "a" * 200 + ".py", "quo\"te'", "deep/" * 30 + "x"]
    for name in names:
        filled.write(name, "x")
    assert set(names) <= set(members(make(filled)))


def test_require_clean_takes_the_commit_and_nothing_else(filled: Project) -> None:
    filled.write("src/new.py", "not committed")
    filled.write("dvc.lock", "schema: '2.0'\n")
    assert "src/new.py" not in members(make(filled, clean=True))
    filled.write("src/train.py", "print('edited')\n")
    with pytest.raises(MlstackError) as caught:
        make(filled, clean=True)
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.detail) == (
        "bundle-not-clean",
        "Changed: src/train.py; the environment has `require_clean`.",
    )


def test_require_clean_in_a_project_below_the_repository(project: Project) -> None:
    inner = project.root / "models" / "churn"
    project.write("models/churn/train.py", "print(1)")
    project.write("other/x.py", "")
    project.commit_all()
    project.write("other/x.py", "changed, and none of ours")
    graph = project.graph()
    assert sorted(members(make_bundle(inner, graph, into=project.root / ".mlstack/c", clean=True))) == ["train.py"]
    project.write("models/churn/train.py", "print(2)")
    with pytest.raises(MlstackError, match=r"Changed: train\.py"):
        make_bundle(inner, graph, into=project.root / ".mlstack/c", clean=True)


def test_files_of_submodules_are_taken(filled: Project, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for command in (["init", "-q"], ["config", "user.email", "a@example.org"], ["config", "user.name", "A"]):
        subprocess.run(["git", *command], cwd=library, check=True, env=filled.variables)
    (library / "lib.py").write_text("x = 1")
    subprocess.run(["git", "add", "-A"], cwd=library, check=True, env=filled.variables)
    subprocess.run(["git", "commit", "-qm", "x"], cwd=library, check=True, env=filled.variables)
    filled.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "vendor/library")
    found = members(make(filled))
    assert "vendor/library/lib.py" in found
    assert not any("/.git" in name and "gitmodules" not in name for name in found)


def test_too_much_is_no_code(filled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "LARGEST", 100_000)
    filled.write("notebook.bin", os.urandom(200_000))
    with pytest.raises(MlstackError) as caught:
        make(filled)
    assert caught.value.diagnostics[0].code == "bundle-too-large"
    assert not list((filled.root / ".mlstack/cache").glob("bundle.*")), "nothing is left behind"


def test_without_git_it_is_said(tmp_path: Path, project: Project) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(MlstackError) as caught:
        make_bundle(outside, project.graph(), into=tmp_path / "into")
    assert caught.value.diagnostics[0].code == "bundle-not-made"


def test_a_bundle_is_pushed_once_and_a_damaged_one_again(filled: Project, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "remote"))
    bundle = make(filled)
    assert upload_bundle(bundle, store)
    assert not upload_bundle(bundle, store)
    store.put(bundle_key(bundle.name), b"half")
    assert upload_bundle(bundle, store)
    packed = store.get(bundle_key(bundle.name))
    assert packed is not None
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert "src/train.py" in tar.getnames()
