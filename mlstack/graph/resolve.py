"""From the spec and the digests of its sources to the desired state. Pure: no file is touched."""

import re
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from posixpath import relpath
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.graph import GENERATED_PARAMS, Hashed, Input, ParamValues, ResourceGraph, StageInputs
from mlstack.graph.images import image_identity, images_of_users, plan_images, runners_of_users
from mlstack.graph.sources import FileDigest, SourceDigests
from mlstack.spec.address import Address, short_name
from mlstack.spec.needs import needs_of
from mlstack.spec.spec import Dataset, Dep, Image, Resource, Spec, Stage

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


def resolve(spec: Spec, sources: SourceDigests) -> ResourceGraph:
    """Return the desired state; the order of the file changes nothing in it but the order of `resources`.

    Raises `MlstackError` when resources need each other in a circle.
    """
    names, datasets = name_entries(spec.of(Stage)), spec.of(Dataset)
    makers = {address: _made_by(resource) for address, resource in spec.resources.items()}
    image_of, runner_of = images_of_users(spec), runners_of_users(spec)
    images = [image_of, runner_of]
    needs = {address: _needs(resource, spec.resources, images) for address, resource in spec.resources.items()}
    return ResourceGraph(
        spec=spec,
        resources=spec.resources,
        needs=needs,
        order=_order(needs),
        stages={
            address: _stage_inputs(stage, names[address], sources, makers, image=_declared_image(stage, spec))
            for address, stage in spec.of(Stage).items()
        },
        datasets={
            address: sources.pins.get(address) if dataset.source is not None else sources.files.get(dataset.path)
            for address, dataset in datasets.items()
            if address not in sources.tracked
        },
        tracked={
            address: digest
            for address in sources.tracked
            if (digest := sources.files.get(datasets[address].path)) is not None
        },
        environments=dict(sources.environments),
        model_code={address: _hashed(paths, sources.files) for address, paths in sources.model_code.items()},
        images=plan_images(spec, sources),
        image_of=image_of,
        runner_of=runner_of,
    )


def name_entries(stages: Mapping[Address, Stage]) -> dict[Address, str]:
    """Return the name of each stage in its `dvc.yaml`: `train`, `train-depth-6-lr-0_1`.

    Unique in its directory: where two addresses would share a name, a plain stage at the top level keeps it and the
    others get a few digits of their address's hash, so that the order of the file does not matter.
    """
    wanted: dict[tuple[str, str], list[Address]] = {}
    for address, stage in stages.items():
        wanted.setdefault((stage.directory, entry_name(address)), []).append(address)
    names: dict[Address, str] = {}
    for (_, name), addresses in wanted.items():
        for address in addresses:
            keeps = len(addresses) == 1 or (short_name(address) == name and "/" not in address)
            names[address] = name if keeps else f"{name}-{_digits(address)}"
    return names


def entry_name(address: Address) -> str:
    """Return the name that a stage has in `dvc.yaml` unless another one of its directory would share it."""
    name = short_name(address)
    if "[" not in name:
        return name
    head, _, instance = name.rstrip("]").partition("[")
    return f"{head}-{_NOT_IN_NAMES.sub('_', instance.replace('=', '-').replace(',', '-'))}"


def _digits(address: Address) -> str:
    from hashlib import sha256

    return sha256(address.encode()).hexdigest()[:8]


def _stage_inputs(
    stage: Stage, name: str, sources: SourceDigests, makers: Mapping[Address, tuple[str, ...]], *, image: Image | None
) -> StageInputs:
    modules = sources.modules.get(stage.address, ())
    inputs: dict[str, Input] = {}
    for dep in stage.deps:
        for each in _inputs_of(dep, sources, makers):
            inputs.setdefault(each.path, each)
    for path in modules:
        inputs.setdefault(path, Input(path=path, digest=sources.files.get(path)))
    return StageInputs(
        address=stage.address,
        entry_name=name,
        directory=stage.directory,
        cmd=stage.cmd,
        deps=tuple(inputs[path] for path in sorted(inputs)),
        params=_params(stage, name, sources, image),
        outs=tuple(sorted(stage.outs, key=lambda out: out.path)),
        modules=modules,
    )


