"""One `${{ … }}`: Jinja2 in its immutable sandbox, cut down to what cannot hang, eat memory or reach anything.

Allowed are literals, names, attributes, arithmetic, comparison, conditions and a few filters. Functions, methods,
powers and repetition are not, so that the cost of an expression is bounded by its length; results are bounded as well.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.environment import TemplateExpression
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_EXPRESSION = 500
LONGEST_RESULT = 65_536
_DEEPEST = 30
_MOST_BITS = 4096
_FAILURES = (ArithmeticError, TypeError, ValueError, LookupError, AttributeError, TemplateError, RecursionError)
_ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.CondExpr,
    nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
    nodes.Keyword,
)  # fmt: skip
_TESTS = ("defined", "undefined", "none", "string", "number", "boolean", "mapping", "even", "odd", "in", "eq", "ne")


class Refused(Exception):  # noqa: N818 - not an error of ours: the expression is refused
    """An expression that is not taken: which fault, what is wrong and what to do."""

    def __init__(self, code: str, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint


class Reference(NamedTuple):
    """A name that an expression uses, with the constant keys after it: `params.model.depth`."""

    root: str
    keys: tuple[str, ...]
    optional: bool


class Expression(NamedTuple):
    """A compiled expression and the names that it uses."""

    source: str
    references: tuple[Reference, ...]
    template: TemplateExpression

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the plain value. Raises `Refused`."""
        try:
            return _plain(self.template(**values))
        except _FAILURES as error:
            reason = str(error).strip() or type(error).__name__
            hint = "Correct the expression, or move the logic into your code and hand it a parameter."
            raise Refused("expression-failed", f"`{self.source}` fails: {reason.rstrip('.')}.", hint) from None


def compile_expression(source: str) -> Expression:
    """Return the compiled expression. Raises `Refused` if it cannot be read or uses what is not allowed."""
    if len(source) > LONGEST_EXPRESSION:
        detail = f"the expression has {len(source)} characters; at most {LONGEST_EXPRESSION} are allowed."
        raise Refused("expression-forbidden", detail, "Move the logic into your code and hand it a parameter.")
    try:
        parser = Parser(_ENVIRONMENT, source, state="variable")
        tree = parser.parse_expression()
        if not parser.stream.eos:
            hint = "Remove the rest, or put an operator or a filter between."
            raise Refused("expression-broken", f"`{source}` is complete before `{parser.stream.current.value}`.", hint)
        _check(tree, 0)
        references = tuple(_references(tree, optional=False))
        tree = _without_concat(tree)
        tree.set_environment(_ENVIRONMENT)
        body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), tree, lineno=1)]
        template = _ENVIRONMENT.from_string(nodes.Template(body, lineno=1))
    except TemplateError as error:
        reason = (error.message or "").replace("'end of template'", "end of the expression").rstrip(".")
        detail = f"`{source}` cannot be read" + (f": {reason}." if reason else ".")
        hint = "Write for example ${{ params.depth }} or ${{ params.name | lower }}."
        raise Refused("expression-broken", detail, hint) from None
    except (RecursionError, MemoryError, SyntaxError):
        raise Refused("expression-forbidden", "the expression is nested too deep.", "Write it simpler.") from None
    return Expression(source, references, TemplateExpression(template, undefined_to_none=False))


def _check(node: nodes.Node, depth: int) -> None:
    if depth > _DEEPEST:
        raise Refused(
            "expression-forbidden", f"the expression is nested more than {_DEEPEST} deep.", "Write it simpler."
        )
    if isinstance(node, nodes.Call):
        hint = f"Use a filter, as in ${{{{ params.name | lower }}}}: {', '.join(sorted(_FILTERS))}."
        raise Refused("expression-forbidden", "functions and methods cannot be called.", hint)
    if isinstance(node, nodes.Pow):
        raise Refused("expression-forbidden", "`**` is not allowed: it can take for ever.", "Compute it in your code.")
    if not isinstance(node, _ALLOWED):
        detail = f"{type(node).__name__} is not allowed in an expression."
        raise Refused("expression-forbidden", detail, "Use names, keys, arithmetic, conditions and filters.")
    for child in node.iter_child_nodes():
        _check(child, depth + 1)


def _references(node: nodes.Node, *, optional: bool) -> Iterator[Reference]:
    if isinstance(node, nodes.Filter):
        if node.name not in _FILTERS:
            raise Refused(
                "expression-forbidden", f"there is no filter `{node.name}`.", f"Filters: {', '.join(sorted(_FILTERS))}."
            )
        optional = node.name == "default"
    elif isinstance(node, nodes.Test):
        if node.name not in _TESTS:
            raise Refused("expression-forbidden", f"there is no test `{node.name}`.", f"Tests: {', '.join(_TESTS)}.")
        optional = node.name in ("defined", "undefined")
    chain = _chain(node)
    if chain is not None:
        yield Reference(chain[0], tuple(chain[1:]), optional)
        return
    for child in node.iter_child_nodes():
        yield from _references(child, optional=optional)


