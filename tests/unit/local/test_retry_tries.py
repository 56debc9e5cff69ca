"""How often a run is tried."""

from mlstack.drivers.retry import Tries
from mlstack.spec.spec import RetryRule


def test_a_count_is_used_up() -> None:
    """Two more attempts, the last of which is known as such."""
    tries = Tries((RetryRule(cause="preempted", count=2),))
    assert not tries.is_last("preempted")
    assert tries.again("preempted")
    assert not tries.is_last("preempted")
    assert tries.again("preempted")
    assert tries.is_last("preempted")
    assert not tries.again("preempted")
    assert not tries.again("error")


def test_a_lost_node_counts_as_taken_away() -> None:
    """Unless it has a rule of its own."""
    assert Tries((RetryRule(cause="preempted", count=1),)).again("node-lost")
    own = Tries((RetryRule(cause="preempted", count=5), RetryRule(cause="node-lost", count=1)))
    assert own.again("node-lost")
    assert not own.again("node-lost")
    assert own.again("preempted")


def test_a_window_is_over_when_it_is() -> None:
    """Counted from the first failure for that cause."""
    now = [0.0]
    tries = Tries((RetryRule(cause="no-capacity", window=60.0),), clock=lambda: now[0])
    assert tries.again("no-capacity")
    now[0] = 59.0
    assert tries.again("no-capacity")
    now[0] = 61.0
    assert not tries.again("no-capacity")
