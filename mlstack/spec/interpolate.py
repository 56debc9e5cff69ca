"""Puts values into scalars: `${{ … }}` after parsing, one scalar at a time, at the place where it stands.

A scalar that is one expression keeps the type of its value; within other text the value is written as text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlstack.diagnostics import Position
from mlstack.spec.address import Kind
from mlstack.spec.faults import Faults, listed, suggest
from mlstack.spec.later import PLACEHOLDER, Named, is_later, read_later
from mlstack.spec.node import Node, planted

if TYPE_CHECKING:
    from mlstack.spec.expression import Expression, Reference

OPENING = "${{"
_QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
_EXPRESSION = re.compile(rf"\$\{{\{{((?:{_QUOTED}|[^'\"}}]|\}}(?!\}}))*)\}}\}}", re.DOTALL)
_METADATA = frozenset({"description"})
_ROOTS = ("params", "matrix", "env", "project", "environment", "git")
_LOOKED_AHEAD = 400
_FAILED = object()
_MAY_COME_LATER = "env"


class Interpolator:
    """What expressions may use, and which environment variables they did use."""

    def __init__(
        self,
        faults: Faults,
        *,
        project: str,
        environment: str,
        variables: tuple[str, ...],
        environ: Mapping[str, str],
        git: Callable[[], Mapping[str, str]],
    ) -> None:
        self.faults = faults
        self.project = project
        self.environment = environment
        self.variables = variables
        self.environ = environ
        self.git = git
        self.used: set[str] = set()
        self._compiled: dict[str, Any] = {}

    def tree(
        self,
        node: Node,
        *,
        params: Mapping[str, Any] | None,
        matrix: Mapping[str, Any] | None = None,
        metadata: bool = False,
        later: bool = False,
    ) -> Node:
        """Return `node` with every expression in it replaced. Faults are collected, their scalars left as they are.

        With `later`, it may name what other resources give, which is known only after apply.
        """
        value = node.value
        if isinstance(value, dict):
            children = {
                name: self.tree(
                    child, params=params, matrix=matrix, metadata=metadata or name in _METADATA, later=later
                )
                for name, child in value.items()
            }
            same = all(children[name] is child for name, child in value.items())
            return node if same else node.with_value(children)
        if isinstance(value, list):
            items = [self.tree(child, params=params, matrix=matrix, metadata=metadata) for child in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return node if same else node.with_value(items)
        if isinstance(value, str) and OPENING in value:
            return _Scalar(self, node, value, params, matrix, metadata=metadata, later=later).replaced()
        return node

    def resource(
        self, node: Node, *, params: Mapping[str, Any] | None, matrix: Mapping[str, Any] | None = None
    ) -> Node:
        """Return the tree of a stage or endpoint, or of a patch of one, with every expression in it replaced.

        Its variables may name what other resources give.
        """
        variables = node.get(_MAY_COME_LATER)
        if variables is None:
            return self.tree(node, params=params, matrix=matrix)
        rest = self.tree(node.without(_MAY_COME_LATER), params=params, matrix=matrix)
        variables = self.tree(variables, params=params, matrix=matrix, later=True)
        # in the order of the file, which is that of the faults
        return node.with_value({name: variables if name == _MAY_COME_LATER else rest.map[name] for name in node.map})

    def compiled(self, source: str) -> Any:
        """Return the compiled expression or the `Refused` that says why there is none."""
        if source not in self._compiled:
            from mlstack.spec.expression import Refused, compile_expression

            try:
                self._compiled[source] = compile_expression(source)
            except Refused as refused:
                self._compiled[source] = refused
        return self._compiled[source]


class _Scalar:
    def __init__(
        self,
        all_: Interpolator,
        node: Node,
        text: str,
        params: Mapping[str, Any] | None,
        matrix: Mapping[str, Any] | None,
        *,
        metadata: bool,
        later: bool,
    ) -> None:
        self.all = all_
        self.may_be_later = later
        self.node = node
        self.text = text
        self.values: dict[str, Any] = {"project": all_.project}
        self.params = params
        self.matrix = matrix
        self.metadata = metadata
        if params is not None:
            self.values["params"] = {**params, **(matrix or {})}
        if matrix is not None:
            self.values["matrix"] = matrix

    def replaced(self) -> Node:
        from mlstack.spec.expression import text_of

        parts = list(self.parts())
        if any(part is _FAILED for part in parts):
            return self.node
        if any(isinstance(part, Named) for part in parts):
            node = self.node.with_value(PLACEHOLDER)
            node.later = tuple(
                part if isinstance(part, Named) or number % 2 == 0 else text_of(part)
                for number, part in enumerate(parts)
                if part != ""
            )
            return node
        if len(parts) == 3 and not parts[0].strip() and not parts[2].strip():
            return planted(parts[1], self.node.mark, key=self.node.key)
        try:
            texts = (part if number % 2 == 0 else text_of(part) for number, part in enumerate(parts))
            return self.node.with_value("".join(texts))
        except ValueError as error:
            self.fault("expression-failed", self.text, f"{error}.", "Put in less text.")
            return self.node

    def parts(self) -> Iterator[Any]:
        """Yield text and values in turn; `_FAILED` for a value that is not to be had."""
        from mlstack.spec.expression import Refused

        at = 0
        while (start := self.text.find(OPENING, at)) >= 0:
            found = _EXPRESSION.match(self.text, start)
            if found is None:
                hint = "Close it with }}, or write ${{ '${{' }} for the characters themselves."
                self.fault("expression-broken", OPENING, "a `${{` has no `}}` after it.", hint)
                yield _FAILED
                return
            yield self.text[at:start]
            at = found.end()
            try:
                yield self.value(found[1].strip(), written=found[0])
            except Refused as refused:
                self.fault(refused.code, found[0], refused.detail, refused.hint)
                yield _FAILED
        yield self.text[at:]

    def value(self, source: str, *, written: str) -> Any:
        from mlstack.spec.expression import Refused

        if is_later(source):
            return read_later(source, place=self.place_of(written), allowed=self.may_be_later)
        expression: Expression | Refused = self.all.compiled(source)
        if isinstance(expression, Refused):
            raise expression
        for reference in expression.references:
            self.check(reference)
        return expression.evaluate(self.values)

    def check(self, reference: "Reference") -> None:
        from mlstack.spec.expression import Refused

        root, keys = reference.root, reference.keys
        if root == "env":
            self.take_variable(reference)
        elif root in ("git", "environment"):
            self.take_volatile(root)
        elif root == "matrix" and self.matrix is None:
            hint = "Add `matrix: {…}` to the stage, or use `params`."
            raise Refused("expression-undefined", "`matrix` is known only inside a stage that has a `matrix`.", hint)
        elif root == "params" and self.params is None:
            hint = "Use `env` or `project`, or write the value."
            raise Refused("expression-undefined", "parameters cannot refer to other parameters.", hint)
        elif root not in _ROOTS:
            self.unknown_root(root)
        if not reference.optional and root in self.values:
            self.walk(root, keys)

    def walk(self, root: str, keys: tuple[str, ...]) -> None:
        from mlstack.spec.expression import Refused

        value, name = self.values[root], root
        for key in keys:
            if not isinstance(value, Mapping):
                detail = f"`{name}` is a value and has no key `{key}`."
                raise Refused("expression-undefined", detail, f"Write ${{{{ {name} }}}}.")
            if key not in value:
                near = suggest(key, value)
                detail = f"`{name}` has no key `{key}`." + near
                hint = f"Known: {listed(value, none='none')}."
                if root == "params" and not value:
                    hint = "Declare it under `params:`."
                raise Refused("expression-undefined", detail, hint)
            value, name = value[key], f"{name}.{key}"

    def take_variable(self, reference: "Reference") -> None:
        from mlstack.spec.expression import Refused

        if len(reference.keys) != 1:
            raise Refused("expression-broken", "`env` is used as `env.NAME`.", "Name the variable: ${{ env.HOME }}.")
        name = reference.keys[0]
        if name not in self.all.variables:
            near = suggest(name, self.all.variables)
            detail = f"`env.{name}` is not among the names under the top-level `env:`."
            hint = near.strip() or f"Add it in mlstack.yaml: env: [{', '.join((*self.all.variables, name))}]"
            raise Refused("variable-not-listed", detail, hint)
        self.all.used.add(name)
        if name in self.all.environ:
            self.values.setdefault("env", {})[name] = self.all.environ[name]
        elif reference.optional:
            self.values.setdefault("env", {})
        else:
            hint = f"Set it (export {name}=…), or give a default: ${{{{ env.{name} | default('…') }}}}."
            raise Refused("variable-missing", f"the environment variable {name} is not set.", hint)

    def take_volatile(self, root: str) -> None:
        from mlstack.spec.expression import Refused

        if not self.metadata:
            why = "every commit" if root == "git" else "every environment"
            detail = f"`{root}` may stand only in a `description`: here {why} would compute everything anew."
            hint = "Leave it out; plan and history record commit and environment anyway."
            if root == "environment":
                hint = "Say what differs between environments under `environments:`."
            raise Refused("expression-volatile", detail, hint)
        self.values[root] = self.all.environment if root == "environment" else self.all.git()

    def unknown_root(self, root: str) -> None:
        from mlstack.spec.expression import Refused

        if root in {kind.value for kind in Kind}:
            detail = f"what `{root}` gives is known only after apply; nothing can be computed with it."
            hint = f"Let it stand alone, with filters at most: ${{{{ {root}.NAME.… }}}}."
            raise Refused("expression-known-later", detail, hint)
        if self.params is not None and root in self.params:
            near = f' Did you mean "params.{root}"?'
        elif self.matrix is not None and root in self.matrix:
            near = f' Did you mean "matrix.{root}"?'
        else:
            near = suggest(root, _ROOTS)
        detail = f"there is nothing called `{root}`." + near
        raise Refused(
            "expression-undefined", detail, f"Known: {listed(_ROOTS[:4])}; in a description also git and environment."
        )

    def fault(self, code: str, text: str, detail: str, hint: str = "") -> None:
        self.all.faults.add(code, self.place_of(text), detail, hint)

    def place_of(self, text: str) -> Position:
        """Return where `text` stands in the source, looking ahead from the start of the scalar."""
        mark = self.node.mark
        lines = self.all.faults.texts.get(mark.file, [])
        if "\n" not in text:
            for number in range(mark.line - 1, min(mark.line - 1 + _LOOKED_AHEAD, len(lines))):
                start = lines[number].find(text, mark.column - 1 if number == mark.line - 1 else 0)
                if start >= 0:
                    return Position(mark.file, number + 1, start + 1, start + 1 + len(text))
        return self.node.place
