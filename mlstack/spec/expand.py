"""Short forms → long forms, driven by the models; `x-` keys are dropped on the way.

Done before anything is merged, so that a patch means the same whichever form it is written in.
"""

import types
from functools import cache
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from mlstack.spec.node import Node
from mlstack.spec.shape import Short, Strict


class Shape(NamedTuple):
    """What an annotation says about the form of a value. Exactly one of the parts is set for anything but a leaf."""

    short: Short | None = None
    model: type[Strict] | None = None
    values: "Shape | None" = None
    items: "Shape | None" = None


_LEAF = Shape()


def expand(node: Node, model: type[Strict]) -> Node:
    """Return `node`, which is to be a `model`, with every short form in it written out."""
    return _expand(node, Shape(model=model))


@cache
def fields_of(model: type[Strict]) -> dict[str, Shape]:
    """Return the shape of each key of a model, as it is written in the file."""
    hints = get_type_hints(model, include_extras=True)
    return {info.alias or name: shape_of(hints[name]) for name, info in model.model_fields.items()}


def shape_of(annotation: Any) -> Shape:
    """Return the shape of an annotation; choices between a list and a map have both."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        shape = shape_of(arguments[0])
        short = next((each for each in annotation.__metadata__ if isinstance(each, Short)), None)
        return shape._replace(short=short) if short is not None else shape
    if origin in (Union, types.UnionType):
        merged = _LEAF
        for each in arguments:
            part = shape_of(each)
            merged = Shape(
                merged.short or part.short,
                merged.model or part.model,
                merged.values or part.values,
                merged.items or part.items,
            )
        return merged
    if origin is dict:
        return Shape(values=shape_of(arguments[1]))
    if origin is list:
        return Shape(items=shape_of(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return Shape(model=annotation)
    return _LEAF


def _expand(node: Node, shape: Shape) -> Node:
    if shape.short is not None:
        node = shape.short.expand(node)
    value = node.value
    if isinstance(value, dict):
        if shape.model is not None:
            return _expand_model(node, value, shape.model)
        if shape.values is not None:
            inner = shape.values
            return node.with_value({name: _expand(child, inner) for name, child in value.items()})
    elif isinstance(value, list) and shape.items is not None and shape.items != _LEAF:
        inner = shape.items
        return node.with_value([_expand(child, inner) for child in value])
    return node


def _expand_model(node: Node, entries: dict[str, Node], model: type[Strict]) -> Node:
    fields = fields_of(model)
    expanded = {}
    for name, child in entries.items():
        shape = fields.get(name)
        if shape is not None:
            expanded[name] = _expand(child, shape) if shape != _LEAF else child
        elif not name.startswith("x-"):
            expanded[name] = child
    # one model is short for variants with one of them; both together is a fault that is reported later
    if "variants" in fields and "model" in fields and "model" in expanded and "variants" not in expanded:
        written = expanded.pop("model")
        if written.value is not None:
            main = written.with_value({"model": written})
            expanded["variants"] = written.with_value({"main": main})
    return node.with_value(expanded)
