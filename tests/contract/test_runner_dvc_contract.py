"""What the runner hashes and pushes is what DVC would, and DVC gets it back."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlstack.drivers.remote_run.bundle import make_bundle, upload_bundle
from mlstack.drivers.remote_run.ignored import with_rules
from mlstack.drivers.remote_run.order import build_order, plain_inputs, submit_order
from mlstack.drivers.remote_run.overlay import ensure_runner_overlay
from mlstack.drivers.remote_run.remote import remote_for_runs
from mlstack.drivers.remote_run.results import lock_entry, read_remote_run
from mlstack.graph.graph import EntryKey, entry_key
from mlstack.runner.order import encode_order
from mlstack.runner.push import describe, push
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Dep
from tests.unit.dvc.conftest import project as project  # noqa: PLC0414 - a fixture
from tests.unit.dvc.dvc_project import Project, stage
from tests.unit.runner.runner_place import Place, held


@pytest.fixture
def place(project: Project, tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path, ensure_runner_overlay(say=print))
    yield found
    found.end_all()


def recorded(project: Project, path: str) -> tuple[str, int]:
    """Hash and number of files as `dvc add` records them."""
    import yaml

    (out,) = yaml.safe_load(project.read(f"{path}.dvc"))["outs"]
    return out["md5"], out.get("nfiles", 1)


NAMES = [
    "a",
    "z",
    "B",
    "ä",
    "日本",
    "with space",
    "sub/b",
    "sub/deep/c",
    'quo"te',
    "back\\slash",
    "new\nline",
    "-x",
    "#h",
]


def test_files_and_folders_have_dvc_s_hashes(project: Project, place: Place) -> None:
    for number, name in enumerate(NAMES):
        project.write(f"data/{name}", name * number)
    project.write("data/.git/x", "left out")
    (project.root / "data/link").symlink_to("a")
    (project.root / "data/empty").mkdir()
    project.write("one.bin", b"\r\n\0" * 1000)
    project.dvc("add", "data", "one.bin")
    for path in ("data", "one.bin"):
        made = describe(str(project.root), with_rules(project.root, path)).made
        assert (made.md5, made.nfiles or 1) == recorded(project, path)


def test_dvcignore_holds_there_as_here(project: Project, place: Place) -> None:
    project.write(".dvcignore", "*.tmp\n!keep.tmp\n/data/only-here/\ncache-[0-9]*x*y\n**/logs/**\n")
    for name in (
        "a.tmp",
        "keep.tmp",
        "x",
        "only-here/x",
        "sub/only-here/x",
        "cache-1axby",
        "logs/l",
        "sub/logs/deep/l",
    ):
        project.write(f"data/{name}", name)
    project.dvc("add", "data")
    out = with_rules(project.root, "data")
    assert out.ignore
    made = describe(str(project.root), out).made
    assert (made.md5, made.nfiles) == recorded(project, "data")
    # the same through an order, in a process without pathspec
    script = "import shutil, sys\nshutil.copytree(sys.argv[1], 'data')\n"
    order = place.order(script, commands=(f"python3 train.py {project.root}/data",))
    place.store.put(place.keys.order, encode_order(replace(order, outs=(out,))))
    code, output = place.run()
    assert code == 0, output
    assert place.made()["data"] == recorded(project, "data")[0]


def test_dvc_pulls_what_a_run_pushed(project: Project, place: Place) -> None:
    place.order(
        "import pathlib\nm = pathlib.Path('model'); (m / 'sub').mkdir(parents=True)\n"
        "(m / 'a').write_text('1'); (m / 'sub/b').write_text('2'); pathlib.Path('one').write_text('3')\n",
        outs=("model", "one"),
    )
    code, output = place.run()
    assert code == 0, output
    result = place.result()
    assert result is not None
    project.dvc("remote", "add", "-d", "store", place.url)
    outs = [{"path": out.path, "hash": "md5", "md5": out.md5, "size": out.size} for out in result.outs]
    project.write("dvc.yaml", json.dumps({"stages": {"train": {"cmd": "false", "outs": ["model", "one"]}}}))
    project.write("dvc.lock", json.dumps({"schema": "2.0", "stages": {"train": {"cmd": "false", "outs": outs}}}))
    project.dvc("pull")
    assert project.read("model/sub/b") == "2"
    assert project.read("one") == "3"
    assert "up to date" in project.dvc("status", check=False)
    assert "is not in sync" not in project.dvc("status", "--cloud")
    project.dvc("pull", "--run-cache")
    assert not (project.root / ".dvc/cache/runs").exists(), "our records are not DVC's run-cache"


def test_the_runner_gets_what_dvc_pushed(project: Project, place: Place) -> None:
    for number, name in enumerate(NAMES):
        project.write(f"data/{name}", name * number)
    project.dvc("add", "data")
    project.dvc("remote", "add", "-d", "store", place.url)
    project.dvc("push")
    md5, nfiles = recorded(project, "data")
    place.order("import shutil\nshutil.copytree('data', 'out')\n", outs=("out",), inputs=(held("data", md5),))
    code, output = place.run()
    assert code == 0, output
    assert place.made()["out"] == md5
    assert f"{nfiles} files fetched" in output


def test_five_thousand_files(project: Project, place: Place) -> None:
    folder = project.root / "many"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number:05}").write_bytes(number.to_bytes(4, "big"))
    content = describe(str(project.root), with_rules(project.root, "many"))
    assert push(place.store, [content], say=print) == 5001
    assert push(place.store, [content], say=print) == 0
    project.dvc("add", "many", "--no-commit")
    assert content.made.md5 == recorded(project, "many")[0]
    shutil.rmtree(folder)
    place.order(
        "import os\nopen('out.txt', 'w').write(str(len(os.listdir('many'))))\n",
        inputs=(held("many", content.made.md5),),
    )
    code, output = place.run()
    assert code == 0, output
    assert "5000 files fetched" in output


def test_from_a_declaration_to_dvc_lock(project: Project, place: Place) -> None:
    """The whole way on both sides: bundle, order, run elsewhere, result, `dvc.lock`; then DVC finds nothing to do."""
    wine = Dataset(address=Address("datasets.wine"), path="data/wine.csv")
    project.write("data/wine.csv", "1,2,3\n")
    project.write("train.py", "from lib import fit\nfit()\n")
    project.write("lib.py", "import os, shutil\ndef fit(): shutil.copy(os.environ['MLSTACK_DATASET_WINE'], 'model')\n")
    train = stage("train", "python3 train.py", deps=["train.py", Dep(wine.path, wine.address)], outs=["model"])
    project.declare(wine, train)
    store = project.store()
    store.write_definitions()
    store.add_dataset(wine, say=print)
    project.dvc("remote", "add", "-d", "store", place.url)
    project.dvc("push")
    graph = project.graph()
    digest = graph.datasets[wine.address]
    assert digest is not None
    key = entry_key(graph.stages[train.address], {wine.path: digest})
    assert isinstance(key, EntryKey)

    take = plain_inputs(train, graph, root=project.root)
    bundle = make_bundle(project.root, graph, into=project.cache_folder, take=take)
    upload_bundle(bundle, place.store)
    remote = remote_for_runs(place.url, {})
    order = build_order(train, graph, key, root=project.root, remote=remote, bundle=bundle.name, resources={})
    url = submit_order(order, place.store, address=train.address)
    code, output = place.run(MLSTACK_ORDER=url)
    assert code == 0, output

    found = read_remote_run(place.store, order.run)
    assert found.result is not None
    assert not (project.root / "model").exists(), "bytes stay in the remote until someone asks"
    store = project.store(graph)
    store.record({train.address: lock_entry(found.result, key)})
    store.flush()
    project.dvc("pull")
    assert project.read("model") == "1,2,3\n"
    assert "up to date" in project.dvc("status")
