"""The only reading of the world: what is recorded, what can be had by hash, what runs and whether it is well."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlstack.drivers.base import Absent, NotChecked, Observation, Readings
from mlstack.drivers.dvc.read import read_results
from mlstack.drivers.registry import driver_named
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint
from mlstack.state.protocols import StateReader
from mlstack.state.runs import is_alive
from mlstack.state.state import Record, RunRecord, State

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
    results = read_results(graph, root=root, pending=reader.pending(), cache_folder=cache_folder)
    return Readings(
        stages=results.stages,
        datasets=results.datasets,
        metrics=results.metrics,
        diagnostics=results.diagnostics,
        observations=_observe(graph, prior, refresh=refresh),
        running=runs_in_flight(reader.runs()),
    )


def runs_in_flight(runs: Sequence[RunRecord]) -> dict[Address, RunRecord]:
    """Return the runs that go on, or that ended well and were not collected because their applier died."""
    found: dict[Address, RunRecord] = {}
    for run in runs:
        if run.status == "running" and run.address not in found and (is_alive(run) or ended_well(run)):
            found[run.address] = run
    return found


def ended_well(run: RunRecord) -> bool:
    """Whether the run's result file says success."""
    result = read_run_result(run)
    return result is not None and result.exit_code == 0


class RunEnd(msgspec.Struct, frozen=True):
    """The part of a run's `result.json` that says how it ended. `ended` is in seconds since the epoch."""

    exit_code: int | None
    ended: float


def read_run_result(run: RunRecord) -> RunEnd | None:
    """Read how a run ended; None while it has not, or when its folder is gone."""
    try:
        return msgspec.json.decode((Path(run.folder or "") / "result.json").read_bytes(), type=RunEnd)
    except (OSError, msgspec.DecodeError):
        return None


def _observe(graph: ResourceGraph, prior: State | None, *, refresh: bool) -> dict[Address, Observation]:
    records: Mapping[Address, Record] = prior.resources if prior else {}
    moved = {move.source for move in graph.spec.moved}
    asked = [address for address in records if address in moved or isinstance(graph.resources.get(address), Endpoint)]
    found: dict[Address, Observation] = {
        address: Absent(reason="never made") for address in graph.spec.of(Endpoint) if address not in records
    }
    if not refresh:
        return found | {address: NotChecked(reason="--no-refresh: not asked") for address in asked}

    def observe(address: Address) -> Observation:
        record = records[address]
        return driver_named(record.driver).read(graph.resources.get(address), record)

    if len(asked) <= 1:
        return found | {address: observe(address) for address in asked}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(_TOGETHER, len(asked))) as pool:
        return found | dict(zip(asked, pool.map(observe, asked), strict=True))
