"""The only reading of the world: what is recorded, what can be had by hash, what runs and whether it is well."""

from collections.abc import Mapping
from pathlib import Path

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.base import NOT_ASKED, Absent, NotChecked, Observation, Readings
from mlstack.drivers.dvc.definitions import Definitions
from mlstack.drivers.dvc.orphans import orphan_datasets
from mlstack.drivers.dvc.read import read_results
from mlstack.drivers.open_runs import open_runs, outcomes_of
from mlstack.drivers.registry import driver_named
from mlstack.drivers.stacks import UNIT
from mlstack.graph.graph import ResourceGraph
from mlstack.runner.side_by_side import side_by_side
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Endpoint, Pool
from mlstack.state.protocols import StateReader
from mlstack.state.state import Record, State


def read_world(
    graph: ResourceGraph,
    prior: State | None,
    reader: StateReader,
    *,
    root: Path,
    cache_folder: Path,
    refresh: bool = True,
    tolerant: bool = False,
) -> Readings:
    """Read everything that the diff needs. With `refresh=False` nothing that runs is asked, and the rows say so.

    With `tolerant`, a run that cannot be asked is an error among the diagnostics; else raises `MlstackError`.
    """
    results = read_results(graph, root=root, pending=reader.pending(), cache_folder=cache_folder, refresh=refresh)
    runs = reader.runs()
    unanswered: list[Diagnostic] = []
    outcomes = outcomes_of(runs, root=root, unanswered=unanswered if tolerant else None) if refresh else None
    return Readings(
        stages=results.stages,
        datasets=results.datasets,
        metrics=results.metrics,
        diagnostics=(*results.diagnostics, *unanswered),
        observations=_observe(graph, prior, root=root, refresh=refresh),
        running=open_runs(runs, root=root, outcomes=outcomes),
        outcomes=outcomes or {},
    )


def undeclared(
    graph: ResourceGraph, prior: State | None, reader: StateReader, *, root: Path, cache_folder: Path
) -> tuple[Address, ...]:
    """Return what is recorded or runs, sorted, although the file does not declare it any more."""
    found = {*(prior.resources if prior else ()), *open_runs(reader.runs(), root=root)}
    found |= Definitions(graph, root, cache_folder=cache_folder).orphans.keys()
    found |= orphan_datasets(graph, root=root, cache_folder=cache_folder).keys()
    return tuple(sorted(found - graph.resources.keys()))


def observe_in_stacks(graph: ResourceGraph, prior: State | None, *, root: Path) -> dict[Address, Observation]:
    """Ask whether endpoints that are made in stacks are well: what `mlstack status` wants to know beyond their diff."""
    records = prior.resources if prior is not None else {}
    asked = [each for each in records if UNIT in records[each].attributes and kind_of(each) is Kind.ENDPOINT]
    return dict(zip(asked, side_by_side(lambda each: _read(graph, records[each], root), asked), strict=True))


def _observe(graph: ResourceGraph, prior: State | None, *, root: Path, refresh: bool) -> dict[Address, Observation]:
    records: Mapping[Address, Record] = prior.resources if prior else {}
    moved = {move.source for move in graph.spec.moved}
    asked = [
        address for address in records if address in moved or isinstance(graph.resources.get(address), Endpoint | Pool)
    ]
    found: dict[Address, Observation] = {
        address: Absent(reason="never made") for address in graph.spec.of(Endpoint) if address not in records
    }
    if not refresh:
        return found | {address: NotChecked(reason=NOT_ASKED) for address in asked}

    def observe(address: Address) -> Observation:
        record = records[address]
        if UNIT in record.attributes:
            return NotChecked(reason="nobody answers where it is")  # it is asked when all of its stack is described
        return _read(graph, record, root)

    return found | dict(zip(asked, side_by_side(observe, asked), strict=True))


def _read(graph: ResourceGraph, record: Record, root: Path) -> Observation:
    return driver_named(record.driver, root=root).read(graph.resources.get(record.address), record)
