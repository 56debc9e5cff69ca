"""Renamed pools in stacks: one row, whatever the engine says of the address before."""

from pathlib import Path

from mlstack.drivers.base import Readings
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change
from mlstack.planner.diff import diff
from mlstack.planner.plan import Scope
from mlstack.planner.stacks import StackQuestion
from mlstack.spec.address import Address, Kind
from mlstack.state.state import Record, State
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

_OLD, _NEW = Address("compute.small"), Address("compute.big")
_GONE = Address("compute.gone")
_THERE = {"namespace": "a"}
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


def question(scope: Scope, tmp_path: Path) -> tuple[StackQuestion, dict[Address, Change]]:
    """Return what is asked of stacks that hold a renamed pool and one that nobody declares, and the rows after it."""
    records = {each: Record(address=each, driver="kubernetes-pool", attributes=_THERE) for each in (_OLD, _GONE)}
    asked: list[StackQuestion] = []
    drifted = Change(address=Address(f"{_OLD}#quota"), kind=Kind.POOL, action=Action.DELETE, reasons=(), note="a quota")

    def ask(stacks: StackQuestion) -> dict[Address, UnitReading]:
        asked.append(stacks)
        return {_NEW: UnitReading(drifted=(drifted,), exists=True), _GONE: UnitReading(exists=True)}

    found = diff(
        graph_of(write(tmp_path, _FILE)),
        State(project="wine", environment="local", lineage="l", resources=records),
        Readings(),
        scope=scope,
        describe=lambda _resource, _versions: _THERE,
        pins={},
        ask_stacks=ask,
    )
    return asked[0], {row.address: row for row in found.changes if row.kind is Kind.POOL}


def test_reading_alone_finds_what_was_changed_under_the_address_before(tmp_path: Path) -> None:
    asked, rows = question(Scope(refresh_only=True), tmp_path)
    assert asked.kept >= {_OLD, _GONE}
    assert asked.previous == {_NEW: _OLD}
    assert asked.aside == {_GONE}
    assert rows[_NEW].drift
    assert rows[_NEW].action is Action.NO_OP
    assert _GONE not in rows, "reading removes nothing"


def test_what_is_out_of_the_scope_stays_and_need_not_answer(tmp_path: Path) -> None:
    """It would be removed by a plan that is about something else."""
    asked, rows = question(Scope(targets=(Address("models.wine"),)), tmp_path)
    assert asked.kept >= {_OLD, _GONE}
    assert asked.aside >= {_OLD, _GONE}
    assert (rows[_NEW].action, rows[_NEW].drift) == (Action.NO_OP, True)
    assert _GONE not in rows
    asked, rows = question(Scope(), tmp_path)
    assert asked.kept == asked.aside == frozenset()
    assert rows[_GONE].action is Action.DELETE
