"""Endpoints that get another name (`moved`): the new one is made beside the old one where there is room for both."""

from pathlib import Path

import pytest

from mlstack.drivers.kubernetes.endpoints import KubernetesEndpoints
from mlstack.drivers.kubernetes.pools import KubernetesPools
from mlstack.drivers.stack_programs import _with_former, comes_beside
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, Kind
from tests.unit.drivers_kubernetes.kubernetes_projects import graph_of, write
from tests.unit.drivers_kubernetes.test_kubernetes_endpoint_units import TEXT, unit_of
from tests.unit.drivers_kubernetes.test_kubernetes_pool_units import unit_of as pool_unit

BEFORE, AFTER = Address("endpoints.before"), Address("endpoints.after")
MODEL = "model: models.wine"


def is_beside(folder: Path, text: str, what: str) -> bool:
    """Rename an endpoint that is otherwise the same."""
    before = write(folder / "before", f"{text}endpoints:\n  before: {{{what}}}\n")
    after = write(folder / "after", f"{text}endpoints:\n  after: {{{what}}}\n")
    graph = graph_of(after)
    driver = KubernetesEndpoints(root=after)
    units = (unit_of(after, "after"), unit_of(before, "before"))
    return comes_beside(driver, *units, graph.resources[AFTER], graph)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (f"compute: serve, {MODEL}", True),
        (f"compute: serve, {MODEL}, replicas: {{min: 4, max: 8}}", True),
        (f"compute: serve, {MODEL}, replicas: {{min: 5, max: 8}}", False),  # twice 2.5 of 4 cores
        (f"compute: gpu, {MODEL}", False),  # accelerators are seldom to spare
    ],
)
def test_it_comes_beside_its_former_self_where_both_have_room(tmp_path: Path, what: str, expected: bool) -> None:
    assert is_beside(tmp_path, TEXT, what) is expected


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("ingress: {host: ml.example}", False),
        ('ingress: {host: "*.ml.example"}', True),
        ("gateway: {name: edge, hostname: ml.example}", False),
        ('gateway: {name: edge, hostname: "*.ml.example"}', True),
    ],
)
def test_two_routes_never_have_one_host(tmp_path: Path, route: str, expected: bool) -> None:
    text = TEXT.replace("namespace: ml", f"namespace: ml, {route}")
    assert is_beside(tmp_path, text, f"compute: serve, {MODEL}") is expected


def test_what_keeps_its_name_and_what_only_one_can_have_is_no_second_one(tmp_path: Path) -> None:
    root = write(tmp_path, TEXT + "endpoints:\n  quality: {compute: serve, model: models.wine}\n")
    graph, unit, pool = graph_of(root), unit_of(root), pool_unit(root, "serve")
    driver = KubernetesEndpoints(root=root)
    endpoint = graph.resources[unit.address]
    assert not comes_beside(driver, unit, None, endpoint, graph), "nothing was there"
    assert not comes_beside(driver, unit, unit, endpoint, graph)
    assert not comes_beside(KubernetesPools(root=root), pool, unit, graph.resources[pool.address], graph)


def test_both_are_one_row() -> None:
    made, gone, other = (
        Change(address=Address(f"{address}#deployment"), kind=Kind.ENDPOINT, action=action, reasons=())
        for address, action in ((AFTER, Action.CREATE), (BEFORE, Action.DELETE), ("endpoints.other", Action.UPDATE))
    )
    readings = {
        AFTER: UnitReading(parts=(made,)),
        BEFORE: UnitReading(parts=(gone,), exists=True),
        Address("endpoints.other"): UnitReading(parts=(other,), exists=True),
    }
    found = _with_former(dict(readings), {AFTER: BEFORE})
    assert found.keys() == {AFTER, "endpoints.other"}
    assert found[AFTER] == UnitReading(parts=(made, gone), exists=True)
