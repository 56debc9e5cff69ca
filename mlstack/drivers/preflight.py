"""The last question before anything is changed: whether what the steps need is there (an engine, a builder, a login).

Planning does not ask it, so that a plan can be made where none of that is. Clusters alone are asked by a plan,
too, which reads them anyway (`look_ahead`).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Absent, Driver, SupportsPreflight, SupportsRun
from mlstack.drivers.registry import check_units, driver_for, driver_named, is_made, make_driver, pool_of
from mlstack.drivers.secrets import resolve_secrets
from mlstack.drivers.stacks import StackDriver
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
    changes = [*changes]
    asked: dict[str, SupportsPreflight] = {}
    rows: dict[str, list[Change]] = {}
    problems = [*_never_applied(changes, graph, records)]
    in_stacks: dict[Address, Change] = {}
    for change in changes:
        try:
            drivers = _drivers_of(change, graph, records.get(change.previous_address or change.address), root)
        except MlstackError as error:  # this version has no such driver
            problems += error.diagnostics
            continue
        for driver in drivers:
            if isinstance(driver, StackDriver):
                in_stacks[change.address] = change
            elif isinstance(driver, SupportsPreflight):
                asked.setdefault(driver.name, driver)
                rows.setdefault(driver.name, []).append(change)
    for name, able in asked.items():
        problems += able.preflight(rows[name], graph)
    problems += _gone_images(changes, graph, records, root=root)
    problems += check_units([*in_stacks.values()], graph, root=root, is_planning=False)
    # One engine may be missed by several drivers.
    return tuple({(problem.code, problem.detail): problem for problem in reversed(problems)}.values())[::-1]


def look_ahead(changes: Iterable[Change], graph: ResourceGraph, *, root: Path) -> tuple[Diagnostic, ...]:
    """Ask, for a plan, the clusters on which something would be made or ended. What is only to apply is a warning."""
    rows = [
        change
        for change in changes
        if change.kind in (Kind.POOL, Kind.ENDPOINT) and change.action in (*_MADE, Action.DELETE)
    ]
    return check_units(rows, graph, root=root, is_planning=True)


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


def _never_applied(
    changes: Sequence[Change], graph: ResourceGraph, records: Mapping[Address, Record]
) -> Iterator[Diagnostic]:
    """Yield pools in which stages would run, and that nobody has made or is about to make."""
    there = {*records, *(change.address for change in changes)}
    running = (graph.resources.get(change.address) for change in changes if change.action is Action.RUN)
    users: dict[Address, list[Address]] = {}
    for stage in running:
        if isinstance(stage, Stage) and stage.pool not in there and is_made(pool_of(stage, graph)):
            users.setdefault(stage.pool, []).append(stage.address)
    for pool, stages in sorted(users.items()):
        yield Diagnostic(
            code="pool-never-applied",
            summary="The pool was never applied",
            detail=f"{', '.join(stages)} would run in {pool}, of which environment "
            f'"{graph.spec.environment}" has made nothing yet.',
            hint="Runs make no pools. Make it first:",
            command=f"mlstack apply --target {pool}",
            address=pool,
        )


def _gone_images(
    changes: Sequence[Change], graph: ResourceGraph, records: Mapping[Address, Record], *, root: Path
) -> Iterator[Diagnostic]:
    """Yield recorded images that pods would wait for in vain: pushed once, not built now, and not in the registry."""
    users: dict[Address, Address] = {}
    for change in changes:
        resource = graph.resources.get(change.address)
        is_started = change.may_run or change.action in _MADE
        if isinstance(resource, Stage | Endpoint) and is_started and is_made(pool_of(resource, graph)):
            for image in (graph.image_of.get(change.address), graph.runner_of.get(change.address)):
                if image is not None:
                    users.setdefault(image, change.address)
    built = {change.address for change in changes}
    for image in sorted(users.keys() & records.keys() - built):
        record = records[image]
        if not record.attributes.get("digest"):
            continue
        seen = driver_named(record.driver, root=root).read(graph.resources.get(image), record)
        if isinstance(seen, Absent):
            yield Diagnostic(
                code="image-gone",
                summary="An image is not in the registry any more",
                detail=f"{users[image]} runs in {image}: {seen.reason}, although it was pushed there.",
                hint="Have it built again:",
                command=f"mlstack apply --target {image}",
                address=image,
            )


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
