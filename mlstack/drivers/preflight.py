"""The last question before anything is changed: whether what the steps need is there (an engine, a builder, a login).

Planning does not ask it, so that a plan can be made where none of that is.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Driver, SupportsPreflight, SupportsRun
from mlstack.drivers.registry import driver_for, driver_named, make_driver, pool_of
from mlstack.drivers.secrets import resolve_secrets
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Endpoint, Image, Pool, Stage
from mlstack.state.state import Record

_MADE = (Action.CREATE, Action.UPDATE, Action.REPLACE)


def preflight(
    changes: Iterable[Change], graph: ResourceGraph, records: Mapping[Address, Record], *, root: Path
) -> tuple[Diagnostic, ...]:
    """Ask the drivers of the rows that do something; return what they say, each problem once."""
    asked: dict[str, SupportsPreflight] = {}
    rows: dict[str, list[Change]] = {}
    problems: list[Diagnostic] = []
    for change in changes:
        try:
            drivers = _drivers_of(change, graph, records.get(change.previous_address or change.address), root)
        except MlstackError as error:  # this version has no such driver
            problems += error.diagnostics
            continue
        for driver in drivers:
            if isinstance(driver, SupportsPreflight):
                asked.setdefault(driver.name, driver)
                rows.setdefault(driver.name, []).append(change)
    for name, able in asked.items():
        problems += able.preflight(rows[name], graph)
    # One engine may be missed by several drivers.
    return tuple({(problem.code, problem.detail): problem for problem in reversed(problems)}.values())[::-1]


def missing_secrets(changes: Iterable[Change], graph: ResourceGraph, *, root: Path) -> tuple[Diagnostic, ...]:
    """Look for the secrets of what would run or serve, so that none is missed after hours of other stages."""
    problems: list[Diagnostic] = []
    for change in changes:
        resource = graph.resources.get(change.address)
        if not isinstance(resource, Stage | Endpoint) or not (change.may_run or change.action in _MADE):
            continue
        try:
            resolve_secrets(resource.secrets, address=change.address, root=root, environment=os.environ)
        except MlstackError as error:
            problems += error.diagnostics
    return tuple(problems)


def _drivers_of(
    change: Change, graph: ResourceGraph, record: Record | None, root: Path
) -> Sequence[Driver | SupportsRun | SupportsPreflight]:
    """Return who carries a row out; for an endpoint that moves, who made it and takes it down as well."""
    resource = graph.resources.get(change.address)
    if isinstance(resource, Stage) and change.action is Action.RUN:
        return [make_driver(Kind.STAGE, pool_of(resource, graph).target, root=root)]
    if isinstance(resource, Endpoint | Image | Pool) and change.action in _MADE:
        driver = driver_for(resource, graph, root=root)
        moves = record is not None and record.driver != driver.name
        return [driver, driver_named(record.driver, root=root)] if record is not None and moves else [driver]
    if change.action is Action.DELETE and record is not None:
        return [driver_named(record.driver, root=root)]
    return []
