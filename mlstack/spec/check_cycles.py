"""Resources that need each other in a circle."""

from collections.abc import Mapping

from mlstack.diagnostics import Position
from mlstack.spec.address import Address
from mlstack.spec.draft import Draft
from mlstack.spec.faults import Faults
from mlstack.spec.needs import needs_of
from mlstack.spec.spec import Resource, Stage


def check_cycles(
    resources: Mapping[Address, Resource],
    drafts: Mapping[Address, Draft],
    places: Mapping[tuple[Address, Address], Position],
    faults: Faults,
) -> None:
    """Collect one fault for each cycle, naming its path. Iterative: chains may be thousands of stages long.

    `resources` are without computed variables; `places` tells where one names another in such a variable.
    """
    named: dict[Address, set[Address]] = {}
    for holder, maker in places:
        named.setdefault(holder, set()).add(maker)
    needs = {
        address: sorted(each for each in needs_of(resource) | named.get(address, set()) if each in resources)
        for address, resource in resources.items()
    }
    done: set[Address] = set()
    for start in sorted(needs, key=lambda address: (not isinstance(resources[address], Stage), address)):
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
                _report(path[path.index(following) :], drafts, places, faults)
            elif following not in done:
                trail[following] = None
                waiting.append((following, iter(needs[following])))


def _report(
    cycle: list[Address],
    drafts: Mapping[Address, Draft],
    places: Mapping[tuple[Address, Address], Position],
    faults: Faults,
) -> None:
    edges = zip(cycle, [*cycle[1:], cycle[0]], strict=True)
    named = min((edge for edge in edges if edge in places), default=None)
    first = named[0] if named is not None else min(address for address in cycle if address in drafts)
    at = cycle.index(first)
    cycle = cycle[at:] + cycle[:at]
    path = " → ".join((*cycle, first))
    detail = f"each of these needs the next: {path}."
    if named is not None:
        hint = "Remove this variable, or take its value from elsewhere."
        faults.add("cycle", places[named], detail, hint, address=first)
        return
    node = drafts[first].node
    place = (node.get("deps") or node).key_place
    faults.add("cycle", place, detail, "Remove one of these deps, or split a stage in two.", address=first)
