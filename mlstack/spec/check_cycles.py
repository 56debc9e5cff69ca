"""Stages that need each other in a circle."""

from collections.abc import Mapping

from mlstack.spec.address import Address
from mlstack.spec.draft import Draft
from mlstack.spec.faults import Faults
from mlstack.spec.spec import Stage


def check_cycles(stages: Mapping[Address, Stage], drafts: Mapping[Address, Draft], faults: Faults) -> None:
    """Collect one fault for each cycle, naming its path. Iterative: chains may be thousands of stages long."""
    needs = {
        address: sorted({dep.producer for dep in stage.deps if dep.producer in stages})  # type: ignore[type-var]
        for address, stage in stages.items()
    }
    done: set[Address] = set()
    for start in sorted(needs):
        if start in done:
            continue
        trail: dict[Address, None] = {start: None}
        waiting = [(start, iter(needs[start]))]
        while waiting:
            address, rest = waiting[-1]
            following = next(rest, None)
            if following is None:
                waiting.pop()
                done.add(address)
                del trail[address]
            elif following in trail:
                path = list(trail)
                _report(path[path.index(following) :], drafts, faults)
            elif following not in done:
                trail[following] = None
                waiting.append((following, iter(needs[following])))


def _report(cycle: list[Address], drafts: Mapping[Address, Draft], faults: Faults) -> None:
    first = min(cycle)
    at = cycle.index(first)
    cycle = cycle[at:] + cycle[:at]
    node = drafts[first].node
    place = (node.get("deps") or node).key_place
    path = " → ".join((*cycle, first))
    detail = f"each of these needs the next: {path}."
    faults.add("cycle", place, detail, "Remove one of these deps, or split a stage in two.", address=first)
