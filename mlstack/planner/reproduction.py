"""What came out when a commit was computed again, beside what that commit recorded. Pure."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from math import isclose

import msgspec

from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address, Kind, kind_of

DEFAULT_TOLERANCE = 1e-6
"""Relative. Rounding of another CPU or library stays far below; another random number does not."""

_NEAR_ZERO = 1e-12


class Likeness(StrEnum):
    """How alike an output is to the recorded one. `NEW`: nothing was recorded to compare it with."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within tolerance"
    DIFFERENT = "different"
    NEW = "not recorded"


class MetricPair(msgspec.Struct, frozen=True, kw_only=True):
    """One number that is not the same; None where it is missing on one side. `within`: inside the tolerance."""

    name: str
    before: float | None
    after: float | None
    within: bool

    @property
    def difference(self) -> float | None:
        """The difference relative to the larger of the two."""
        if self.before is None or self.after is None:
            return None
        largest = max(abs(self.before), abs(self.after))
        return abs(self.after - self.before) / largest if largest else 0.0


class OutputReport(msgspec.Struct, frozen=True, kw_only=True):
    """One output: the MD5 that was recorded and the one that came out; `metrics` are the numbers that differ."""

    path: str
    likeness: Likeness
    before: str | None
    after: str
    metrics: tuple[MetricPair, ...] = ()


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage that was computed again. `causes` are likely ones, the likeliest first."""

    address: Address
    cmd: str
    outputs: tuple[OutputReport, ...]
    causes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether an output is neither identical nor within the tolerance."""
        return any(out.likeness in (Likeness.DIFFERENT, Likeness.NEW) for out in self.outputs)


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report. `machine` says where it was computed again."""

    commit: str
    described: str
    tolerance: float
    machine: str
    stages: tuple[StageReport, ...]

    @property
    def is_same(self) -> bool:
        """Whether everything is identical or within the tolerance."""
        return not any(stage.differs for stage in self.stages)

    def count(self, likeness: Likeness) -> int:
        """Return how many outputs are like that."""
        return sum(out.likeness is likeness for stage in self.stages for out in stage.outputs)


def compare_output(
    path: str,
    *,
    before: str | None,
    after: str,
    numbers: tuple[Mapping[str, float], Mapping[str, float]] | None,
    tolerance: float,
) -> OutputReport:
    """Compare one output by MD5 and, for metrics (`numbers`: recorded, now), number by number."""
    if before is None:
        return OutputReport(path=path, likeness=Likeness.NEW, before=None, after=after)
    if before == after:
        return OutputReport(path=path, likeness=Likeness.IDENTICAL, before=before, after=after)
    pairs: tuple[MetricPair, ...] = ()
    if numbers is not None:
        pairs = tuple(_pairs(*numbers, tolerance))
    is_close = numbers is not None and bool(numbers[0]) and all(pair.within for pair in pairs)
    likeness = Likeness.WITHIN_TOLERANCE if is_close else Likeness.DIFFERENT
    return OutputReport(path=path, likeness=likeness, before=before, after=after, metrics=pairs)


def _pairs(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> Iterable[MetricPair]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        within = old is not None and new is not None and isclose(old, new, rel_tol=tolerance, abs_tol=_NEAR_ZERO)
        yield MetricPair(name=name, before=old, after=new, within=within)


def stages_to_run(graph: ResourceGraph, named: Collection[Address]) -> tuple[Address, ...]:
    """Return the stages named and those that lie between two of them, in order; all of them if none is named."""
    stages = [address for address in graph.order if kind_of(address) is Kind.STAGE]
    if not named:
        return tuple(stages)
    below = _closure(named, {address: graph.needs.get(address, ()) for address in graph.order})
    dependents: dict[Address, list[Address]] = {}
    for address, needs in graph.needs.items():
        for need in needs:
            dependents.setdefault(need, []).append(address)
    above = _closure(named, dependents)
    return tuple(address for address in stages if address in below and address in above)


def _closure(start: Collection[Address], edges: Mapping[Address, Collection[Address]]) -> set[Address]:
    found: set[Address] = set()
    waiting = list(start)
    while waiting:
        address = waiting.pop()
        if address not in found:
            found.add(address)
            waiting.extend(edges.get(address, ()))
    return found
