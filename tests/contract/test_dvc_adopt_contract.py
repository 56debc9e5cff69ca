"""A project that was made with `dvc` alone is taken in, and nothing runs again."""

from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.adopt import adopt, spec_from_dvc, take_over
from mlstack.drivers.dvc.bootstrap import init_repository
from mlstack.drivers.dvc.objects import is_same_key
from mlstack.drivers.dvc.read import read_results
from mlstack.drivers.dvc.store import DvcResults
from mlstack.graph.digest_sources import digest_sources
from mlstack.graph.graph import EntryKey, ResourceGraph, entry_key
from mlstack.graph.resolve import resolve
from mlstack.spec.address import Address
from mlstack.spec.load import load_spec
from mlstack.spec.spec import Stage
from tests.unit.dvc.conftest import project
from tests.unit.dvc.dvc_project import Project

__all__ = ["project"]

DVC_YAML = """\
# by hand
vars:
- size: 3
- params.yaml
stages:
  prepare:
    desc: what it does
    cmd: |
      mkdir -p data
      cp raw.csv data/a.csv && echo "\\${HOME}" ${size} >/dev/null
    deps: [raw.csv]
    outs: [data/a.csv]
  each:
    foreach: [us, uk]
    do:
      cmd: mkdir -p out && cat data/a.csv >out/${item}.txt
      deps: [data/a.csv]
      params: [depth]
      outs:
      - out/${item}.txt
  grid:
    matrix:
      lr: [0.1, 0.2]
    cmd:
    - echo '{"x":${item.lr}}' >m-${key}.json
    - printf 'a,b\\n1,2\\n' >p-${key}.csv
    deps: [data/a.csv]
    params:
    - other.yaml:
    metrics:
    - m-${key}.json:
        cache: false
    plots:
    - p-${key}.csv:
        x: a
        y: b
  outside:
    cmd: cp raw.csv sub/x
    wdir: sub
    outs: [y]
plots:
- data/a.csv:
    x: a
"""


def made_with_dvc(project: Project) -> Project:
    project.write("raw.csv", "a\n1\n")
    project.dvc("add", "raw.csv")
    project.write("params.yaml", "depth: 6\n")
    project.write("other.yaml", "z: {y: 1}\nw: [1, 2]\n")
    (project.root / "sub").mkdir()
    project.write("dvc.yaml", DVC_YAML)
    project.dvc("repro", "prepare", "each", "grid")
    return project


def load(project: Project) -> ResourceGraph:
    spec = load_spec(project.root / "mlstack.yaml", cache_folder=project.cache_folder)
    return resolve(spec, digest_sources(spec, root=project.root, cache_folder=project.cache_folder))


def test_what_was_up_to_date_stays_up_to_date(project: Project) -> None:
    made_with_dvc(project)
    adoption = adopt(project.root, project="taken")
    assert spec_from_dvc(project.root).startswith("# Made from dvc.yaml")
    assert [stage.name for stage in adoption.stages] == ["each-uk", "each-us", "grid-0-1", "grid-0-2", "prepare"]
    assert [diagnostic.detail.partition(" stays")[0] for diagnostic in adoption.left_out] == ["dvc.yaml: outside"]
    project.write("mlstack.yaml", adoption.text)
    take_over(project.root, adoption)
    clean = project.dvc("status", "prepare", "each-us", "each-uk", "grid-0-1", "grid-0-2")
    assert "up to date" in clean, clean

    graph = load(project)
    readings = read_results(graph, root=project.root, cache_folder=project.cache_folder)
    assert readings.diagnostics == ()
    known = {
        out: digest
        for reading in readings.stages.values()
        if reading.recorded
        for out, digest in reading.recorded.digests().items()
    }
    (dataset,) = readings.datasets.values()
    assert dataset.recorded is not None
    known["raw.csv"] = dataset.recorded
    for address, inputs in graph.stages.items():
        key = entry_key(inputs, known)
        assert isinstance(key, EntryKey)
        recorded = readings.stages[address].recorded
        assert recorded is not None, address
        assert is_same_key(recorded.key, key), (recorded.key, key)

    before = project.read("dvc.yaml")
    store = DvcResults(project.root, graph, cache_folder=project.cache_folder)
    assert "dvc.yaml" in store.write_definitions()
    after = project.read("dvc.yaml")
    assert before != after
    assert "# by hand" in after
    assert "outside" in after
    assert "x: a" in after
    clean = project.dvc("status", "prepare", "each-us", "each-uk", "grid-0-1", "grid-0-2")
    assert "up to date" in clean, clean
    assert store.write_definitions() == ()
    readings = read_results(load(project), root=project.root, cache_folder=project.cache_folder)
    assert all(reading.defined for reading in readings.stages.values())


