"""The one table: which driver makes what, by kind and target. Drivers are imported when a plan needs them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Driver, ImageReading
from mlstack.drivers.stacks import UNIT, Provider, StackDriver, StackEngine
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.spec.address import Address, Kind
from mlstack.spec.spec import Endpoint, Image, Pool, Resource, Spec, Stage
from mlstack.state.state import Record, State

DRIVERS: dict[tuple[Kind, str], str] = {
    (Kind.STAGE, "local"): "mlstack.drivers.local.stages:LocalStages",
    (Kind.STAGE, "docker"): "mlstack.drivers.docker.stages:DockerStages",
    (Kind.ENDPOINT, "local"): "mlstack.drivers.local.endpoints:LocalEndpoints",
    (Kind.IMAGE, "docker"): "mlstack.drivers.docker.images:DockerImages",
    (Kind.ENDPOINT, "docker"): "mlstack.drivers.docker.endpoints:DockerEndpoints",
    (Kind.STAGE, "kubernetes"): "mlstack.drivers.kubernetes.stages:KubernetesStages",
    (Kind.POOL, "kubernetes"): "mlstack.drivers.kubernetes.pools:KubernetesPools",
    (Kind.ENDPOINT, "kubernetes"): "mlstack.drivers.kubernetes.endpoints:KubernetesEndpoints",
}
"""Kind and target → `module:Class`. Pools of other targets are not made: they are this machine, or an engine on it."""

_NAMED: dict[str, str] = {
    "local-endpoint": DRIVERS[Kind.ENDPOINT, "local"],
    "docker-image": DRIVERS[Kind.IMAGE, "docker"],
    "docker-endpoint": DRIVERS[Kind.ENDPOINT, "docker"],
    "kubernetes-pool": DRIVERS[Kind.POOL, "kubernetes"],
    "kubernetes-endpoint": DRIVERS[Kind.ENDPOINT, "kubernetes"],
}
"""`Record.driver` → `module:Class`, for what was made before and may not be declared any more."""

_AT_A_PROJECT = ("mlstack.drivers.kubernetes.", "mlstack.drivers.local.endpoints:", "mlstack.drivers.docker.endpoints:")
_STACK_ENGINE = "mlstack.drivers.pulumi.engine:PulumiEngine"
_RECORD_TO_LEAVE_WITH = "mlstack.drivers.pulumi.leaving:record_to_leave_with"
_PROVIDER_CHECKS = {"kubernetes": "mlstack.drivers.kubernetes.place:check_cluster"}
"""Name of a provider → what looks, before it is started, whether it may be and gets where it is to."""
_WAYS = {"kubernetes": "mlstack.drivers.kubernetes.ways:reached_from_here"}

_UNIT_CHECKS = {"kubernetes": "mlstack.drivers.kubernetes.preflight:preflight_units"}
"""Target → what asks whether pools and endpoints could be made there: all of them at once, as they share clusters."""


def make_driver(kind: Kind, target: str, *, root: Path) -> Any:
    """Return the driver of `kind` on `target` for the project at `root`.

    Raises `MlstackError` for a target that this version lacks.
    """
    return _make(_place(kind, target), root)


def _place(kind: Kind, target: str) -> str:
    try:
        return DRIVERS[kind, target]
    except KeyError:
        raise MlstackError(unsupported_target(target)) from None


def driver_for(resource: Endpoint | Image | Pool, graph: ResourceGraph, *, root: Path) -> Driver:
    """Return the driver of an endpoint, image or pool that is made.

    Images are the same wherever they run, and all built in one way.
    """
    match resource:
        case Image():
            place = DRIVERS[Kind.IMAGE, "docker"]
        case Pool():
            place = _place(Kind.POOL, resource.target)
        case Endpoint():
            place = _place(Kind.ENDPOINT, pool_of(resource, graph).target)
    driver: Driver = _make(place, root)
    return driver


def describe(
    resource: Endpoint | Pool, graph: ResourceGraph, versions: Mapping[str, str | None], *, root: Path
) -> Mapping[str, Any] | None:
    """Return the attributes that it should have (`Driver.desired`); None for a pool that nothing is made for."""
    if isinstance(resource, Pool) and not is_made(resource):
        return None
    return driver_for(resource, graph, root=root).desired(resource, graph, versions)


def stack_driver(resource: Resource, graph: ResourceGraph, *, root: Path) -> StackDriver | None:
    """Return the driver of a resource that is made in a stack; None for every other."""
    if not isinstance(resource, Endpoint | Pool):
        return None
    kind, pool = (Kind.POOL, resource) if isinstance(resource, Pool) else (Kind.ENDPOINT, pool_of(resource, graph))
    if (Kind.POOL, pool.target) not in DRIVERS or (kind, pool.target) not in DRIVERS:
        return None
    driver: StackDriver = _make(DRIVERS[kind, pool.target], root)
    return driver


def stack_engine(spec: Spec, *, root: Path, providers: Sequence[Provider] = ()) -> StackEngine:
    """Return what makes stacks. `providers` are those of what is recorded, with the ways to them from here."""
    engine: StackEngine = _load(_STACK_ENGINE)(spec, root=root, providers=providers)
    return engine


def seen_from_here(state: State | None, spec: Spec, *, root: Path) -> State | None:
    """Return what is recorded with the ways by which it is reached from this machine."""
    units = [each.attributes[UNIT] for each in state.resources.values() if UNIT in each.attributes] if state else []
    for name in {unit["provider"]["name"] for unit in units} & _WAYS.keys():
        assert state is not None  # noqa: S101 - it has units
        state = msgspec.structs.replace(state, resources=_load(_WAYS[name])(state.resources, spec, root=root))
    return state


def record_to_leave_with(spec: Spec, *, root: Path, protected: Collection[Address]) -> bytes | None:
    """Return what the stacks hold as the record of one stack of a user's own; None where nothing is recorded."""
    found: bytes | None = _load(_RECORD_TO_LEAVE_WITH)(spec, root, protected=protected)
    return found


