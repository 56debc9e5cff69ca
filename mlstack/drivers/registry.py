"""The one table: which driver makes what, by kind and target. Drivers are imported when a plan needs them."""

from importlib import import_module
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Driver, ImageReading
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Endpoint, Image, Pool, Stage
from mlstack.state.state import Record

DRIVERS: dict[tuple[Kind, str], str] = {
    (Kind.STAGE, "local"): "mlstack.drivers.local.stages:LocalStages",
    (Kind.STAGE, "docker"): "mlstack.drivers.docker.stages:DockerStages",
    (Kind.ENDPOINT, "local"): "mlstack.drivers.local.endpoints:LocalEndpoints",
    (Kind.IMAGE, "docker"): "mlstack.drivers.docker.images:DockerImages",
    (Kind.ENDPOINT, "docker"): "mlstack.drivers.docker.endpoints:DockerEndpoints",
}
"""Kind and target → `module:Class`."""

_NAMED: dict[str, str] = {
    "local-endpoint": DRIVERS[Kind.ENDPOINT, "local"],
    "docker-image": DRIVERS[Kind.IMAGE, "docker"],
    "docker-endpoint": DRIVERS[Kind.ENDPOINT, "docker"],
}
"""`Record.driver` → `module:Class`, for what was made before and may not be declared any more."""


def load_driver(kind: Kind, target: str) -> Any:
    """Return the class that makes `kind` on `target`. Raises `MlstackError` for a target that this version lacks."""
    try:
        return _load(DRIVERS[kind, target])
    except KeyError:
        raise MlstackError(unsupported_target(target)) from None


def driver_for(resource: Endpoint | Image, graph: ResourceGraph) -> Driver:
    """Return the driver of an endpoint or image. Images are the same wherever they run, and all built in one way."""
    if isinstance(resource, Image):
        images: Driver = load_driver(Kind.IMAGE, "docker")()
        return images
    driver: Driver = load_driver(Kind.ENDPOINT, pool_of(resource, graph).target)()
    return driver


def look_at_image(plan: ImagePlan, graph: ResourceGraph, record: Record | None, *, refresh: bool) -> ImageReading:
    """Say whether a recorded image is where it is needed, and what would build it. Asked only when it is needed."""
    reading: ImageReading = load_driver(Kind.IMAGE, "docker")().look_at(plan, graph, record, refresh=refresh)
    return reading


def driver_named(name: str) -> Driver:
    """Return the driver that wrote a record. Raises `MlstackError` when this version has no such driver."""
    place = _NAMED.get(name)
    if place is None:
        raise MlstackError(
            Diagnostic(
                code="unknown-driver",
                summary="The state names a driver that this version does not have",
                detail=f'The driver is "{name}".',
                hint="Use the version of mlstack that recorded it, or a newer one.",
            )
        )
    driver: Driver = _load(place)()
    return driver


def pool_of(resource: Stage | Endpoint, graph: ResourceGraph) -> Pool:
    """Return the pool that a stage or endpoint uses."""
    pool = graph.resources[resource.pool]
    assert isinstance(pool, Pool)  # noqa: S101 - the loader has resolved the reference
    return pool


def check_targets(graph: ResourceGraph) -> tuple[Diagnostic, ...]:
    """Return a diagnostic for each pool in use whose target this version cannot make."""
    users: dict[Address, list[Address]] = {}
    for address, resource in graph.resources.items():
        if isinstance(resource, Stage | Endpoint):
            users.setdefault(resource.pool, []).append(address)
    found = []
    for pool_address in sorted(users):
        pool = graph.resources[pool_address]
        if isinstance(pool, Pool) and pool.target not in _targets():
            found.append(unsupported_target(pool.target, pool=pool, users=users[pool_address]))
    return tuple(found)


def unsupported_target(target: str, *, pool: Pool | None = None, users: list[Address] | None = None) -> Diagnostic:
    """Say that a target cannot be made by this version, and what can."""
    known = sorted(_targets())
    who = f" {', '.join(users or [])} would go there." if users else ""
    return Diagnostic(
        code="target-unsupported",
        summary="This version cannot make that target",
        detail=f"`target: {target}` is not among {', '.join(known)}.{who}",
        hint="Choose another pool in this environment; stages keep their results when their pool changes.",
        address=pool.address if pool else None,
    )


def _targets() -> set[str]:
    """Return where stages or endpoints can be; images are built for any of them."""
    return {target for kind, target in DRIVERS if kind is not Kind.IMAGE}


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
