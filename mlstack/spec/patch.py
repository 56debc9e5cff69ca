"""Models of patches, derived from the models of what is patched: everything optional, `null` removes.

An environment's patch lacks what is in a fingerprint, so that every environment computes the same.
"""

import types
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata
from pydantic import Field, create_model

from mlstack.spec.shape import Strict

_DERIVED: dict[tuple[type[Strict], str], type[Strict]] = {}
PATCHED: dict[type[Strict], type[Strict]] = {}
"""patch model → the model that it patches."""


def patch_model(
    model: type[Strict],
    prefix: str,
    *,
    fingerprint: bool,
    also: tuple[str, ...] = (),
    never: tuple[str, ...] = (),
) -> Any:
    """Return the model of a patch of `model`.

    Without `fingerprint`, fields that are marked as part of a fingerprint are left out, except those named in `also`;
    `never` names more fields to leave out.
    """
    known = _DERIVED.get((model, prefix))
    if known is not None:
        return known
    hints = get_type_hints(model, include_extras=True)
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        marked = isinstance(info.json_schema_extra, dict) and "x-mlstack-fingerprint" in info.json_schema_extra
        if name in never or (marked and not fingerprint and name not in also):
            continue
        bounds = [each for each in info.metadata if isinstance(each, BaseMetadata)]  # `ge` and the like
        annotation = _patched(hints[name], prefix, fingerprint=fingerprint)
        annotation = Annotated[(annotation, *bounds)] if bounds else annotation
        default = Field(
            None,
            alias=info.alias,
            description=info.description,
            examples=info.examples,
            json_schema_extra=info.json_schema_extra,
        )
        fields[name] = (annotation | None, default)
    name = prefix + model.__name__
    derived = cast("type[Strict]", cast("Any", create_model)(name, __base__=Strict, __doc__=model.__doc__, **fields))
    _DERIVED[model, prefix] = derived
    PATCHED[derived] = model
    return derived


def _patched(annotation: Any, prefix: str, *, fingerprint: bool) -> Any:
    """Return the annotation with every model in it replaced by its patch; lists are replaced whole and stay."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and origin is None:
        if issubclass(annotation, Strict):
            return patch_model(annotation, prefix, fingerprint=fingerprint)
        return annotation
    if origin is Annotated:
        return Annotated[(_patched(arguments[0], prefix, fingerprint=fingerprint), *annotation.__metadata__)]
    if origin is dict:
        value = _patched(arguments[1], prefix, fingerprint=fingerprint)
        return dict[arguments[0], value | None] if value is not arguments[1] else annotation  # type: ignore[valid-type]
    if origin in (Union, types.UnionType):
        return Union[tuple(_patched(each, prefix, fingerprint=fingerprint) for each in arguments)]  # noqa: UP007
    return annotation
