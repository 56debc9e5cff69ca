"""Sound models → resources → `Spec`, with the checks that need to see all of them."""

from collections.abc import Mapping

from mlstack.diagnostics import Position
from mlstack.spec.address import Address, Kind
from mlstack.spec.build_computed import ComputedBuilder
from mlstack.spec.build_images import ImageBuilder
from mlstack.spec.build_places import LOCAL, PlaceBuilder
from mlstack.spec.build_pulumi import build_pulumi
from mlstack.spec.build_serving import ServingBuilder, build_dataset, check_url
from mlstack.spec.build_signing import build_signing
from mlstack.spec.build_stages import StageBuilder
from mlstack.spec.check_cycles import check_cycles
from mlstack.spec.check_imports import build_imports
from mlstack.spec.check_moves import build_moves
from mlstack.spec.check_outputs import check_outputs
from mlstack.spec.draft import Draft, draft_stages
from mlstack.spec.faults import Faults
from mlstack.spec.file import EnvironmentModel, File
from mlstack.spec.interpolate import Interpolator
from mlstack.spec.matrix import instance_of
from mlstack.spec.references import Index
from mlstack.spec.scope import Scope
from mlstack.spec.sources import Sources
from mlstack.spec.spec import Dataset, Endpoint, Model, Pool, Resource, Spec, Stage


def assemble(
    scopes: Mapping[str, Scope],
    sources: Sources,
    interpolator: Interpolator,
    *,
    environment: str,
    profile: str | None,
) -> Spec:
    """Return the spec. Faults are collected in `sources.faults`; with any, the spec is incomplete."""
    faults = sources.faults
    top = scopes[""]
    resources, declared = _build(scopes, sources, interpolator, faults)
    file = top.model if isinstance(top.model, File) else None
    chosen = (file.environments or {}).get(environment) if file is not None else None
    settings = chosen or EnvironmentModel.model_construct()
    if file is not None:
        _check_top(file, top, settings, environment, resources, faults)
    anything_broken = any(scope.broken for scope in scopes.values())
    moved = (
        build_moves(file, top.interpolated, set(resources), faults, broken=anything_broken) if file is not None else ()
    )
    imports = (
        build_imports(file, top.interpolated, set(resources), faults, environment=environment, broken=anything_broken)
        if file is not None
        else ()
    )
    return Spec(
        file=top.file,
        project=file.project if file is not None else "",
        environment=environment,
        profile=profile,
        resources=resources,
        declared=declared,
        directories=tuple(sorted({scope.directory for scope in scopes.values()})),
        moved=moved,
        imports=imports,
        remote=file.remote if file is not None else None,
        registry=settings.registry or (file.registry if file is not None else None),
        state=settings.state,
        results=file.results if file is not None else "in-pull-request",
        require_clean=settings.require_clean,
        require_approval=settings.require_approval,
        required_version=file.required_version if file is not None else None,
        signing=build_signing(file, top.interpolated, faults) if file is not None else None,
        pulumi=build_pulumi(file, top.interpolated, faults, environment=environment),
        environment_variables=tuple(sorted(interpolator.used)),
        read_files=dict(sorted(sources.digests.items())),
    )


