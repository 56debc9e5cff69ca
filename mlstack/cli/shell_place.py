"""What is in a shell: the stage that it stands for, its variables, its secrets."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlstack.cli.addresses import one_address
from mlstack.cli.console import note
from mlstack.cli.project import Project
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOrder
from mlstack.drivers.registry import pool_of
from mlstack.drivers.secrets import SecretValues, resolve_secrets
from mlstack.render.escape import plain
from mlstack.spec.address import Address
from mlstack.spec.spec import Stage

_OF_ALL_STAGES = {"MLSTACK_PROJECT", "MLSTACK_ENVIRONMENT"}


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The project that the shell is in. `root` is the working tree: secrets in files are found there."""

    project: Project
    root: Path
    at: str = ""


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """The stage whose environment it is; with `shared`, only what all stages have of it. `label` is for a prompt."""

    stage: Stage
    label: str
    shared: bool = False


def find_inside(opened: Opened, words: Sequence[str]) -> Inside:
    """Find the stage that is named, or one that stands for all. Raises `MlstackError` when they are not alike."""
    graph = opened.project.graph
    if words:
        stage = _stage(opened, one_address(words[0], graph.stages))
        return Inside(stage=stage, label=f"{stage.address}{opened.at}")
    stage = msgspec.structs.replace(_any_stage(opened), env={}, secrets={}, outs=(), checkpoint=None)
    return Inside(stage=stage, label=f"{graph.spec.project}{opened.at}", shared=True)


def order_inside(opened: Opened, inside: Inside, *, image: str | None = None) -> RunOrder:
    """Return the order of a run that is never started. Its Python environment is made, unless `image` has it."""
    from mlstack.drivers.hands import LocalHands

    project = opened.project
    hands = LocalHands(project.graph, root=project.root, recording=False, publishing=False)
    order = hands.order(inside.stage, "shell", attempt=1, extra={}, say=lambda line: note(plain(line)), image=image)
    if not inside.shared:
        return order
    shown = {name for name in order.environment if not name.startswith("MLSTACK_")} | _OF_ALL_STAGES
    return msgspec.structs.replace(
        order,
        stage=msgspec.structs.replace(order.stage, directory="."),
        environment={name: value for name, value in order.environment.items() if name in shown},
    )


def secrets_inside(opened: Opened, inside: Inside) -> SecretValues:
    """Find the values of the stage's secrets. Raises `MlstackError` naming those that cannot be had."""
    stage = inside.stage
    return resolve_secrets(stage.secrets, address=stage.address, root=opened.root, environment=os.environ)


def _stage(opened: Opened, address: Address) -> Stage:
    stage = opened.project.graph.resources[address]
    assert isinstance(stage, Stage)  # noqa: S101 - found among the stages
    return stage


def _any_stage(opened: Opened) -> Stage:
    """Return a stage whose environment all of them have. Raises `MlstackError` when there are several environments."""
    graph = opened.project.graph
    found: dict[tuple[str, str, str], Address] = {}
    for address in graph.stages:
        identity = graph.environments.get(address)
        pool = pool_of(_stage(opened, address), graph)
        place = pool.address if pool.target != "local" else ""
        digest = identity.digest if identity is not None else ""
        found.setdefault((place, graph.image_of.get(address, Address("")), digest), address)
    if len(found) != 1:
        listed = ", ".join(found.values())
        raise MlstackError(
            Diagnostic(
                code="which-environment",
                summary="It is not said in which environment",
                detail=f"The stages have {len(found)} environments; one of each: {listed}."
                if found
                else "The project has no stages.",
                hint="Name a stage, as in:" if found else "",
                command=f"mlstack shell {next(iter(found.values()))}" if found else "",
            )
        )
    return _stage(opened, next(iter(found.values())))
