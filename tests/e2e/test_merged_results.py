"""Branches that both have results: real merges, rebases and cherry-picks, and DVC reads what comes out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.workspace import Workspace, clean_environment

pytestmark = pytest.mark.e2e

FILE = """\
version: 1
project: merging
params:
  depth: 4
  # Far enough apart that Git merges changes of both.
  #
  #
  rate: 1
stages:
  prepare:
    cmd: sh prepare.sh
    deps: [prepare.sh]
    outs: {data: data.txt}
  train:
    cmd: sh train.sh ${{ params.depth }}
    deps: [stages.prepare.outs.data, train.sh]
    params: [depth]
    outs: {model: model.txt}
  report:
    cmd: cp model.txt report.txt
    deps: [stages.train.outs.model]
    outs: [report.txt]
  other:
    cmd: echo ${{ params.rate }} > other.txt
    params: [rate]
    outs: [other.txt]
"""

Commits = Callable[[Workspace], None]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("merging")
    (folder / "home").mkdir()
    workspace = Workspace(folder / "project", clean_environment(folder / "home", folder / "cache"))
    workspace.root.mkdir()
    workspace.git("init", "-q", "-b", "main")
    write(workspace, "mlstack.yaml", FILE)
    write(workspace, "prepare.sh", "echo data > data.txt\n")
    write(workspace, "train.sh", "# a model\n# of a depth\n(cat data.txt; echo depth $1) > model.txt\n")
    workspace.init()
    workspace.mlstack("apply", "--yes")
    workspace.commit("Results")
    return workspace


@pytest.fixture
def trained(trained_once: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(trained_once.root, tmp_path / "project", symlinks=True)
    return Workspace(tmp_path / "project", trained_once.environment)


def write(workspace: Workspace, name: str, text: str) -> None:
    (workspace.root / name).write_text(text, encoding="utf-8")


def branch(workspace: Workspace, name: str, change: Commits) -> None:
    workspace.git("checkout", "-q", "-b", name, "main")
    change(workspace)
    workspace.mlstack("apply", "--yes")
    workspace.commit(name)
    assert workspace.actions() == {}


def deeper(workspace: Workspace) -> None:
    workspace.edit("mlstack.yaml", "depth: 4", "depth: 8")


def shallower(workspace: Workspace) -> None:
    workspace.edit("mlstack.yaml", "depth: 4", "depth: 2")


def other_data(workspace: Workspace) -> None:
    write(workspace, "prepare.sh", "echo other data > data.txt\n")


def faster(workspace: Workspace) -> None:
    workspace.edit("mlstack.yaml", "rate: 1", "rate: 3")


# ---------------------------------------------------------------------------------------------------- by Git alone


def test_results_of_both_sides_are_merged_without_a_word(trained: Workspace) -> None:
    branch(trained, "deeper", deeper)
    branch(trained, "faster", faster)
    trained.git("merge", "-q", "--no-edit", "deeper")
    assert trained.git("status", "--porcelain") == ""
    trained.dvc("checkout")
    trained.assert_settled()
    assert "depth 8" in (trained.root / "model.txt").read_text(encoding="utf-8")


def test_neither_result_is_taken_where_the_merge_is_a_third_thing(trained: Workspace) -> None:
    branch(trained, "deeper", deeper)
    branch(trained, "other-data", other_data)
    done = trained.call("git", ["merge", "-q", "--no-edit", "deeper"])
    assert "dvc.lock: left out, because neither side's result fits: report, train" in done.stderr
    assert set(entries(trained)) == {"other", "prepare"}
    assert trained.actions() == {"stages.train": "run", "stages.report": "run"}
    trained.mlstack("apply", "--yes")
    trained.commit("Merged results")
    trained.assert_settled()
    assert (trained.root / "model.txt").read_text(encoding="utf-8") == "other data\ndepth 8\n"


def test_merge_in_the_other_direction_gives_the_same_files(trained: Workspace, tmp_path: Path) -> None:
    branch(trained, "deeper", deeper)
    branch(trained, "other-data", other_data)
    other = Workspace(tmp_path / "other", trained.environment)
    shutil.copytree(trained.root, other.root, symlinks=True)
    trained.git("merge", "-q", "--no-edit", "deeper")
    other.git("checkout", "-q", "deeper")
    other.git("merge", "-q", "--no-edit", "other-data")
    for name in ("dvc.lock", "dvc.yaml", "mlstack.yaml", "params.mlstack.yaml"):
        assert (trained.root / name).read_bytes() == (other.root / name).read_bytes(), name


# ---------------------------------------------------------------------------------------------------- with a conflict


def conflict(workspace: Workspace, *command: str) -> None:
    """Have Git stop at a conflict in `mlstack.yaml`, and resolve that one as a person would: with depth 8."""
    workspace.call("git", command, code=1)
    with pytest.raises(AssertionError, match="Other files are still in conflict"):
        workspace.mlstack("lock", "--resolve")
    text = (workspace.root / "mlstack.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("<<<<<<<")
    _, _, tail = rest.partition(">>>>>>>")
    write(workspace, "mlstack.yaml", f"{head}  depth: 8\n{tail.partition(chr(10))[2]}")


@pytest.mark.parametrize(
    ("begin", "proceed"),
    [
        (("merge", "-q", "shallower"), ("commit", "-q", "--no-edit")),
        (("rebase", "-q", "shallower"), ("-c", "core.editor=true", "rebase", "--continue")),
        (("cherry-pick", "shallower"), ("commit", "-q", "--allow-empty", "--no-edit")),
    ],
    ids=["merge", "rebase", "cherry-pick"],
)
@pytest.mark.parametrize("driver", [True, False], ids=["driver", "no driver"])
def test_the_result_that_fits_the_merged_file_is_taken(
    trained: Workspace, begin: tuple[str, ...], proceed: tuple[str, ...], driver: bool
) -> None:
    if not driver:
        trained.git("config", "--remove-section", "merge.mlstack")
    branch(trained, "shallower", shallower)
    branch(trained, "deeper", deeper)
    lock = (trained.root / "dvc.lock").read_bytes()
    conflict(trained, *begin)
    trained.mlstack("plan", code=1)

    document = json.loads(trained.mlstack("lock", "--resolve", "--json").stdout)
    resolved = {row["path"]: {e["name"]: e["verdict"] for e in row["entries"]} for row in document["resolved"]}
    assert resolved["dvc.lock"] == {"report": "fits", "train": "fits"}
    assert document["next"] == f"git {begin[0]} --continue"
    assert (trained.root / "dvc.lock").read_bytes() == lock
    assert trained.git("ls-files", "--unmerged", "--", "dvc.lock", "dvc.yaml", "params.mlstack.yaml") == ""
    assert trained.actions() == {}
    trained.git("add", "mlstack.yaml")
    trained.git(*proceed)
    assert trained.git("status", "--porcelain") == ""
    trained.dvc("checkout")
    trained.assert_settled()


def test_a_third_value_leaves_both_results_out(trained: Workspace) -> None:
    branch(trained, "shallower", shallower)
    branch(trained, "deeper", deeper)
    conflict(trained, "merge", "-q", "shallower")
    trained.edit("mlstack.yaml", "depth: 8", "depth: 5")
    said = trained.mlstack("lock", "--resolve").stdout
    assert "train: left out, neither side's result is for what the files say now" in said
    assert set(entries(trained)) == {"other", "prepare"}
    assert trained.actions() == {"stages.train": "run", "stages.report": "run"}


def test_nothing_is_written_while_an_input_is_in_conflict(trained: Workspace) -> None:
    branch(trained, "one", lambda w: w.edit("train.sh", "# of a depth", "# of one depth"))
    branch(trained, "two", lambda w: w.edit("train.sh", "# of a depth", "# of some depth"))
    trained.call("git", ["merge", "-q", "one"], code=1)
    before = contents(trained)
    said = trained.mlstack("lock", "--resolve", code=1).stderr
    assert "train.sh: what stages read decides which result is theirs" in said
    assert contents(trained) == before
    trained.git("checkout", "--theirs", "train.sh")
    trained.mlstack("lock", "--resolve")
    assert trained.actions() == {}


def test_a_stage_written_by_hand_is_left_to_the_person(trained: Workspace) -> None:
    def own(word: str) -> Commits:
        def change(workspace: Workspace) -> None:
            with (workspace.root / "dvc.yaml").open("a", encoding="utf-8") as file:
                file.write(f"  mine:\n    cmd: echo {word} > mine.txt\n    outs:\n    - mine.txt\n")
            faster(workspace)

        return change

    branch(trained, "one", own("one"))
    branch(trained, "two", own("two"))
    trained.call("git", ["merge", "-q", "one"], code=1)
    before = contents(trained)
    said = trained.mlstack("lock", "--resolve", code=1).stderr
    assert "dvc.yaml: both sides changed mine, which mlstack did not write" in " ".join(said.split())
    assert contents(trained) == before


def test_marks_that_were_committed_are_resolved_too(trained: Workspace) -> None:
    trained.git("config", "--remove-section", "merge.mlstack")
    branch(trained, "shallower", shallower)
    branch(trained, "deeper", deeper)
    conflict(trained, "merge", "-q", "shallower")
    trained.commit("Everything, marks too")
    trained.mlstack("plan", code=1)
    trained.mlstack("lock", "--resolve")
    assert trained.actions() == {}
    assert "train" in entries(trained)


def test_what_was_edited_by_hand_is_kept(trained: Workspace) -> None:
    branch(trained, "shallower", shallower)
    branch(trained, "deeper", deeper)
    conflict(trained, "merge", "-q", "shallower")
    write(trained, "dvc.lock", "schema: '2.0'\nstages: {}\n# mine\n")
    trained.mlstack("lock", "--resolve")
    kept = list((trained.root / ".mlstack" / "kept").rglob("dvc.lock"))
    assert [path.read_text(encoding="utf-8") for path in kept] == ["schema: '2.0'\nstages: {}\n# mine\n"]
    assert trained.actions() == {}


def test_nothing_to_resolve(trained: Workspace) -> None:
    assert trained.mlstack("lock", "--resolve").stdout.startswith("No conflict in dvc.lock")
    trained.mlstack("lock", "--resolve", "--check", code=64)


# ---------------------------------------------------------------------------------------------------- setting up


def test_init_leaves_lines_of_the_user_alone(trained: Workspace) -> None:
    write(trained, ".gitattributes", "*.lock -text\ndvc.lock merge=union")
    said = trained.mlstack("init").stdout
    text = (trained.root / ".gitattributes").read_text(encoding="utf-8")
    assert text.startswith("*.lock -text\ndvc.lock merge=union\n")
    assert "\ndvc.lock merge=mlstack" not in text
    assert "\nmlstack.lock merge=mlstack" in text
    assert "dvc.yaml, mlstack.lock, params.mlstack.yaml are merged" in said
    trained.mlstack("init")
    assert (trained.root / ".gitattributes").read_text(encoding="utf-8") == text


def test_doctor_says_that_a_clone_has_no_driver(trained: Workspace, tmp_path: Path) -> None:
    clone = Workspace(tmp_path / "clone", trained.environment)
    trained.git("clone", "-q", str(trained.root), str(clone.root))
    assert driver(clone)["status"] == "problem"
    assert "not configured in this clone" in driver(clone)["found"]
    clone.mlstack("init")
    assert driver(clone)["status"] == "ok"
    assert clone.git("status", "--porcelain") == ""


def test_a_driver_that_is_gone_leaves_merging_to_git(trained: Workspace) -> None:
    branch(trained, "deeper", deeper)
    branch(trained, "faster", faster)
    command = trained.git("config", "merge.mlstack.driver").strip()
    trained.git("config", "merge.mlstack.driver", command.replace("bin/mlstack", "bin/no-such-mlstack"))
    trained.call("git", ["merge", "-q", "--no-edit", "deeper"], code=1)
    assert "<<<<<<< " in (trained.root / "params.mlstack.yaml").read_text(encoding="utf-8")
    trained.mlstack("lock", "--resolve")
    assert trained.actions() == {}


def driver(workspace: Workspace) -> dict[str, str]:
    checks = json.loads(workspace.mlstack("doctor", "--json", code=None).stdout)["checks"]
    found: dict[str, str] = next(check for check in checks if check["name"] == "merge driver")
    return found


def entries(workspace: Workspace) -> list[str]:
    lines = (workspace.root / "dvc.lock").read_text(encoding="utf-8").splitlines()
    return [line.strip().rstrip(":") for line in lines if line.startswith("  ") and line[2] not in " #"]


def contents(workspace: Workspace) -> dict[str, bytes]:
    names = ("dvc.lock", "dvc.yaml", "mlstack.lock", "params.mlstack.yaml", "train.sh")
    found = {name: (workspace.root / name).read_bytes() for name in names if (workspace.root / name).exists()}
    return found | {"index": workspace.git("ls-files", "--stage").encode()}
