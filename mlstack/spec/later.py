"""Expressions that name what another resource gives, as they are written: `${{ endpoints.quality.url | upper }}`."""

import re
from typing import NamedTuple

from mlstack.diagnostics import Position
from mlstack.spec.address import NAME, Kind
from mlstack.spec.matrix import normal_instance
from mlstack.spec.references import Reference

PLACEHOLDER = "(known after apply)"
"""What stands in the tree, so that the rest of it can be checked. Never in a resource."""

_KINDS = "|".join(kind.value for kind in Kind)
_START = re.compile(rf"(?:(?P<component>{NAME})?(?P<slash>/))?(?P<kind>{_KINDS})\.")
_OUTPUT = re.compile(
    rf"(?:(?P<component>{NAME})?(?P<slash>/))?(?P<kind>{_KINDS})\.(?P<name>{NAME})(?:\[(?P<instance>[^\[\]]+)\])?"
    r"(?P<attribute>(?:\.[^\s|]+)?)\s*(?P<filters>(?:\|.*)?)",
    re.DOTALL,
)
_EXAMPLE = "Write for example ${{ endpoints.NAME.url }}, alone or with filters after it."


class Named(NamedTuple):
    """An output as it is written, not looked up yet. `text` is the reference alone."""

    reference: Reference
    attribute: str
    filters: str
    text: str
    place: Position


def is_later(source: str) -> bool:
    """Whether an expression begins with a resource."""
    return _START.match(source) is not None


def read_later(source: str, *, place: Position, allowed: bool) -> Named:
    """Take such an expression apart. Raises `Refused`, also where the value must be known before apply."""
    from mlstack.spec.expression import Refused, compile_expression

    found = _OUTPUT.fullmatch(source)
    if found is None:
        raise Refused("expression-broken", f"`{source}` is not what a resource gives.", _EXAMPLE)
    filters = found["filters"].strip()
    text = source[: found.start("filters")].strip()
    if not allowed:
        detail = f"`{text}` is known only after apply; what stands here must be known before anything is made."
        hint = "Put it into the `env` of a stage or endpoint, and let the program read the variable."
        raise Refused("expression-known-later", detail, hint)
    if filters and any(each.root != "value" for each in compile_expression(f"value {filters}").references):
        raise Refused("expression-forbidden", "filters of such a value take no other names.", _EXAMPLE)
    component = (found["component"] or "") if found["slash"] else None
    instance = normal_instance(found["instance"] or "")
    reference = Reference(component, Kind(found["kind"]), found["name"], instance, "", "")
    return Named(reference, found["attribute"].removeprefix("."), filters, text, place)
