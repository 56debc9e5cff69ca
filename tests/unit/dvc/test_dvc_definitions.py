"""`dvc.yaml` and the generated params: ours are written, those of others stay, clashes stop before any write."""

import shutil

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Absent
from mlstack.drivers.dvc.definitions import Definitions
from mlstack.spec.address import Address
from mlstack.spec.spec import Out
from tests.unit.dvc.dvc_project import Project, params, stage

A = Address("stages.a")
FOREIGN = """\
# mine
vars: [{x: 1}]
stages:
  mine:   # by hand
    cmd: echo ${x} >mine.txt
    outs: [mine.txt]
plots:
- mine.txt
"""


def codes(project: Project) -> list[str]:
    with pytest.raises(MlstackError) as error:
        project.store().write_definitions()
    assert [found.code for found in project.readings().diagnostics][:1] in ([], [error.value.diagnostics[0].code])
    return [found.code for found in error.value.diagnostics]


def test_what_is_written(project: Project) -> None:
    project.write("params.yaml", "depth: 6\n")
    project.declare(
        stage(
            "a",
            'echo "${HOME}"',
            outs=["o", Out(path="p.csv", role="plot", cache=False, plot={"x": "a", "title": "${t}"})],
            params=(*params({"depth": 6}, file="params.yaml"), *params({"lr": 0.1, "deep.er": [1]})),
            env={"A": "1"},
            description="what it does",
        ),
        stage("b", "x", outs=["q"], always=True),
    )
    assert set(project.store().write_definitions()) == {"dvc.yaml", "params.mlstack.yaml", ".gitignore"}
    assert project.read("dvc.yaml") == (
        "# Written by `mlstack apply` from mlstack.yaml: change that file instead. Stages without `meta.mlstack` are"
        ' kept.\nstages:\n  a:\n    desc: what it does\n    cmd: echo "\\${HOME}"\n    params:\n    - depth\n'
        "    - params.mlstack.yaml:\n      - params.deep.er\n      - params.lr\n      - stages.a.env\n"
        "    outs:\n    - o\n"
        "    plots:\n    - p.csv:\n        cache: false\n        x: a\n        title: \\${t}\n"
        "    meta:\n      mlstack:\n        address: stages.a\n"
        "  b:\n    cmd: x\n    outs:\n    - q\n    always_changed: true\n    meta:\n      mlstack:\n"
        "        address: stages.b\n"
    )
    assert project.read("params.mlstack.yaml").endswith(
        "params:\n  deep:\n    er:\n    - 1\n  lr: 0.1\nstages:\n  a:\n    env:\n      A: '1'\n"
    )
    assert project.read(".gitignore") == "/o\n/q\n"
    assert project.store().write_definitions() == ()
    assert project.readings().stages[A].defined
    project.dvc("status")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [("dvc.yaml", "- o", "- oo"), ("params.mlstack.yaml", "0.1", "0.2"), ("params.mlstack.yaml", "", None)],
)
def test_an_edit_by_hand_is_seen(project: Project, path: str, old: str, new: str | None) -> None:
    project.declare(stage("a", "x", outs=["o"], params=params({"lr": 0.1})))
    project.store().write_definitions()
    before = project.read(path)
    project.write(path, before.replace(old, new)) if new else (project.root / path).unlink()
    assert not project.readings().stages[A].defined
    assert project.store().write_definitions() == (path,)
    assert project.read(path) == before


def test_what_others_wrote_stays(project: Project) -> None:
    project.write("dvc.yaml", FOREIGN)
    project.declare(stage("a", "x", outs=["o"]), stage("b", "y", outs=["q"]))
    project.store().write_definitions()
    now = project.read("dvc.yaml")
    for line in FOREIGN.splitlines():
        assert line in now
    assert project.store().write_definitions() == ()
    assert project.readings().stages[A].defined
    assert "mine.txt" in project.dvc("status")
    project.forget("stages.b")
    orphan = project.readings().stages[Address("stages.b")]
    assert orphan.recorded is None
    project.store().write_definitions()
    assert "stages.b" not in project.read("dvc.yaml")
    project.forget("stages.a")
    project.store().write_definitions()
    assert project.read("dvc.yaml").replace(" ", "") == FOREIGN.replace(" ", "")


