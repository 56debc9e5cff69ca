"""With `--no-refresh` nothing says that it was looked at: neither what stacks hold nor runs elsewhere."""

from pathlib import Path

import pytest

from mlstack.drivers.base import NOT_ASKED, Readings
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change
from mlstack.planner.diff import diff
from mlstack.planner.plan import Scope
from mlstack.spec.address import Address
from mlstack.state.state import RemoteHandle, RunRecord
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

_POOL, _TRAIN = Address("compute.big"), Address("stages.train")
_FILE = f"compute: {{big: {{target: kubernetes}}}}\n{STAGES.replace('POOL', 'big')}"


def rows(root: Path, *, refresh: bool, run: RunRecord | None = None) -> dict[Address, Change]:
    """Return the rows of a project of which nothing is recorded."""
    found = diff(
        graph_of(write(root, _FILE)),
        None,
        Readings(running={_TRAIN: (run,)} if run is not None else {}),
        scope=Scope(refresh=refresh),
        describe=lambda _resource, _versions: {"namespace": "a"},
        pins={},
        ask_stacks=lambda _question: {_POOL: UnitReading()},
    )
    return {row.address: row for row in found.changes}


@pytest.mark.parametrize("refresh", [True, False])
def test_what_would_be_made_in_a_stack(tmp_path: Path, refresh: bool) -> None:
    row = rows(tmp_path, refresh=refresh)[_POOL]
    assert (row.action, row.not_checked) == (Action.CREATE, "" if refresh else NOT_ASKED)


@pytest.mark.parametrize("refresh", [True, False])
def test_a_run_that_goes_on_elsewhere(tmp_path: Path, refresh: bool) -> None:
    wanted = rows(tmp_path, refresh=True)[_TRAIN].fingerprint
    assert wanted is not None
    run = RunRecord(
        address=_TRAIN,
        fingerprint=wanted,
        status="running",
        host="h",
        owner_pid=1,
        owner_started=1.0,
        apply_id="a",
        claimed_at="2026-01-01T00:00:00Z",
        remote=RemoteHandle(target="kubernetes", place={}, store="s3://acme/store", config={}, prefix="p"),
    )
    row = rows(tmp_path, refresh=refresh, run=run)[_TRAIN]
    assert (row.action, row.not_checked) == (Action.FOLLOW, "" if refresh else NOT_ASKED)