FORMS = """\
vars:
- regions: {us: {t: 1}, uk: {t: 2}}
stages:
  keys:
    cmd: echo 1 >kept.json
    deps: [raw.csv]
    params:
    - train.lr
    - conf/other.yaml:
      - k.z
    outs:
    - kept.json:
        cache: false
        desc: small
  map:
    foreach: ${regions}
    do:
      cmd: echo ${item.t} >${key}.txt
      outs: ["${key}.txt"]
  held:
    matrix: {m: [a, b]}
    cmd: echo ${item.m} >${item.m}.h
    outs:
    - ${item.m}.h:
        persist: true
  still: {cmd: echo 1 >s, outs: [s], frozen: true}
"""


def test_every_form_is_taken_in_or_refused_at_its_place(project: Project) -> None:
    project.write("raw.csv", "1\n")
    project.write("params.yaml", "train: {lr: 0.1}\n")
    project.write("conf/other.yaml", "k: {z: 1}\n")
    project.write("dvc.yaml", FORMS)
    adoption = adopt(project.root)
    assert [(found.position and found.position.line, found.detail) for found in adoption.left_out] == [
        (20, "dvc.yaml: held@a stays as it is: its output a.h is kept between runs (persist: true)."),
        (20, "dvc.yaml: held@b stays as it is: its output b.h is kept between runs (persist: true)."),
        (26, "dvc.yaml: still stays as it is: it is frozen; mlstack has no such thing."),
    ]
    project.write("mlstack.yaml", adoption.text)
    graph = load(project)
    assert sorted(graph.stages) == ["stages.keys", "stages.map-uk", "stages.map-us"]
    keys = graph.stages[Address("stages.keys")]
    assert keys.params == {"params.yaml": {"train.lr": 0.1}, "conf/other.yaml": {"k.z": 1}}
    assert [(out.path, out.cache) for out in keys.outs] == [("kept.json", False)]
    uk = graph.resources[Address("stages.map-uk")]
    assert isinstance(uk, Stage)
    assert uk.cmd == "echo 2 >uk.txt"


def test_a_broken_dvc_yaml_says_so(project: Project) -> None:
    project.write("dvc.yaml", "stages:\n  a: {cmd: [\n")
    with pytest.raises(MlstackError, match=r"dvc\.yaml"):
        adopt(project.root)


def test_init_in_an_empty_folder(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "new"
    root.mkdir()
    assert len(init_repository(root)) == 3
    assert init_repository(root) == []
    assert "analytics = False" in (root / ".dvc/config").read_text()
    assert (root / ".mlstack/.gitignore").read_text() == "*\n"
    other = Project(root, tmp_path / "home")
    assert "There are no data or pipelines" in other.dvc("status")
    other.git("-c", "user.email=a@b", "-c", "user.name=A", "commit", "-q", "-m", "x")
    assert "?? " not in other.git("status", "--porcelain")


def test_init_in_a_folder_of_a_repository(project: Project, tmp_path: Path) -> None:
    top = tmp_path / "mono"
    root = top / "models/one"
    root.mkdir(parents=True)
    mono = Project(top, tmp_path / "home")
    mono.git("init", "-q")
    done = init_repository(root)
    assert any("--subdir" in line for line in done)
    assert (root / ".dvc").is_dir()
    assert not (top / ".dvc").exists()