def _build(
    scopes: Mapping[str, Scope], sources: Sources, interpolator: Interpolator, faults: Faults
) -> tuple[dict[Address, Resource], dict[Address, Position]]:
    drafts: list[Draft] = []
    datasets: dict[Address, Dataset] = {}
    for scope in scopes.values():
        drafts.extend(draft_stages(scope, interpolator, faults))
        for name, model in ((scope.model.datasets if scope.model is not None else None) or {}).items():
            dataset = build_dataset(name, model, scope, faults)
            if dataset is not None:
                datasets[dataset.address] = dataset
    index = Index(scopes, _instances(drafts), faults)
    places = PlaceBuilder(index, faults)
    resources: dict[Address, Resource] = {pool.address: pool for pool in places.build_pools()}
    resources.update(datasets)
    builder = StageBuilder(index, places, sources, faults, drafts=drafts, datasets=datasets)
    stages: dict[Address, Stage] = {draft.address: builder.build(draft) for draft in drafts}
    resources.update(stages)
    check_outputs(drafts, datasets, scopes, faults)
    serving = ServingBuilder(index, places, builder, faults)
    for scope in scopes.values():
        for name, written in ((scope.model.models if scope.model is not None else None) or {}).items():
            model_resource: Model | None = serving.model(name, written, scope)
            if model_resource is not None:
                resources[model_resource.address] = model_resource
        for name, served in ((scope.model.endpoints if scope.model is not None else None) or {}).items():
            endpoint = serving.endpoint(name, served, scope)
            if endpoint is not None:
                resources[endpoint.address] = endpoint
    resources.update(ImageBuilder(index, places, faults).build(resources, builder.drafts))
    computed = ComputedBuilder(resources, builder.drafts, index, faults)
    with_computed = computed.build()
    check_cycles(resources, builder.drafts, computed.places, faults)
    resources.update(with_computed)
    _check_ports(resources, scopes, faults)
    return resources, _declared(scopes, builder.drafts)


def _check_ports(resources: Mapping[Address, Resource], scopes: Mapping[str, Scope], faults: Faults) -> None:
    """On this machine every endpoint needs a port of its own."""
    taken: dict[int, Address] = {}
    for address, endpoint in resources.items():
        if not isinstance(endpoint, Endpoint) or endpoint.port is None:
            continue
        pool = resources.get(endpoint.pool)
        if not isinstance(pool, Pool) or pool.target != LOCAL:
            continue
        first = taken.setdefault(endpoint.port, address)
        if first != address:
            component, _, rest = address.rpartition("/")
            node = scopes[component].interpolated.get("endpoints", rest.partition(".")[2], "port")
            detail = f"`{address}` and `{first}` both ask for port {endpoint.port} of this machine."
            hint = "Choose another port, or leave `port` out: a free one is chosen once and kept."
            faults.add("port-twice", node.place if node is not None else None, detail, hint, address=address)


def _instances(drafts: list[Draft]) -> dict[Address, list[str]]:
    """Return the instances of each matrix stage."""
    found: dict[Address, list[str]] = {}
    for draft in drafts:
        if draft.model.matrix is not None:
            base = draft.scope.address(Kind.STAGE, draft.name)
            found.setdefault(base, []).append(instance_of(draft.combination))
    return found


def _declared(scopes: Mapping[str, Scope], drafts: Mapping[Address, Draft]) -> dict[Address, Position]:
    found: dict[Address, Position] = {}
    for scope in scopes.values():
        for kind in Kind:
            section = scope.interpolated.get(kind.value)
            if section is not None and kind is not Kind.STAGE:
                found.update((scope.address(kind, name), node.key_place) for name, node in section.map.items())
    for address, draft in drafts.items():
        found[address] = draft.node.key_place
    return found


def _check_top(
    file: File,
    top: Scope,
    settings: EnvironmentModel,
    environment: str,
    resources: Mapping[Address, Resource],
    faults: Faults,
) -> None:
    for url, *path in (
        (file.remote, "remote"),
        (file.registry, "registry"),
        (settings.state, "environments", environment, "state"),
        (settings.registry, "environments", environment, "registry"),
    ):
        node = top.interpolated.get(*[str(key) for key in path])
        if url is not None and node is not None:
            check_url(url, node.place, faults)
    names = top.node.get("env")
    seen: set[str] = set()
    for node in names.items if names is not None else ():
        if node.text in seen:
            faults.add("duplicate-item", node.place, f"`env` lists {node.text} twice.", "Remove one of them.")
        seen.add(node.text or "")
    if not any(_makes_something(each) for each in resources.values()) and not faults.found:
        faults.add(
            "no-stages",
            top.node.place,
            "the file declares no stage, no dataset and no pool elsewhere, so there is nothing to do.",
            "Add for example:\n  stages:\n    train: {cmd: python train.py, outs: [model.joblib]}",
        )


def _makes_something(resource: Resource) -> bool:
    """Whether something follows from it alone: pools of this machine are only places."""
    return isinstance(resource, (Stage, Dataset)) or (
        isinstance(resource, Pool) and resource.target not in ("local", "docker")
    )