def check_provider(provider: Provider, *, root: Path, reads: bool, address: Address) -> None:
    """Look whether a provider may be started and, if it is to read what is there, can: it would run what its files say.

    Raises `MlstackError`.
    """
    if provider.name in _PROVIDER_CHECKS:
        _load(_PROVIDER_CHECKS[provider.name])(provider, root=root, reads=reads, address=address)


def check_units(
    rows: Iterable[Change], graph: ResourceGraph, *, root: Path, is_planning: bool
) -> tuple[Diagnostic, ...]:
    """Ask the world whether what is made in stacks could be made, or ended, as these rows say. Nothing is changed.

    When planning, what only hinders whoever asks is a warning.
    """
    by_target: dict[str, list[Change]] = {}
    for row in rows:
        for target in _targets_of(row, graph) & _UNIT_CHECKS.keys():
            by_target.setdefault(target, []).append(row)
    return tuple(
        problem
        for target, found in by_target.items()
        for problem in _load(_UNIT_CHECKS[target])(found, graph, root=root, is_planning=is_planning)
    )


def _targets_of(row: Change, graph: ResourceGraph) -> set[str]:
    """Return where something is to be, and where it is."""
    resource = graph.resources.get(row.address)
    pool = pool_of(resource, graph) if isinstance(resource, Endpoint) else resource
    wanted = {pool.target} if isinstance(pool, Pool) and row.action is not Action.DELETE else set()
    return wanted | {str((row.before or {}).get("target", ""))}


def look_at_image(plan: ImagePlan, graph: ResourceGraph, record: Record | None, *, refresh: bool) -> ImageReading:
    """Say whether a recorded image is where it is needed, and what would build it. Asked only when it is needed."""
    reading: ImageReading = _load(DRIVERS[Kind.IMAGE, "docker"])().look_at(plan, graph, record, refresh=refresh)
    return reading


def driver_named(name: str, *, root: Path) -> Driver:
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
    driver: Driver = _make(place, root)
    return driver


def pool_of(resource: Stage | Endpoint, graph: ResourceGraph) -> Pool:
    """Return the pool that a stage or endpoint uses."""
    pool = graph.resources[resource.pool]
    assert isinstance(pool, Pool)  # noqa: S101 - the loader has resolved the reference
    return pool


def is_made(pool: Pool) -> bool:
    """Whether something is made for a pool, before anything can run in it."""
    return (Kind.POOL, pool.target) in DRIVERS


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


def _make(place: str, root: Path) -> Any:
    """Make a driver; some read settings and secrets whose paths are relative to the project."""
    made = _load(place)
    return made(root=root) if place.startswith(_AT_A_PROJECT) else made()


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
