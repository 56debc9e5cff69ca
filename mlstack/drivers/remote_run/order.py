"""Writing the order of a run elsewhere."""

from collections.abc import Collection, Mapping
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.local.stage_environment import own_variables
from mlstack.drivers.local.start_run import grace_of
from mlstack.drivers.remote_run.ignored import with_rules
from mlstack.drivers.remote_run.remote import explained
from mlstack.graph.graph import EntryKey, Hashed, ResourceGraph, fingerprint
from mlstack.runner.layout import RunKeys, blob_key, run_prefix
from mlstack.runner.order import Checkpoint, Input, Order, Remote, encode_order
from mlstack.runner.side_by_side import side_by_side
from mlstack.runner.store import Store
from mlstack.spec.address import Address, slug
from mlstack.spec.spec import Dataset, Stage

_PLACE = Path("/the/project/folder/there")  # stands for a folder that only the runner knows; never leaves this module


def build_order(
    stage: Stage,
    graph: ResourceGraph,
    key: EntryKey,
    *,
    root: Path,
    remote: Remote,
    bundle: str,
    resources: Mapping[str, float],
    executable: Collection[str] = (),
) -> Order:
    """Return the order of one run: inputs by the hashes of `key`, outputs, variables, limits.

    `resources` are those of `build_stage_environment`, `bundle` is the bundle's name, `executable` names
    inputs that are executable files. What a run needs besides (user,
    `again`) is set with `dataclasses.replace`. Raises `MlstackError` for a dataset in a mode that runs elsewhere lack.
    """
    variables = own_variables(stage, graph, root=_PLACE, resources=resources, attempt=1)
    del variables["MLSTACK_ATTEMPT"]  # the runner's to say
    inside = {name: value for name, value in variables.items() if value.startswith(f"{_PLACE}/")}
    _refuse_modes(stage, graph)
    name = fingerprint(key)
    held = held_inputs(stage, graph, root=root)
    return Order(
        address=stage.address,
        fingerprint=name,
        run=run_prefix(slug(stage.address), name),
        remote=remote,
        bundle=bundle,
        commands=tuple(line for line in stage.cmd.splitlines() if line.strip()),
        directory=stage.directory,
        inputs=tuple(_input(dep, root, held=dep.path in held, executable=dep.path in executable) for dep in key.deps),
        outs=tuple(with_rules(root, out.path) for out in sorted(stage.outs, key=lambda out: out.path)),
        env={**stage.env, **{name: value for name, value in variables.items() if name not in inside}},
        paths={name: str(Path(value).relative_to(_PLACE)) for name, value in inside.items()},
        secrets=tuple(sorted(stage.secrets)),
        grace=grace_of(stage),
        run_timeout=stage.timeout.run,
        hang_timeout=stage.timeout.hang,
        checkpoint=Checkpoint(path=stage.checkpoint.path) if stage.checkpoint is not None else None,
        nodes=stage.nodes,
    )


def held_inputs(stage: Stage, graph: ResourceGraph, *, root: Path) -> frozenset[str]:
    """Return the inputs of a stage that travel by hash: outputs of stages, and datasets that DVC holds.

    An output that Git keeps (a metric) goes with the code if it is there.
    """
    kept_in_git = {out.path for other in graph.spec.of(Stage).values() for out in other.outs if not out.cache}
    found = set()
    for dep in graph.stages[stage.address].deps:
        producer = graph.resources.get(dep.producer) if dep.producer is not None else None
        if isinstance(producer, Stage) and not (dep.path in kept_in_git and (root / dep.path).exists()):
            found.add(dep.path)
        if isinstance(producer, Dataset) and producer.address in graph.datasets:
            found.add(dep.path)
    return frozenset(found)


def submit_order(order: Order, store: Store, *, address: Address) -> str:
    """Put the order into the remote and return its URL, which goes into the container's MLSTACK_ORDER.

    Raises `MlstackError` naming the inputs that the remote lacks: a run would find it out minutes later.
    """
    with explained():
        held = [each for each in order.inputs if each.held]
        sizes = side_by_side(lambda each: store.size(blob_key(each.md5)), held)
        absent = [each for each, size in zip(held, sizes, strict=True) if size is None]
        if absent:
            raise MlstackError(*(_absent(each, address) for each in absent))
        key = RunKeys(order.run).order
        store.put(key, encode_order(order))
    return f"{store.url.rstrip('/')}/{key}"


def plain_inputs(stage: Stage, graph: ResourceGraph, *, root: Path) -> tuple[str, ...]:
    """Return the inputs of a stage that travel with the code: what a bundle for it has to hold."""
    held = held_inputs(stage, graph, root=root)
    return tuple(dep.path for dep in graph.stages[stage.address].deps if dep.path not in held)


def _input(dep: Hashed, root: Path, *, held: bool, executable: bool) -> Input:
    rules = with_rules(root, dep.path) if dep.digest.is_folder and not held else None
    return Input(
        path=dep.path,
        md5=dep.digest.md5,
        size=dep.digest.size,
        held=held,
        executable=executable,
        ignore=rules.ignore if rules is not None else (),
        ignore_prefix=rules.ignore_prefix if rules is not None else "",
    )


def _refuse_modes(stage: Stage, graph: ResourceGraph) -> None:
    problems = []
    for dep in stage.deps:
        producer = graph.resources.get(dep.producer) if dep.producer is not None else None
        if isinstance(producer, Dataset) and producer.mode != "copy":
            problems.append(
                Diagnostic(
                    code="mode-not-for-runs",
                    summary="Runs elsewhere get their data as a copy",
                    detail=f"{stage.address} uses {producer.address}, which has `mode: {producer.mode}`.",
                    hint="Write `mode: copy`, or leave it out.",
                    address=producer.address,
                )
            )
    if problems:
        raise MlstackError(*problems)


def _absent(each: Input, address: Address) -> Diagnostic:
    return Diagnostic(
        code="input-not-in-remote",
        summary="The remote lacks an input of a run elsewhere",
        detail=f"{each.path} ({each.md5}) is not in the remote, and a container has nothing else to take it from.",
        hint="Push it from the machine that has it, then apply again.",
        command="mlstack push",
        address=address,
    )
