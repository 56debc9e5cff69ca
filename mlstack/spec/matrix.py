"""Matrix stages: all combinations of the values, each an instance of its own."""

import re
from itertools import product
from typing import Any

from mlstack.spec.faults import Faults
from mlstack.spec.node import Node, plain

MOST_INSTANCES = 10_000
_SAFE = re.compile(r"[A-Za-z0-9._+/:@ -]+")

Combination = dict[str, Any]


def combinations(matrix: Node, *, stage: str, faults: Faults) -> list[Combination]:
    """Return the combinations, keys sorted, in the order of the values; faults are collected.

    `exclude` takes away the combinations that agree with one of its items, `include` adds whole ones.
    """
    axes = {name: node for name, node in matrix.map.items() if name not in ("include", "exclude")}
    if not axes:
        detail = f"the matrix of stages.{stage} has no values."
        faults.add("matrix", matrix.key_place, detail, "Write for example: matrix: {depth: [4, 6]}")
        return []
    sound = [_check_axis(name, node, stage, faults) for name, node in axes.items()]  # all of them, for all faults
    if not all(sound):
        return []
    names = sorted(axes)
    count = 1
    for node in axes.values():
        count *= len(node.items)
    if count > MOST_INSTANCES:
        detail = f"the matrix of stages.{stage} has {count:,} combinations; at most {MOST_INSTANCES:,} are allowed."
        faults.add("matrix", matrix.key_place, detail, "Take fewer values.")
        return []
    found = [dict(zip(names, values, strict=True)) for values in product(*(plain(axes[name]) for name in names))]
    excluded = _listed(matrix, "exclude", names, stage, faults, whole=False)
    found = [each for each in found if not any(item.items() <= each.items() for item in excluded)]
    for item in _listed(matrix, "include", names, stage, faults, whole=True):
        if item not in found:
            found.append({name: item[name] for name in names})
    if not found:
        faults.add(
            "matrix", matrix.key_place, f"the matrix of stages.{stage} excludes every combination.", "Exclude less."
        )
    return found


def instance_of(combination: Combination) -> str:
    """Return the combination as addresses write it: `depth=6,lr=0.1`."""
    return ",".join(f"{name}={value_text(value)}" for name, value in sorted(combination.items()))


def value_text(value: Any) -> str:
    """Return a matrix value as it stands in an address."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def normal_instance(text: str) -> str:
    """Return the text of an instance with its keys sorted, so that references may name them in any order."""
    return ",".join(sorted(part.strip() for part in text.split(",")))


def _check_axis(name: str, node: Node, stage: str, faults: Faults) -> bool:
    where = f"`stages.{stage}.matrix.{name}`"
    if not node.items:
        faults.add("matrix", node.key_place, f"{where} needs at least one value.", f"Write for example: {name}: [1, 2]")
        return False
    seen: set[str] = set()
    sound = True
    for item in node.items:
        text = value_text(item.value)
        if isinstance(item.value, (dict, list)) or item.value is None or not _SAFE.fullmatch(text):
            detail = f"{where}: values are numbers, true, false, or short texts of letters, digits and ._+/:@-."
            faults.add("matrix", item.place, detail, "Use a short name and look the value up in your code.")
            sound = False
        elif text in seen:
            faults.add("matrix", item.place, f"{where} has the value {text} twice.", "Remove one of them.")
            sound = False
        seen.add(text)
    return sound


def _listed(matrix: Node, key: str, names: list[str], stage: str, faults: Faults, *, whole: bool) -> list[Combination]:
    node = matrix.get(key)
    found = []
    for item in node.items if node is not None else []:
        if not isinstance(item.value, dict) or not item.value:
            detail = f"`stages.{stage}.matrix.{key}` lists maps such as {{{names[0]}: …}}."
            faults.add("matrix", item.place, detail, "Write one map for each combination.")
            continue
        values = plain(item)
        unknown = [name for name in values if name not in names]
        missing = [name for name in names if name not in values] if whole else []
        if unknown or missing:
            words = f"does not know {unknown[0]}" if unknown else f"lacks {missing[0]}"
            detail = f"an item of `stages.{stage}.matrix.{key}` {words}; the matrix has {', '.join(names)}."
            faults.add("matrix", item.place, detail, "Use the names of the matrix.")
        else:
            found.append(values)
    return found
