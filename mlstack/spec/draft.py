"""What is known of a stage before its inputs are looked up: its instance, its tree and its outputs."""

from typing import Any

import msgspec

from mlstack.spec.address import Address, Kind
from mlstack.spec.expand import expand
from mlstack.spec.faults import Faults
from mlstack.spec.file_stage import MetricModel, OutModel, PlotModel, StageModel
from mlstack.spec.interpolate import Interpolator
from mlstack.spec.matrix import Combination, combinations, instance_of
from mlstack.spec.node import Node
from mlstack.spec.paths import check_made, normalise
from mlstack.spec.scope import Scope
from mlstack.spec.spec import Out
from mlstack.spec.validate import validate

_PLOT_SETTINGS = ("template", "x", "y", "x_label", "y_label", "title", "header")
_ROLES = {"outs": "out", "metrics": "metric", "plots": "plot"}


class Made(msgspec.Struct, frozen=True):
    """An output and where it is written down."""

    out: Out
    node: Node


class Draft(msgspec.Struct, frozen=True):
    """One stage, or one instance of a matrix stage."""

    address: Address
    name: str
    scope: Scope
    node: Node
    model: StageModel
    made: tuple[Made, ...]
    combination: Combination


def draft_stages(scope: Scope, interpolator: Interpolator, faults: Faults) -> list[Draft]:
    """Return the sound stages of a scope, matrix stages as their instances."""
    found = []
    models = (scope.model.stages if scope.model is not None else None) or {}
    for name, model in models.items():
        if model.matrix is not None and scope.is_broken(Kind.STAGE, name):
            continue  # its first instance has faults, which were reported
        if model.matrix is None:
            node = scope.interpolated.get("stages", name)
            if node is not None:
                found.append(_draft(scope, name, node, model, {}, faults))
        else:
            found.extend(_instances(scope, name, interpolator, faults))
    return found


def matrix_of(scope: Scope, name: str, interpolator: Interpolator, faults: Faults) -> list[Combination]:
    """Return the combinations of a stage's matrix."""
    matrix = scope.node.get("stages", name, "matrix")
    if matrix is None or not isinstance(matrix.value, dict):
        return []
    return combinations(interpolator.tree(matrix, params=scope.params.values), stage=name, faults=faults)


def instantiate(scope: Scope, node: Node, combination: Combination, interpolator: Interpolator) -> Node:
    """Return the tree of one instance, with values instead of expressions."""
    filled = interpolator.resource(node.without("matrix"), params=scope.params.values, matrix=combination)
    matrix = node.get("matrix")
    if matrix is not None:
        filled = filled.including(matrix=interpolator.tree(matrix, params=scope.params.values))
    return expand(filled, StageModel)


def _instances(scope: Scope, name: str, interpolator: Interpolator, faults: Faults) -> list[Draft]:
    written = scope.node.get("stages", name)
    found: list[Draft] = []
    if written is None:
        return found
    for combination in matrix_of(scope, name, interpolator, faults):
        node = instantiate(scope, written, combination, interpolator)
        model, _ = validate(node, StageModel, faults, at=("stages", name), unresolved=bool(faults.found))
        if model is None:
            scope.broken.add((Kind.STAGE.value, name))
        else:
            found.append(_draft(scope, name, node, model, combination, faults))
    return found


def _draft(scope: Scope, name: str, node: Node, model: StageModel, combination: Combination, faults: Faults) -> Draft:
    instance = instance_of(combination) if combination else ""
    made = []
    for key in _ROLES:
        section = getattr(model, key)
        if isinstance(section, list):
            entries: list[tuple[str | None, Any, str | int]] = [(None, each, at) for at, each in enumerate(section)]
        else:
            entries = [(label, each, label) for label, each in (section or {}).items()]
        for label, entry, at in entries:
            tree = node.get(key)
            item = node if tree is None else tree.items[at] if isinstance(at, int) else tree.map[at]
            out = _out(key, label, entry, item, scope, faults)
            if out is not None:
                made.append(Made(out, item))
    made.sort(key=lambda each: (each.out.role, each.out.path))
    return Draft(scope.address(Kind.STAGE, name, instance), name, scope, node, model, tuple(made), combination)


def _out(
    key: str, label: str | None, entry: OutModel | MetricModel | PlotModel, item: Node, scope: Scope, faults: Faults
) -> Out | None:
    place = (item.get("path") or item).place
    path = normalise(entry.path, directory=scope.directory, place=place, faults=faults, what="an output")
    if path is None or not check_made(path, place=place, faults=faults, what="an output"):
        return None
    plot = {}
    if isinstance(entry, PlotModel):
        plot = {name: value for name in _PLOT_SETTINGS if (value := getattr(entry, name)) is not None}
    role = _ROLES[key]
    return Out(path=path, role=role, name=label, cache=entry.cache, plot=plot)  # type: ignore[arg-type]


__all__ = ["Draft", "Made", "draft_stages", "instantiate", "matrix_of"]
