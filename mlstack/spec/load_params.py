"""The parameters of a scope: from the file or inline, with component values, a profile and `--set` laid over."""

from collections.abc import Mapping
from typing import Any

from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.interpolate import Interpolator
from mlstack.spec.node import Node, merge, plain
from mlstack.spec.paths import normalise
from mlstack.spec.scope import Params, Scope, find_key, set_key
from mlstack.spec.sources import Sources


def load_params(
    scope: Scope, laid_over: list[Node], patches: list[Node], interpolator: Interpolator, sources: Sources
) -> None:
    """Set `scope.params`.

    `laid_over` are values that belong to the project (those of a component's entry), and are inline from then on;
    `patches` are tried values (a profile's), which keep where the parameter comes from.
    """
    node = scope.node.get("params")
    faults = sources.faults
    before = len(faults.found)
    file: str | None = None
    values: dict[str, Any] = {}
    if node is not None and isinstance(node.value, str):
        file = normalise(node.value, directory=scope.directory, place=node.place, faults=faults, what="a params file")
        if file is not None:
            values = sources.read_values(file, wanted_at=node.place) or {}
    elif node is not None and isinstance(node.value, dict):
        values = plain(interpolator.tree(node, params=None))
    over: dict[str, Any] = {}
    for each in laid_over:
        if isinstance(each.value, dict):
            over = _merged(over, plain(each))
    values = _merged(values, over)
    for each in patches:
        if isinstance(each.value, dict):
            values = _merged(values, plain(interpolator.tree(each, params=None)))
    scope.params = Params(values, file=file, laid_over=over)
    scope.is_broken_params = len(faults.found) > before or (
        node is not None and not isinstance(node.value, (str, dict))
    )


def override(scopes: Mapping[str, Scope], overrides: Mapping[str, str], faults: Faults) -> None:
    """Put the values of `--set` into the parameters of their scopes; a parameter that does not exist is a fault."""
    for written, text in overrides.items():
        component, _, key = written.rpartition("/")
        scope = scopes.get(component)
        if scope is None:
            known = [name for name in scopes if name]
            detail = f"`--set {written}`: there is no component `{component}`.{suggest(component, known)}"
            faults.add("invalid-override", None, detail, f"Components: {listed(known)}.")
            continue
        if key.startswith("params.") and not find_key(scope.params.values, key)[0]:
            key = key.removeprefix("params.")
        if not key or not scope.params.find(key)[0]:
            if scope.is_broken_params:
                continue
            names = list(scope.params.values)
            near = suggest(key, names)
            detail = f"`--set {written}`: there is no such parameter." + near
            hint = f"Parameters: {listed(names)}." if names else "The file declares no parameters: write params: {…}."
            faults.add("invalid-override", None, detail, hint)
            continue
        value = _value(written, text, faults)
        scope.params.values = set_key(scope.params.values, key, value)
        if find_key(scope.params.laid_over, key)[0]:
            scope.params.laid_over = set_key(scope.params.laid_over, key, value)


def _value(written: str, text: str, faults: Faults) -> Any:
    """Read the value as YAML, so that `8` is a number and `[1, 2]` a list."""
    from mlstack.spec.explain_yaml import check_characters
    from mlstack.spec.read_yaml import read_yaml

    trial = Faults()
    sound = check_characters(text, file="", faults=trial)
    node = read_yaml(text, file="", faults=trial) if sound else None
    if trial.found:
        detail = f"`--set {written}={text[:80]}`: {trial.found[0].detail}"
        faults.add("invalid-override", None, detail, f"Quote it for YAML: --set '{written}=\"…\"'.")
        return None
    return plain(node) if node is not None else ""


def _merged(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a JSON merge patch to plain values."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


__all__ = ["load_params", "merge", "override"]
