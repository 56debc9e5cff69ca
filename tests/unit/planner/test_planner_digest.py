"""What an approval is bound to: everything that decides, nothing else. And addresses as people type them."""

from pathlib import Path

import msgspec
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.graph.sources import FileDigest
from mlstack.planner.plan import Scope
from mlstack.planner.scope import expand_addresses
from mlstack.spec.address import Address, Kind
from tests.scenarios.fake_project import FakeProject

FILE = """
version: 1
project: demo
compute: {{cpu: {{target: local}}, other: {{target: local}}}}
datasets: {{wine: {{path: data/wine.csv, source: "{source}"}}}}
stages:
  side: {{compute: cpu, cmd: side, deps: [src/side.py], outs: {{out: side.bin}}}}
  train:
    compute: {pool}
    description: {description}
    cmd: train
    deps: [stages.side.outs.out, datasets.wine, src/train.py]
    timeout: {{run: {timeout}}}
    outs: {{model: model.bin}}
    metrics: [m.json]
models:
  wine: {{from: stages.train.outs.model, framework: sklearn, gate: {{stages.train.metrics.rmse: {{max: {gate}}}}}}}
endpoints: {{quality: {{compute: cpu, model: models.wine}}}}
"""
BASE = {"source": "https://example.org/a", "pool": "cpu", "description": "one", "timeout": "1h", "gate": "0.7"}


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    made = FakeProject(tmp_path)
    made.write({"mlstack.yaml": FILE.format(**BASE), "src/train.py": "1", "src/side.py": "1"})
    return made


@pytest.mark.parametrize(
    ("changed", "decides"),
    [
        ({}, False),
        ({"description": "two"}, False),
        ({"timeout": "2h"}, False),
        ({"gate": "100"}, True),
        ({"source": "https://example.org/b"}, True),
        ({"pool": "other"}, True),
    ],
)
def test_declarations(project: FakeProject, changed: dict[str, str], decides: bool) -> None:
    before = project.plan()[0].digest
    project.write({"mlstack.yaml": FILE.format(**{**BASE, **changed})})
    assert (project.plan()[0].digest != before) is decides


def test_scope_and_sources_decide_and_observations_do_not(project: FakeProject) -> None:
    before = project.plan()[0].digest
    assert project.plan(Scope(excludes=(Address("endpoints.quality"),)))[0].digest != before
    project.world.metrics[Address("stages.other")] = {"x": 1}
    assert project.plan()[0].digest == before
    project.write({"src/side.py": "2"})
    assert project.plan()[0].digest != before


def test_recorded_inputs_decide_also_beside_unknown_ones(project: FakeProject) -> None:
    project.world.metrics[Address("stages.train")] = {"rmse": 0.1}
    project.apply()
    project.write({"mlstack.yaml": FILE.format(**{**BASE, "source": "https://example.org/b"})})
    before = project.plan()[0]
    assert before.change(Address("stages.side")).pending is False  # type: ignore[union-attr]
    assert before.change(Address("stages.train")).fingerprint is None  # type: ignore[union-attr]
    side = project.world.lock[Address("stages.side")]
    out = msgspec.structs.replace(side.outs[0], digest=FileDigest(md5="0" * 32, size=1))
    project.world.lock[Address("stages.side")] = msgspec.structs.replace(side, outs=(out,))
    assert project.plan()[0].digest != before.digest


def test_addresses_as_people_type_them(project: FakeProject) -> None:
    graph = project.graph()
    assert expand_addresses(["train", "stages.train", "quality"], graph) == ("stages.train", "endpoints.quality")
    with pytest.raises(MlstackError) as caught:
        expand_addresses(["wine", "stages.trian", "trian"], graph)
    several, trian, bare = caught.value.diagnostics
    assert (several.code, trian.code, bare.code) == ("ambiguous-address", "unknown-address", "unknown-address")
    assert "datasets.wine, models.wine" in several.detail
    assert (trian.hint, bare.hint) == ('Did you mean "stages.train"?', 'Did you mean "train"?')
    assert expand_addresses(["wine"], graph, kinds=(Kind.DATASET,)) == ("datasets.wine",), "a model cannot do it"
    gone = Address("endpoints.gone")
    assert expand_addresses(["endpoints.gone"], graph, recorded=[gone]) == (gone,)