def test_a_stage_that_is_gone_leaves_definition_and_lock(project: Project) -> None:
    project.declare(stage("a", "echo 1 >o", outs=["o"]), stage("b", "echo 1 >q", outs=["q"]))
    project.apply()
    project.forget("stages.b")
    assert project.readings().stages[Address("stages.b")].recorded is not None
    store = project.store()
    store.write_definitions()
    store.record({}, forget=[Address("stages.b")])
    store.flush()
    assert "q" not in project.read("dvc.lock").split()
    assert "up to date" in project.dvc("status")
    assert project.readings().stages.keys() == {A}


def test_a_name_that_is_taken(project: Project) -> None:
    project.write("dvc.yaml", FOREIGN)
    project.declare(stage("mine", "x", outs=["o"]))
    assert codes(project) == ["foreign-stage"]
    assert project.read("dvc.yaml") == FOREIGN
    assert not (project.root / ".gitignore").exists()


def test_an_output_that_is_taken(project: Project) -> None:
    project.write("dvc.yaml", FOREIGN)
    project.write("o.dvc", "outs:\n- path: o\n")
    project.declare(stage("a", "x", outs=["mine.txt", "o"]))
    assert codes(project) == ["foreign-output", "foreign-output"]
    assert project.read("dvc.yaml") == FOREIGN


def test_an_output_that_git_tracks(project: Project) -> None:
    project.write("o/x", "1")
    project.commit_all()
    project.declare(stage("a", "x", outs=["o"]))
    assert codes(project) == ["output-in-git"]
    assert not (project.root / "dvc.yaml").exists()


def test_a_broken_dvc_yaml(project: Project) -> None:
    project.write("dvc.yaml", "stages:\n  a: [\n")
    project.declare(stage("a", "x", outs=["o"]))
    assert codes(project) == ["dvc-file-unreadable"]
    (found,) = project.readings().diagnostics
    assert found.position is not None
    assert (found.position.file, found.position.line) == ("dvc.yaml", 3)


def test_odd_names_are_ignored_by_git(project: Project) -> None:
    project.write("deep/.gitignore", "*.log")
    project.declare(stage("a", "x", outs=["deep/a b[1]*.csv", "deep/#x", "deep/is.log", "ü"]))
    project.store().write_definitions()
    assert project.read("deep/.gitignore") == "*.log\n/\\#x\n/a b\\[1\\]\\*.csv\n"
    for name in ("deep/a b[1]*.csv", "deep/#x", "deep/is.log", "ü"):
        project.write(name, "x")
    assert "deep/a" not in project.git("status", "--porcelain", "-uall", "-z").replace("deep/.gitignore", "")
    assert project.store().write_definitions() == ()


def test_what_is_not_to_be_forgotten_stays(project: Project) -> None:
    project.declare(stage("a", "echo 1 >o", outs=["o"]), stage("b", "echo 1 >q", outs=["q"]))
    project.apply()
    project.forget("stages.b")
    before = (project.read("dvc.yaml"), project.read("dvc.lock"))
    assert project.store().write_definitions(forget=()) == ()
    assert (project.read("dvc.yaml"), project.read("dvc.lock")) == before
    assert project.readings().stages[Address("stages.b")].recorded is not None


def test_a_moved_entry_is_there_before_the_old_one_goes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.declare(stage("a", "echo 1 >o", outs=["o"]))
    project.apply()
    entry = project.readings().stages[A].recorded
    assert entry is not None
    project.forget("stages.a")
    project.declare(stage("new", "echo 1 >o", outs=["o"]))
    moved = {Address("stages.new"): entry}

    def killed(_self: Definitions) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Definitions, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            project.store().write_definitions(moved=moved, forget=[A])
    assert project.readings().stages[Address("stages.new")].recorded == entry
    project.store().write_definitions(moved=moved, forget=[A])
    assert project.readings().stages.keys() == {"stages.new"}
    assert "up to date" in project.dvc("status")


def test_a_lost_output_of_a_stage_that_is_gone_is_seen(project: Project) -> None:
    project.declare(stage("a", "echo 1 >o", outs=["o"]))
    project.apply()
    project.forget("stages.a")
    (project.root / "o").unlink()
    assert project.readings().stages[A].missing == ()
    shutil.rmtree(project.root / ".dvc" / "cache")
    reading = project.readings().stages[A]
    assert reading.missing == ("o",)
    assert isinstance(reading.outs, Absent)
