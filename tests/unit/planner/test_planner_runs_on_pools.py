"""A run elsewhere stands on the pool in which it was begun, whatever the file says by now."""

import msgspec
import pytest

from mlstack.graph.change import Action, Change
from mlstack.planner.build_plan import _stood_on, order_steps
from mlstack.planner.safety import with_affected
from mlstack.spec.address import Address, Kind
from mlstack.state.state import RemoteHandle, RunRecord
from tests.unit.planner.test_planner_order import graph_of

OLD, NEW, OTHER = Address("compute.old"), Address("compute.new"), Address("compute.other")
TRAIN = Address("stages.train")
HANDLE = RemoteHandle(target="kubernetes", place={"pool": OLD}, store="s3://acme/store", config={}, prefix="p")
RUN = RunRecord(
    address=TRAIN,
    fingerprint="f" * 64,
    status="running",
    host="h",
    owner_pid=1,
    owner_started=1.0,
    apply_id="a",
    claimed_at="2026-01-01T00:00:00Z",
    remote=HANDLE,
)


@pytest.mark.parametrize(
    ("pool", "previous", "action", "stands"),
    [
        (OLD, None, Action.DELETE, True),
        (NEW, OLD, Action.REPLACE, True),
        (NEW, None, Action.REPLACE, True),  # the stage is declared to be there
        (OTHER, None, Action.DELETE, False),
        (OLD, None, Action.UPDATE, False),
    ],
)
def test_the_plan_names_runs_on_a_pool_that_goes(
    pool: Address, previous: Address | None, action: Action, stands: bool
) -> None:
    row = Change(address=pool, kind=Kind.POOL, action=action, reasons=(), previous_address=previous)
    (found,) = with_affected([row], graph_of({NEW: (), TRAIN: (NEW,)}), {}, {TRAIN: (RUN,)})
    assert [each.address for each in found.affects] == ([TRAIN] if stands else [])


def test_a_pool_goes_after_the_runs_in_it() -> None:
    follow = Change(address=TRAIN, kind=Kind.STAGE, action=Action.FOLLOW, reasons=())
    gone = Change(address=OLD, kind=Kind.POOL, action=Action.DELETE, reasons=())
    steps = order_steps([gone, follow], graph_of({NEW: (), TRAIN: (NEW,)}), _stood_on({}, {TRAIN: (RUN,)}))
    assert [(step.address, step.needs) for step in steps] == [(TRAIN, ()), (OLD, (TRAIN,))]
    unknown = msgspec.structs.replace(RUN, remote=msgspec.structs.replace(HANDLE, place={}))
    here = msgspec.structs.replace(RUN, remote=None)
    assert _stood_on({}, {TRAIN: (RUN, unknown, here)}) == {TRAIN: (OLD,)}
