"""The order of steps: valid, complete, and not quadratic where many wait for many."""

import random
from types import SimpleNamespace
from typing import Any

from mlstack.graph.change import Action, Change, Reason, ReasonCode
from mlstack.planner.build_plan import order_steps
from mlstack.spec.address import Address, Kind

UP_TO_DATE = (Reason(code=ReasonCode.UP_TO_DATE),)


def change(address: Address, *, pending: bool) -> Change:
    action = Action.RUN if pending else Action.NO_OP
    return Change(address=address, kind=Kind.STAGE, action=action, reasons=UP_TO_DATE)


def graph_of(needs: dict[Address, tuple[Address, ...]]) -> Any:
    return SimpleNamespace(resources=dict.fromkeys(needs), order=tuple(needs), needs=needs)


def nearest(address: Address, needs: dict[Address, tuple[Address, ...]], pending: set[Address]) -> set[Address]:
    """The definition, word for word: the nearest pending ones, through what is not pending."""
    found: set[Address] = set()
    for need in needs[address]:
        found |= {need} if need in pending else nearest(need, needs, pending)
    return found


def test_a_step_waits_for_the_nearest_pending_ones() -> None:
    chance = random.Random(7)
    for _ in range(50):
        names = [Address(f"stages.s{number:02}") for number in range(20)]
        needs = {
            name: tuple(chance.sample(names[:place], min(place, chance.randrange(4))))
            for place, name in enumerate(names)
        }
        pending = {name for name in names if chance.random() < 0.5}
        steps = order_steps([change(name, pending=name in pending) for name in names], graph_of(needs))
        assert {step.address: set(step.needs) for step in steps} == {
            name: nearest(name, needs, pending) for name in pending
        }
        assert all(list(step.needs) == sorted(step.needs) for step in steps)


def test_many_that_wait_for_many_through_one_share_what_they_wait_for() -> None:
    """With a set and a list for each, 5,000 rows took 5 s."""
    sources = [Address(f"stages.a{number}") for number in range(500)]
    hub, leaves = Address("stages.hub"), [Address(f"stages.z{number}") for number in range(500)]
    needs = dict.fromkeys(sources, ()) | {hub: tuple(sources)} | dict.fromkeys(leaves, (hub,))
    changes = [change(name, pending=name != hub) for name in needs]
    steps = {step.address: step.needs for step in order_steps(changes, graph_of(needs))}
    assert set(steps[leaves[0]]) == set(sources)
    assert all(steps[leaf] is steps[leaves[0]] for leaf in leaves)
