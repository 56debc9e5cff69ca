"""The canonical form of inputs: what says the same is written the same, so that it is no difference.

The real provider reads inputs of Kubernetes' own kinds into Kubernetes' own types and writes them out again. That drops
fields that do not exist and those that say nothing, and rewrites quantities. `types.json` knows the types; it was made
by `types/main.go`.
"""

from __future__ import annotations

import base64
import json
from fractions import Fraction
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from tests.engines.pulumi_kubernetes.objects import cut_to_shape
from tests.engines.pulumi_kubernetes.values import Object, has_unknown

READ_ONLY = {
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
}


def normalized(obj: Object) -> Object:
    """Return the object in its canonical form, without what only the server may write."""
    if not has_unknown(obj):
        obj = _secret(obj) if is_secret(obj) else cut_to_shape(_retyped(obj), obj)
    meta = obj.get("metadata")
    if isinstance(meta, dict) and meta.keys() & READ_ONLY:
        return {**obj, "metadata": {key: value for key, value in meta.items() if key not in READ_ONLY}}
    return obj


def _retyped(obj: Object) -> Object:
    version, kind = obj.get("apiVersion"), obj.get("kind")
    known = _known()
    name = known["kinds"].get(f"{version} {kind}")
    if name is None:
        return obj
    try:
        return {"apiVersion": version, "kind": kind, **_struct(obj, known["types"][name])}
    except _MismatchError:  # the API server will say what is wrong with it
        return obj


@cache
def _known() -> dict[str, dict[str, Any]]:
    """The types of Kubernetes: fields by name; `?` before a type: left out when empty, `[`: list of, `{`: map of."""
    known: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("types.json").read_bytes())
    return known


class _MismatchError(Exception):
    """A value of another type than the field has."""


def _struct(value: Any, fields: dict[str, str]) -> Object:
    if not isinstance(value, dict):
        raise _MismatchError
    found = {}
    for key, type_ in fields.items():
        if value.get(key) is None:
            continue
        typed = _typed(value[key], type_.removeprefix("?"))
        if not type_.startswith("?") or typed not in ("", 0, [], {}):  # False is 0
            found[key] = typed
    return found


def _typed(value: Any, type_: str) -> Any:
    if type_.startswith("["):
        if not isinstance(value, list):
            raise _MismatchError
        return [_typed(inner, type_[1:]) for inner in value]
    if type_.startswith("{"):
        if not isinstance(value, dict):
            raise _MismatchError
        return {key: _typed(inner, type_[1:]) for key, inner in value.items()}
    if fields := _known()["types"].get(type_):
        return _struct(value, fields)
    if type_ == "quantity":
        return quantity(value)
    plain = {"string": str, "bool": bool, "int": int, "float": int | float}.get(type_)
    if plain and (not isinstance(value, plain) or (type_ in ("int", "float") and isinstance(value, bool))):
        raise _MismatchError
    return value


def is_secret(obj: Object) -> bool:
    """Whether it is a Secret of Kubernetes."""
    return (obj.get("apiVersion"), obj.get("kind")) == ("v1", "Secret")


def _secret(obj: Object) -> Object:
    """A Secret with its `stringData` moved to `data`, as the API server does it."""
    given, data = obj.get("stringData"), obj.get("data")
    if not given:
        return obj
    moved = {**(data or {}), **{key: base64.b64encode(text.encode()).decode() for key, text in given.items()}}
    return {**{key: value for key, value in obj.items() if key != "stringData"}, "data": moved}


# ---------------------------------------------------------------------------------------------------------- quantities

_BINARY = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(value: Any) -> str:
    """A quantity as Kubernetes writes it: in the largest unit in which it is whole, such as `1Mi` for `1024Ki`."""
    text = str(value).strip()
    for suffix, factor in _BINARY.items():
        if text.endswith(suffix):
            return _binary(_number(text.removesuffix(suffix)) * factor)
    suffix = text[-1:] if text[-1:] in _DECIMAL else ""
    amount = _number(text.removesuffix(suffix)) * Fraction(10) ** _DECIMAL[suffix]
    return _decimal(amount, scientific="e" in text.lower()[:-1])


def _number(text: str) -> Fraction:
    try:
        return Fraction(text)
    except ValueError:
        raise _MismatchError from None


def _binary(amount: Fraction) -> str:
    if abs(amount) < 1024 or amount.denominator != 1:
        return _decimal(amount, scientific=False)
    for suffix, factor in reversed(_BINARY.items()):
        if amount % factor == 0:
            return f"{amount // factor}{suffix}"
    return str(amount)


def _decimal(amount: Fraction, *, scientific: bool) -> str:
    nano = ceil(amount * 10**9)  # nothing smaller can be said
    for suffix, exponent in reversed(_DECIMAL.items()):
        unit = 10 ** (exponent + 9)
        if nano and nano % unit == 0:
            return f"{nano // unit}e{exponent}" if scientific and exponent > 0 else f"{nano // unit}{suffix}"
    return "0"
