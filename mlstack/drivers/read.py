"""The only reading of the world: what is recorded, what can be had by hash, what runs and whether it is well."""

from collections.abc import Mapping
from pathlib import Path

from mlstack.drivers.base import Absent, NotChecked, Observation, Readings
from mlstack.drivers.dvc.definitions import Definitions
from mlstack.drivers.dvc.orphans import orphan_datasets
from mlstack.drivers.dvc.read import read_results
from mlstack.drivers.open_runs import open_runs
from mlstack.drivers.registry import driver_named
from mlstack.drivers.stacks import UNIT
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Endpoint, Pool
from mlstack.state.protocols import StateReader
from mlstack.state.state import Record, State

_TOGETHER = 16


def read_world(
    graph: ResourceGraph,
    prior: State | None,
    reader: StateReader,
    *,
    root: Path,
    cache_folder: Path,
    refresh: bool = True,
) -> Readings:
    """Read everything that the diff needs. With `refresh=False` nothing that runs is asked, and the rows say so."""
    results = read_results(graph, root=root, pending=reader.pending(), cache_folder=cache_folder, refresh=refresh)
    return Readings(
        stages=results.stages,
        datasets=results.datasets,
        metrics=results.metrics,
        diagnostics=results.diagnostics,
        observations=_observe(graph, prior, root=root, refresh=refresh),
        running=open_runs(reader.runs(), root=root, refresh=refresh),
    )


def undeclared(
    graph: ResourceGraph, prior: State | None, reader: StateReader, *, root: Path, cache_folder: Path
) -> tuple[Address, ...]:
    """Return what is recorded or runs, sorted, although the file does not declare it any more."""
    found = {*(prior.resources if prior else ()), *open_runs(reader.runs(), root=root, refresh=False)}
    found |= Definitions(graph, root, cache_folder=cache_folder).orphans.keys()
    found |= orphan_datasets(graph, root=root, cache_folder=cache_folder).keys()
    return tuple(sorted(found - graph.resources.keys()))


def observe_in_stacks(graph: ResourceGraph, prior: State | None, *, root: Path) -> dict[Address, Observation]:
    """Ask whether endpoints that are made in stacks are well: what `mlstack status` wants to know beyond their diff."""
    records = prior.resources if prior is not None else {}
    found: dict[Address, Observation] = {}
    for address, record in records.items():
        if UNIT in record.attributes and kind_of(address) is Kind.ENDPOINT:
            found[address] = driver_named(record.driver, root=root).read(graph.resources.get(address), record)
    return found


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
        return found | {address: NotChecked(reason="--no-refresh: not asked") for address in asked}

    def observe(address: Address) -> Observation:
        record = records[address]
        if UNIT in record.attributes:
            return NotChecked(reason="its stack was not asked")  # it is, when all of it is described
        return driver_named(record.driver, root=root).read(graph.resources.get(address), record)

    if len(asked) <= 1:
        return found | {address: observe(address) for address in asked}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(_TOGETHER, len(asked))) as pool:
        return found | dict(zip(asked, pool.map(observe, asked), strict=True))
