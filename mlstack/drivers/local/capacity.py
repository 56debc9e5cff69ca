"""What a pool of this machine can give and what a stage needs: whether it could ever run here."""

from collections.abc import Sequence

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.local.machine import Gpu, Machine
from mlstack.spec.spec import Endpoint, Pool, Resources, Stage

DEFAULT_CPU = 1.0
"""What a stage is counted with when neither it nor its pool says how many cores it gets."""


def resources_of(user: Stage | Endpoint, pool: Pool) -> dict[str, float]:
    """Return what one run or replica gets, as far as it is said: by the stage or endpoint, else by the pool for each.

    Keys are `cpu` (cores), `memory` (bytes) and `gpu` (devices). A pool with accelerators gives one GPU.
    """
    found: dict[str, float] = {}
    for name in ("cpu", "memory", "gpu"):
        value = getattr(user.resources, name)
        if value is None:
            value = getattr(pool.each, name)
        if value is not None:
            found[name] = float(value)
    if pool.accelerator:
        found.setdefault("gpu", 1.0)
    return found


def need_of(stage: Stage, pool: Pool) -> dict[str, float]:
    """Return what a run of a stage is counted with."""
    return {"cpu": DEFAULT_CPU, "memory": 0.0, "gpu": 0.0} | resources_of(stage, pool)


def capacity_of(pool: Pool, machine: Machine) -> dict[str, float]:
    """Return how much runs of this pool can have together: its limits, and never more than the machine has."""
    has = {"cpu": machine.cores, "memory": float(machine.memory), "gpu": float(len(fitting_gpus(pool, machine)))}
    return {
        name: amount if (limit := _limit(pool.limits, name)) is None else min(amount, limit)
        for name, amount in has.items()
    }


def fitting_gpus(pool: Pool, machine: Machine) -> tuple[Gpu, ...]:
    """Return the GPUs that a pool may use: all, or those of the first of its accelerators that the machine has."""
    if not pool.accelerator:
        return machine.gpus
    return next((found for name in pool.accelerator if (found := _named(name, machine))), ())


def check_capacity(stage: Stage, pool: Pool, machine: Machine) -> tuple[Diagnostic, ...]:
    """Return everything because of which a stage could never run in this pool of this machine."""
    if stage.nodes > 1:
        return (_several_nodes(stage, pool),)
    problems = [*_check_pool(pool, machine), *_check_accelerator(pool, machine)]
    if any(problem.code == "accelerator-missing" for problem in problems):
        return tuple(problems)
    need, capacity = need_of(stage, pool), capacity_of(pool, machine)
    limits = {name: _limit(pool.limits, name) for name in need}
    for name, amount in need.items():
        limit = limits[name]
        if limit is not None and amount > limit:
            problems.append(_exceeds_pool(stage, pool, name, amount, limit))
        elif amount > capacity[name]:
            problems.append(_exceeds_machine(stage, name, amount, machine))
    return tuple(problems)


def describe(machine: Machine) -> str:
    """Return what the machine has, as a sentence says it."""
    names = sorted({gpu.name for gpu in machine.gpus})
    gpus = f"{len(machine.gpus)} GPU{'' if len(machine.gpus) == 1 else 's'} ({', '.join(names)})" if names else "no GPU"
    return f"{amount_text('cpu', machine.cores)}, {amount_text('memory', machine.memory)} and {gpus}"


def amount_text(name: str, amount: float) -> str:
    """Return an amount with its unit: `2 cores`, `15.6 GiB of memory`, `1 GPU`."""
    if name == "memory":
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if amount >= size:
                return f"{amount / size:.1f} {unit} of memory".replace(".0 ", " ")
        return f"{amount:g} bytes of memory"
    word = {"cpu": "core", "gpu": "GPU"}[name]
    return f"{amount:g} {word}{'' if amount == 1 else 's'}"


def _limit(limits: Resources, name: str) -> float | None:
    value = getattr(limits, name)
    return None if value is None else float(value)


def _named(accelerator: str, machine: Machine) -> tuple[Gpu, ...]:
    """Return the GPUs whose model has every word of the name: `nvidia-a100-80gb` is an `NVIDIA A100-SXM4-80GB`."""
    wanted = _words(accelerator)
    return tuple(gpu for gpu in machine.gpus if wanted <= _words(gpu.name))


def _words(name: str) -> frozenset[str]:
    return frozenset("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _check_pool(pool: Pool, machine: Machine) -> Sequence[Diagnostic]:
    has = {"cpu": machine.cores, "memory": machine.memory, "gpu": len(machine.gpus)}
    return [
        Diagnostic(
            code="pool-exceeds-machine",
            summary="The pool asks for more than this machine has",
            detail=f"limits of {pool.address}: {amount_text(name, limit)}; this machine has {describe(machine)}.",
            hint="Lower the limit, or give the pool another target in this environment.",
            address=pool.address,
        )
        for name, amount in has.items()
        if (limit := _limit(pool.limits, name)) is not None and limit > amount
    ]


def _check_accelerator(pool: Pool, machine: Machine) -> Sequence[Diagnostic]:
    if not pool.accelerator or fitting_gpus(pool, machine):
        return []
    return [
        Diagnostic(
            code="accelerator-missing",
            summary="This machine does not have the accelerator of the pool",
            detail=f"{pool.address} wants {' or '.join(pool.accelerator)}; this machine has {describe(machine)}.",
            hint="Run the stage in another pool; it keeps its results when its pool changes.",
            address=pool.address,
        )
    ]


def _several_nodes(stage: Stage, pool: Pool) -> Diagnostic:
    return Diagnostic(
        code="one-node-here",
        summary="A pool of this machine has one node",
        detail=f"{stage.address} wants {stage.nodes} nodes; {pool.address} is this machine.",
        hint="Say `nodes: 1`, or run the stage in a pool on a cluster.",
        address=stage.address,
    )


def _exceeds_pool(stage: Stage, pool: Pool, name: str, amount: float, limit: float) -> Diagnostic:
    return Diagnostic(
        code="stage-exceeds-pool",
        summary="The stage asks for more than its pool has",
        detail=f"It needs {amount_text(name, amount)}; the limit of {pool.address} is {amount_text(name, limit)}.",
        hint=f"Lower resources.{name} of the stage, or raise limits.{name} of the pool.",
        address=stage.address,
    )


def _exceeds_machine(stage: Stage, name: str, amount: float, machine: Machine) -> Diagnostic:
    return Diagnostic(
        code="stage-exceeds-machine",
        summary="The stage asks for more than this machine has",
        detail=f"It needs {amount_text(name, amount)}; this machine has {describe(machine)}.",
        hint=f"Lower resources.{name} of the stage, or run it in another pool; its results stay valid.",
        address=stage.address,
    )
