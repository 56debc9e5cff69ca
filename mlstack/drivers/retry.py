"""Whether a failed run of a stage is tried again. Pure: the executor keeps the counts and the clock."""

from collections.abc import Mapping

from mlstack.spec.spec import RetryRule


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
