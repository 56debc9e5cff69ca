"""Fills values in, holds a scope's tree against its model, and keeps what is sound of it.

What has a fault is cut out as finely as possible, so that the rest is still checked in the same go.
"""

from collections.abc import Iterator, Mapping

from mlstack.diagnostics import Position
from mlstack.spec.draft import instantiate, matrix_of
from mlstack.spec.expand import expand
from mlstack.spec.faults import Faults
from mlstack.spec.file import ComponentFile, File
from mlstack.spec.interpolate import OPENING, Interpolator
from mlstack.spec.node import Node, planted
from mlstack.spec.scope import SECTIONS, Scope
from mlstack.spec.validate import Path, validate

FORMAT_VERSION = 1
AS_WRITTEN = ("version", "project", "required_version", "env", "components", "moved")
"""Keys that are read before expressions are."""

_NAMED = (*SECTIONS, "components", "environments", "profiles", "targets")
_TRIALS = 3


class Filler:
    """Fills scopes. A fault that was reported at a place before is not reported there again."""

    def __init__(self, interpolator: Interpolator, faults: Faults, scopes: Mapping[str, Scope]) -> None:
        self.interpolator = interpolator
        self.faults = faults
        self.scopes = scopes
        self.reported: set[tuple[str, Position | None]] = set()

    def fill(self, scope: Scope) -> None:
        """Set `interpolated`, `model` and `broken` of a scope."""
        model: type[File | ComponentFile] = ComponentFile if scope.name else File
        scope.broken = set()
        tree = expand(self._filled(scope), model)
        bad: set[Path] = set(_unresolved(tree, ())) if self.faults.found else set()
        trial = Faults()
        trial.texts = self.faults.texts
        found, refused = validate(tree, model, trial, unresolved=bool(self.faults.found))
        self._report(trial)
        bad |= refused
        scope.broken |= {tuple(map(str, path[: 2 if path and path[0] in _NAMED else 1])) for path in bad}
        for depth in range(_TRIALS, 0, -1):
            if found is not None and not bad:
                break
            tree = _without(tree, bad, depth)
            tree = _completed(tree) if model is File else tree
            found, bad = validate(tree, model, Faults())
        scope.interpolated, scope.model = tree, found

    def _report(self, trial: Faults) -> None:
        """Take over what was found, but not what patches carry to a second place."""
        fresh = [each for each in trial.found if (each.code, each.position) not in self.reported]
        self.reported.update((each.code, each.position) for each in fresh)
        for each in fresh:
            self.faults.add(each.code, each.position, each.detail, each.hint)

    def _filled(self, scope: Scope) -> Node:
        params = scope.params.values
        filled: dict[str, Node] = {}
        for key, node in scope.node.map.items():
            if key in AS_WRITTEN or key == "params":
                filled[key] = node
            elif key == "stages" and node.map:
                filled[key] = node.with_value(dict(self._stages(scope, node)))
            elif key == "endpoints" and node.map:
                filled[key] = node.with_value(
                    {name: self.interpolator.resource(each, params=params) for name, each in node.map.items()}
                )
            elif key in ("environments", "profiles"):
                filled[key] = node.with_value({name: self._patch(scope, each) for name, each in node.map.items()})
                filled[key] = filled[key] if node.map else node
            else:
                filled[key] = self.interpolator.tree(node, params=params)
        return scope.node.with_value(filled)

    def _stages(self, scope: Scope, section: Node) -> Iterator[tuple[str, Node]]:
        for name, node in section.map.items():
            matrix = node.get("matrix")
            if matrix is None or not isinstance(matrix.value, dict):
                yield name, self.interpolator.resource(node, params=scope.params.values)
                continue
            found = matrix_of(scope, name, self.interpolator, self.faults)
            if found:
                yield name, instantiate(scope, node, found[0], self.interpolator)
            else:
                scope.broken.add(("stages", name))

    def _patch(self, scope: Scope, patch: Node) -> Node:
        """Fill in an environment or profile as it is written, to find its faults."""
        if not isinstance(patch.value, dict):
            return patch
        filled = {}
        for key, node in patch.value.items():
            if key in ("images", "datasets", "stages", "models", "endpoints") and node.map:
                filled[key] = node.with_value(
                    {name: self._resource(key, name, each) for name, each in node.map.items()}
                )
            elif key in ("params", "components"):
                filled[key] = node
            else:
                filled[key] = self.interpolator.tree(node, params=scope.params.values)
        return patch.with_value(filled)

    def _resource(self, section: str, name: str, patch: Node) -> Node:
        """Fill in the patch of one resource with the parameters of the component that it belongs to."""
        component, _, own_name = name.rpartition("/")
        home = self.scopes.get(component)
        if home is None:
            return patch  # an unknown component, which is reported when the patch is laid over
        found = matrix_of(home, own_name, self.interpolator, self.faults) if section == "stages" else []
        put_in = self.interpolator.resource if section in ("stages", "endpoints") else self.interpolator.tree
        return put_in(patch, params=home.params.values, matrix=found[0] if found else None)


def _unresolved(node: Node, path: Path) -> Iterator[Path]:
    """Yield the paths of scalars whose expression failed: the fault was reported, the value is unknown."""
    if path and path[0] in (*AS_WRITTEN, "params"):
        return
    if isinstance(node.value, dict):
        for name, child in node.value.items():
            yield from _unresolved(child, (*path, name))
    elif isinstance(node.value, list):
        for number, child in enumerate(node.value):
            yield from _unresolved(child, (*path, number))
    elif isinstance(node.value, str) and OPENING in node.value:
        yield path


def _without(node: Node, bad: set[Path], depth: int) -> Node:
    """Return the tree without what is bad: at most `depth` keys deep, and a stage always keeps a command."""
    for path in sorted(bad, key=str):
        keys = [str(step) for step in path]
        wanted = depth if keys[:1] == ["stages"] else 2
        node = _cut(node, keys[: wanted if keys and keys[0] in _NAMED else 1])
        if keys[:1] == ["stages"] and keys[2:] == ["cmd"] and depth > 2 and (stage := node.get(*keys[:2])) is not None:
            node = _put(node, keys[:2], stage.including(cmd=planted("…", stage.mark)))
    return node


def _completed(node: Node) -> Node:
    """Return the tree with what every file needs, so that the rest can be checked."""
    for key, value in (("version", FORMAT_VERSION), ("project", "unnamed")):
        if key not in node.map:
            node = node.including(**{key: planted(value, node.mark)})
    return node


def _cut(node: Node, keys: list[str]) -> Node:
    if not keys or keys[0] not in node.map:
        return node
    if len(keys) == 1:
        return node.without(keys[0])
    return node.including(**{keys[0]: _cut(node.map[keys[0]], keys[1:])})


def _put(node: Node, keys: list[str], value: Node) -> Node:
    if not keys:
        return value
    return node.including(**{keys[0]: _put(node.map[keys[0]], keys[1:], value)})
