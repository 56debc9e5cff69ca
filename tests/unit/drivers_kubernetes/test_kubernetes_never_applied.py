"""A stage whose pool nobody has made: said before anything is asked, with the command that makes it."""

from pathlib import Path

import pytest

from mlstack.drivers import preflight as asked
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, Kind
from mlstack.state.state import Record
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

_POOL, _TRAIN = Address("compute.big"), Address("stages.train")
_RUN = Change(address=_TRAIN, kind=Kind.STAGE, action=Action.RUN, reasons=())


def _codes(root: Path, target: str, *changes: Change, applied: bool = False) -> list[str]:
    graph = graph_of(write(root, f"compute: {{big: {{target: {target}}}}}\n{STAGES.replace('POOL', 'big')}"))
    records = {_POOL: Record(address=_POOL, driver="kubernetes-pool")} if applied else {}
    return [problem.code for problem in asked._never_applied((_RUN, *changes), graph, records)]


def test_only_a_pool_that_nobody_makes_is_missed(tmp_path: Path) -> None:
    made = Change(address=_POOL, kind=Kind.POOL, action=Action.CREATE, reasons=())
    assert _codes(tmp_path / "a", "kubernetes") == ["pool-never-applied"]
    assert _codes(tmp_path / "b", "kubernetes", made) == []
    assert _codes(tmp_path / "c", "kubernetes", applied=True) == []
    assert _codes(tmp_path / "d", "local") == []


def test_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    graph = graph_of(write(tmp_path, f"compute: {{big: {{target: kubernetes}}}}\n{STAGES.replace('POOL', 'big')}"))
    first = asked.preflight([_RUN], graph, {}, root=tmp_path)[0]
    assert first.command == "mlstack apply --target compute.big"
    assert "stages.train would run in compute.big" in first.detail