def _inputs_of(dep: Dep, sources: SourceDigests, makers: Mapping[Address, tuple[str, ...]]) -> Iterable[Input]:
    """Return what a dependency stands for in `dvc.yaml`.

    What a producer makes is known by the digest of its whole output, so a path inside an output stands for the output,
    and a folder that holds outputs for all of them.
    """
    if dep.producer is None or dep.producer in sources.tracked:
        return (Input(path=dep.path, digest=sources.files.get(dep.path)),)
    made = makers.get(dep.producer, ())
    if dep.path in made:
        return (Input(path=dep.path, producer=dep.producer),)
    around = [path for path in made if dep.path.startswith(f"{path}/")]
    inside = [path for path in made if path.startswith(f"{dep.path}/")]
    return [Input(path=path, producer=dep.producer) for path in around or inside or [dep.path]]


def _made_by(resource: Resource) -> tuple[str, ...]:
    match resource:
        case Stage():
            return tuple(out.path for out in resource.outs)
        case Dataset():
            return (resource.path,)
    return ()


def _declared_image(stage: Stage, spec: Spec) -> Image | None:
    image = spec.resources.get(stage.image) if stage.image is not None else None
    return image if isinstance(image, Image) else None


def _params(stage: Stage, name: str, sources: SourceDigests, image: Image | None) -> ParamValues:
    """Return params file → dotted key → value, as `dvc.lock` will record them."""
    values: dict[str, dict[str, Any]] = {}
    generated: dict[str, Any] = {}
    for param in stage.params:
        if param.own:
            generated[f"stages.{name}.params.{param.key}"] = param.value
        elif param.file is None:
            generated[f"params.{param.key}"] = param.value
        else:
            values.setdefault(relpath(f"/{param.file}", f"/{stage.directory}"), {})[param.key] = param.value
    # What is put in later stands here as it is written: its value is the hash of a dep, and so in the key already.
    variables = stage.env | {variable: each.source for variable, each in stage.computed.items()}
    if variables:
        generated[f"stages.{name}.env"] = dict(sorted(variables.items()))
    identity = sources.environments.get(stage.address)
    if not stage.python.system and identity is not None:
        generated[f"stages.{name}.python"] = identity.digest
    beside = image_identity(image, sources.images.get(image.address)) if image is not None else {}
    if beside:
        generated[f"stages.{name}.image"] = beside
    if generated:
        values[GENERATED_PARAMS] = generated
    return {file: dict(sorted(keys.items())) for file, keys in sorted(values.items())}


def _needs(
    resource: Resource, resources: Mapping[Address, Resource], images: Sequence[Mapping[Address, Address]]
) -> tuple[Address, ...]:
    """Return what must be done first, sorted: for what runs in a container its images too."""
    first = needs_of(resource) | {each[resource.address] for each in images if resource.address in each}
    return tuple(sorted(address for address in first if address in resources))


def _order(needs: Mapping[Address, tuple[Address, ...]]) -> tuple[Address, ...]:
    """Return a topological order; of those that could come next, the first by name (Kahn's algorithm with a heap)."""
    waiting = {address: len(first) for address, first in needs.items()}
    dependents: dict[Address, list[Address]] = {address: [] for address in needs}
    for address, first in needs.items():
        for each in first:
            dependents[each].append(address)
    ready = [address for address, count in waiting.items() if count == 0]
    heapify(ready)
    order: list[Address] = []
    while ready:
        address = heappop(ready)
        order.append(address)
        for each in dependents[address]:
            waiting[each] -= 1
            if waiting[each] == 0:
                heappush(ready, each)
    if len(order) < len(needs):
        raise MlstackError(_cycle(needs, set(needs) - set(order)))
    return tuple(order)


def _cycle(needs: Mapping[Address, tuple[Address, ...]], left: set[Address]) -> Diagnostic:
    """Return the diagnostic that walks one circle among what is `left`."""
    path = [min(left)]
    while path.count(path[-1]) < 2:
        path.append(min(each for each in needs[path[-1]] if each in left))
    circle = path[path.index(path[-1]) :]
    return Diagnostic(
        code="cycle",
        summary="Resources need each other in a circle",
        detail=" needs ".join(circle) + ".",
        hint="Take one of these dependencies out.",
        address=circle[0],
    )


def _hashed(paths: Iterable[str], files: Mapping[str, FileDigest | None]) -> tuple[Hashed, ...]:
    found = ((path, files.get(path)) for path in sorted(paths))
    return tuple(Hashed(path=path, digest=digest) for path, digest in found if digest is not None)
