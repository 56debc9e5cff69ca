"""When a failed run is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from mlstack.drivers.retry import next_attempt
from mlstack.spec.spec import RetryRule

RULES = (RetryRule(cause="error", count=1), RetryRule(cause="hang", window=60.0), RetryRule(cause="timeout", count=0))


def test_a_count_allows_so_many_more_attempts() -> None:
    assert next_attempt(RULES, "error", {"error": 1}, 0.0, 1000.0)
    assert not next_attempt(RULES, "error", {"error": 2}, 0.0, 1000.0)
    assert not next_attempt(RULES, "timeout", {"timeout": 1}, 0.0, 0.0)


def test_causes_are_counted_apart() -> None:
    assert next_attempt(RULES, "error", {"error": 1, "hang": 7}, 0.0, 1000.0)


def test_a_window_counts_from_the_first_failure() -> None:
    assert next_attempt(RULES, "hang", {"hang": 9}, first_failure_at=100.0, now=159.9)
    assert not next_attempt(RULES, "hang", {"hang": 1}, first_failure_at=100.0, now=160.0)


def test_without_a_rule_there_is_no_second_attempt() -> None:
    assert not next_attempt(RULES, "out-of-memory", {"out-of-memory": 1}, 0.0, 0.0)
    assert not next_attempt((), "error", {"error": 1}, 0.0, 0.0)
    assert not next_attempt(RULES, "cancelled", {"cancelled": 1}, 0.0, 0.0)
    assert not next_attempt(RULES, None, {}, 0.0, 0.0)


@given(st.integers(0, 20))
def test_the_number_of_attempts_is_one_more_than_the_count(count: int) -> None:
    rules = (RetryRule(cause="error", count=count),)
    attempts = 1
    while next_attempt(rules, "error", {"error": attempts}, 0.0, float(attempts)):
        attempts += 1
    assert attempts == count + 1