def _chain(node: nodes.Node) -> list[str] | None:
    """Return `[root, key, …]` for a name with constant keys after it."""
    if isinstance(node, nodes.Name):
        return [node.name]
    if isinstance(node, nodes.Getattr):
        before = _chain(node.node)
        return [*before, node.attr] if before is not None else None
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        before = _chain(node.node)
        return [*before, node.arg.value] if before is not None else None
    return None


def _without_concat(node: nodes.Expr) -> nodes.Expr:
    """Return the tree with `a ~ b` as a join, whose size is checked."""
    for name in node.fields:
        child = getattr(node, name)
        if isinstance(child, nodes.Expr):
            setattr(node, name, _without_concat(child))
        elif isinstance(child, list):
            setattr(node, name, [_without_concat(each) if isinstance(each, nodes.Expr) else each for each in child])
    if isinstance(node, nodes.Concat):
        return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None)
    return node


def _plain(value: Any) -> Any:
    """Return `value` if it is what YAML could have held."""
    match value:
        case None | bool():
            return value
        case str():
            return _bounded(str(value))
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if value - value == 0:
            return value
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, StrictUndefined):
        str(value)  # raises, saying which name it is
    if isinstance(value, (int, float)):
        raise OverflowError("the number is out of range")
    raise TypeError("the result is not a text, a number, a list or a map")


def _bounded(text: str) -> str:
    if len(text) > LONGEST_RESULT:
        raise ValueError(f"the text gets longer than {LONGEST_RESULT} characters")
    return text


class _Environment(ImmutableSandboxedEnvironment):
    """Keys of maps are the only attributes; operators take numbers, and `+` also texts and lists."""

    intercepted_binops = frozenset({"*", "+", "-", "/", "//", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, (Mapping, list, tuple, str)):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(each, (int, float)) for each in (left, right))
        if numbers:
            _refuse_huge(left, right)
        elif operator == "+" and isinstance(left, (str, list)) and type(left) is type(right):
            if len(left) + len(right) > LONGEST_RESULT:
                raise ValueError("the result gets too long")
        else:
            raise TypeError(f"`{operator}` works on numbers, and `+` also on two texts or two lists")
        return super().call_binop(context, operator, left, right)


def _refuse_huge(*numbers: float) -> None:
    if sum(number.bit_length() for number in numbers if isinstance(number, int)) > _MOST_BITS:
        raise ValueError("a number gets too large")


def _replace(text: Any, old: str, new: str) -> str:
    text = str(text)
    if len(text) + text.count(old) * len(new) > LONGEST_RESULT:
        raise ValueError("the text gets too long")
    return str(text.replace(old, new))


def _join(items: Any, separator: str = "") -> str:
    if isinstance(items, (str, Mapping)):
        raise TypeError("`join` works on a list")
    words = [_string(each) for each in items]
    if sum(map(len, words)) + len(separator) * len(words) > LONGEST_RESULT:
        raise ValueError("the text gets too long")
    return separator.join(words)


def _string(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, tuple, dict)):
        return _json(value)
    return _bounded(str(value))


def _json(value: Any) -> str:
    return _bounded(json.dumps(_plain(value), ensure_ascii=False))


def _round(number: float, digits: int = 0) -> float:
    if abs(digits) > 15:
        raise ValueError("`round` takes at most 15 digits")
    return round(number, digits) if digits else round(number)


_FILTERS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "default": FILTERS["default"],
    "first": lambda items: items[0],
    "float": float,
    "int": int,
    "join": _join,
    "last": lambda items: items[-1],
    "length": len,
    "lower": lambda text: _string(text).lower(),
    "max": max,
    "min": min,
    "replace": _replace,
    "round": _round,
    "sort": sorted,
    "string": _string,
    "tojson": _json,
    "trim": lambda text: _string(text).strip(),
    "upper": lambda text: _string(text).upper(),
}


def _make_environment() -> _Environment:
    # without the optimizer: it would compute constant parts while compiling, before any bound applies
    environment = _Environment(undefined=StrictUndefined, optimized=False, autoescape=False, cache_size=0)
    environment.globals.clear()
    environment.filters = dict(_FILTERS)
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


_ENVIRONMENT = _make_environment()
text_of = _string
