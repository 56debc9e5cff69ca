"""Renamed pools in stacks: one row, whatever the engine says of the address before."""

from pathlib import Path

from mlstack.drivers.base import Readings
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change
from mlstack.planner.diff import diff
from mlstack.planner.plan import Scope
from mlstack.spec.address import Address, Kind
from mlstack.state.state import Record, State
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

_OLD, _NEW = Address("compute.small"), Address("compute.big")
_FILE = (
    f"compute: {{big: {{target: kubernetes}}}}\nmoved: [{{from: {_OLD}, to: {_NEW}}}]\n{STAGES.replace('POOL', 'big')}"
)


def test_a_renamed_pool_is_not_destroyed_as_well(tmp_path: Path) -> None:
    """The engine reports the replaced objects under both addresses."""
    records = {_OLD: Record(address=_OLD, driver="kubernetes-pool", attributes={"namespace": "a"})}
    part = Change(address=Address(f"{_OLD}#quota"), kind=Kind.POOL, action=Action.DELETE, reasons=())
    found = diff(
        graph_of(write(tmp_path, _FILE)),
        State(project="wine", environment="local", lineage="l", resources=records),
        Readings(),
        scope=Scope(),
        describe=lambda _resource, _versions: {"namespace": "b"},
        pins={},
        ask_stacks=lambda _question: {_OLD: UnitReading(parts=(part,), exists=True), _NEW: UnitReading(exists=True)},
    )
    assert [(row.address, row.previous_address) for row in found.changes if row.kind is Kind.POOL] == [(_NEW, _OLD)]
