"""`import:` of what is there already: which objects of a pool and an endpoint that is."""

from pathlib import Path

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.existing import as_ours, is_taken_in, with_existing
from mlstack.drivers.kubernetes.pools import KubernetesPools
from mlstack.drivers.stack_programs import recorded_unit, with_unit
from mlstack.drivers.stacks import Unit
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.state.state import Record
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

GPU = Address("compute.gpu")
FILE = """\
targets: {kubernetes: {namespace: ml}}
compute: {gpu: {target: kubernetes, limits: {cpu: 4}}}
import: IMPORT
"""


def described(root: Path, imports: str) -> tuple[Unit, ResourceGraph]:
    write(root, FILE.replace("IMPORT", imports) + STAGES.replace("POOL", "gpu"))
    graph = graph_of(root)
    driver = KubernetesPools(root=root)
    pool = graph.resources[GPU]
    return driver.unit(pool, graph, driver.desired(pool, graph, {}), images={}), graph


def taken(unit: Unit) -> dict[str, str]:
    return {each.key: each.adopt for each in unit.objects if each.adopt}


def test_one_object_is_named_as_kubectl_names_it(tmp_path: Path) -> None:
    unit, graph = described(
        tmp_path, "[{to: compute.gpu, id: namespace/ml}, {to: compute.gpu, id: resourcequota/mlstack-gpu}]"
    )
    assert taken(unit) == {}
    assert taken(with_existing(unit, graph.spec, None)) == {"namespace-ml": "ml", "quota": "ml/mlstack-gpu"}


def test_an_address_alone_is_all_of_it_that_is_there(tmp_path: Path) -> None:
    unit, graph = described(tmp_path, "[compute.gpu]")
    assert taken(with_existing(unit, graph.spec, None)).keys() == {each.key for each in unit.objects}


def test_what_is_recorded_is_ours_and_the_key_may_stay_in_the_file(tmp_path: Path) -> None:
    unit, graph = described(tmp_path, "[compute.gpu]")
    asked = with_existing(unit, graph.spec, None)
    assert is_taken_in(asked)
    made = with_unit(Record(address=GPU, driver="kubernetes-pool", version=1, attributes={}), asked)

    assert recorded_unit(made) == unit == as_ours(asked)
    assert with_existing(unit, graph.spec, recorded_unit(made)) == unit


def test_an_object_that_the_pool_does_not_have_is_named_with_those_that_it_has(tmp_path: Path) -> None:
    unit, graph = described(tmp_path, "[{to: compute.gpu, id: namespace/mll}]")

    with pytest.raises(MlstackError) as failure:
        with_existing(unit, graph.spec, None)

    (problem,) = failure.value.diagnostics
    assert problem.code == "import-unknown"
    assert '"namespace/ml"' in problem.detail
    assert "resourcequota/mlstack-gpu" in problem.hint
    assert problem.position is not None
    assert problem.position.file.endswith("mlstack.yaml")


def test_other_resources_are_left_as_they_are(tmp_path: Path) -> None:
    unit, graph = described(tmp_path, "[]")
    assert with_existing(unit, graph.spec, None) is unit
