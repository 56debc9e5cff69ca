"""Whether a failed run of a stage is tried again."""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from mlstack.spec.spec import RetryRule


class Tries:
    """The attempts of one run: how often each cause has failed it so far."""

    def __init__(self, rules: tuple[RetryRule, ...], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._clock = rules, clock
        self._failures: Counter[str] = Counter()
        self._first: dict[str, float] = {}

    def again(self, cause: str) -> bool:
        """Count a failure, and say whether to try again."""
        cause = self._rule_of(cause)
        self._failures[cause] += 1
        now = self._clock()
        self._first.setdefault(cause, now)
        return next_attempt(self._rules, cause, self._failures, self._first[cause], now)

    def is_last(self, cause: str) -> bool:
        """Whether the next failure for this cause would be the last one that its count allows."""
        cause = self._rule_of(cause)
        counts = [rule.count for rule in self._rules if rule.cause == cause and rule.count is not None]
        return bool(counts) and self._failures[cause] == counts[0]

    def _rule_of(self, cause: str) -> str:
        """A node that is lost has been taken away as well, unless there is a rule of its own."""
        has_own = any(rule.cause == cause for rule in self._rules)
        return "preempted" if cause == "node-lost" and not has_own else cause


def next_attempt(
    rules: tuple[RetryRule, ...],
    cause: str | None,
    failures: Mapping[str, int],
    first_failure_at: float,
    now: float,
) -> bool:
    """Say whether to try again after a failure for `cause`.

    `failures` counts, for each cause, the attempts that failed for it so far, the last one included: a rule with
    `count: 2` allows two more attempts. `first_failure_at` is when the first attempt failed for this cause, `now` the
    present, both in seconds of the same clock: a rule with a window allows attempts as long as that is less than the
    window ago. Success (`None`), "cancelled" and causes without a rule are never tried again.
    """
    for rule in rules:
        if rule.cause != cause:
            continue
        if rule.count is not None and failures.get(cause, 0) <= rule.count:
            return True
        if rule.window is not None and now - first_failure_at < rule.window:
            return True
    return False
