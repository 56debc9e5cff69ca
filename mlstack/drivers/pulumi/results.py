"""From what an update reported, and the record that it left, to a result for each address."""

from collections.abc import Iterable, Mapping, Sequence

from mlstack.drivers.pulumi.checkpoint import Checkpoint, unwrapped
from mlstack.drivers.pulumi.events import Report
from mlstack.drivers.pulumi.names import Place
from mlstack.drivers.pulumi.problems import errors_by_address, not_reached, update_problem
from mlstack.drivers.stacks import Unit, UnitResult
from mlstack.spec.address import Address

_REMOVING = frozenset({"delete", "delete-replaced", "discard", "discard-replaced"})


def build_results(
    report: Report, units: Sequence[Unit], before: Iterable[Address], after: Checkpoint | None, *, stopped: bool
) -> dict[Address, UnitResult]:
    """Return a result for every address of `units`, and for each of `before` that was to be removed.

    An address is done when every object of it was reported as done, and none of its errors was reported.
    """
    errors = errors_by_address(report)
    done = {step.place for step in report.done if step.op != "refresh" and step.op not in _REMOVING}
    failed = {step.place for step in report.failed}
    recorded = after.objects() if after is not None else {}
    found: dict[Address, UnitResult] = {}
    for unit in units:
        places = [Place(unit.address, part.key) for part in unit.objects]
        missed = [each.key for each in places if each not in done or each in failed or each not in recorded]
        if texts := errors.get(unit.address):
            found[unit.address] = UnitResult(problem=update_problem(unit.address, texts))
        elif missed:
            found[unit.address] = UnitResult(problem=not_reached(unit.address, missed, stopped=stopped))
        else:
            outputs = {place.key: unwrapped(recorded[place].outputs) for place in places}
            found[unit.address] = UnitResult(outputs=outputs)
    return {**found, **_removed(errors, set(before) - found.keys(), after, stopped=stopped)}


def _removed(
    errors: Mapping[Address | None, Sequence[str]],
    addresses: Iterable[Address],
    after: Checkpoint | None,
    *,
    stopped: bool,
) -> dict[Address, UnitResult]:
    left: dict[Address, list[str]] = {}
    for resource in after.deployment.resources if after is not None else ():
        place = resource.place
        if place is not None and place.key:
            left.setdefault(place.address, []).append(place.key)
    found = {}
    for address in sorted(addresses):
        if texts := errors.get(address):
            found[address] = UnitResult(problem=update_problem(address, texts))
        elif keys := left.get(address):
            found[address] = UnitResult(problem=not_reached(address, keys, stopped=stopped))
        else:
            found[address] = UnitResult()
    return found
