"""Tensors of the Open Inference Protocol v2 (REST, JSON): checked on the way in, written on the way out.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Data may be flat (row-major) or nested as the shape says. Checks run at C speed (`map`, `min`, `max`), so a request of a
million numbers is not slowed down by them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from .faults import RequestError

INTEGER_RANGES: dict[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
FLOAT_LIMITS: dict[str, float] = {"FP16": 65504.0, "FP32": 3.4028234663852886e38, "FP64": math.inf}
DATATYPES: tuple[str, ...] = ("BOOL", *INTEGER_RANGES, *FLOAT_LIMITS, "BYTES")

NUMPY_NAMES: dict[str, str] = {
    "BOOL": "bool",
    **{name: name.lower() for name in INTEGER_RANGES},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
_DATATYPE_OF_NUMPY = {numpy: name for name, numpy in NUMPY_NAMES.items() if name != "BYTES"}


@dataclass(frozen=True)
class Tensor:
    """One named tensor; `data` is flat, in row-major order. Missing values (None) are only in it where allowed."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def decode_tensor(raw: Any, *, place: str, allow_missing: bool = False) -> Tensor:
    """Check one tensor of a request.

    `place` names it in messages ("inputs[0]"). With `allow_missing`, null in a floating-point tensor is kept as None.

    Raises:
        RequestError: with status 400, saying what is wrong.
    """
    if not isinstance(raw, dict):
        raise RequestError(f"{place} must be an object with name, shape, datatype and data.")
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(f"{place} has no name.")
    datatype = raw.get("datatype")
    if datatype not in DATATYPES:
        raise RequestError(f'Input "{name}": unknown datatype {datatype!r}; known are {", ".join(DATATYPES)}.')
    shape = _shape(raw.get("shape"), name=name)
    if "data" not in raw:
        raise RequestError(f'Input "{name}" has no data (binary tensors are not supported; send JSON).')
    parameters = raw.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(f'Input "{name}": parameters must be an object.')
    data = _flatten(raw["data"], shape=shape, name=name)
    _check_values(data, datatype=datatype, name=name, allow_missing=allow_missing)
    return Tensor(name=name, datatype=datatype, shape=shape, data=data, parameters=parameters)


def _shape(raw: Any, *, name: str) -> tuple[int, ...]:
    if not isinstance(raw, list) or any(type(size) is not int or size < 0 for size in raw):
        raise RequestError(f'Input "{name}": shape must be a list of whole numbers, each 0 or more.')
    return tuple(raw)


def _flatten(raw: Any, *, shape: tuple[int, ...], name: str) -> list[Any]:
    if not isinstance(raw, list):
        raise RequestError(f'Input "{name}": data must be a list.')
    flat, sizes = raw, [len(raw)]
    while flat and type(flat[0]) is list:
        if set(map(type, flat)) != {list} or len(set(map(len, flat))) != 1:
            raise RequestError(f'Input "{name}": the nested lists of data are not all of one length.')
        sizes.append(len(flat[0]))
        flat = list(chain.from_iterable(flat))
    count = math.prod(shape)
    if len(flat) != count:
        raise RequestError(f'Input "{name}": shape {list(shape)} means {count} values, but data has {len(flat)}.')
    if len(sizes) > 1 and tuple(sizes) != shape:
        raise RequestError(f'Input "{name}": data is nested as {sizes}, but shape says {list(shape)}.')
    return flat


def _check_values(data: list[Any], *, datatype: str, name: str, allow_missing: bool) -> None:
    kinds = set(map(type, data))
    if type(None) in kinds:
        if not (allow_missing and datatype in FLOAT_LIMITS):
            raise RequestError(f'Input "{name}" has missing values (null), which this model does not accept.')
        kinds.discard(type(None))
        data = [value for value in data if value is not None]
    allowed = _allowed_types(datatype)
    if not kinds <= allowed:
        found = _describe(next(value for value in data if type(value) not in allowed))
        raise RequestError(f'Input "{name}": {found} is not a value of datatype {datatype}.')
    if not data:
        return
    if datatype in INTEGER_RANGES:
        low, high = INTEGER_RANGES[datatype]
        worst = max(data) if max(data) > high else min(data)
        if not low <= worst <= high:
            raise RequestError(f'Input "{name}": {worst} does not fit into {datatype} ({low} to {high}).')
    elif datatype in FLOAT_LIMITS:
        _check_floats(data, datatype=datatype, name=name)


def _check_floats(data: list[Any], *, datatype: str, name: str) -> None:
    try:
        finite = all(map(math.isfinite, data))
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if not finite:
        raise RequestError(f'Input "{name}" has a value that is infinite or not a number.')
    limit = FLOAT_LIMITS[datatype]
    worst = max((max(data), -min(data)))
    if worst > limit:
        raise RequestError(f'Input "{name}": {worst} does not fit into {datatype}.')


def _allowed_types(datatype: str) -> set[type]:
    if datatype == "BOOL":
        return {bool}
    if datatype == "BYTES":
        return {str}
    return {int} if datatype in INTEGER_RANGES else {int, float}


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return "a nested " + ("list" if isinstance(value, list) else "object")
    return str(value)


def to_numpy(tensor: Tensor) -> Any:
    """Return the tensor as a numpy array of its datatype and shape; missing values become NaN."""
    import numpy as np

    return np.array(tensor.data, dtype=NUMPY_NAMES[tensor.datatype]).reshape(tensor.shape)


def to_lists(tensor: Tensor) -> Any:
    """Return the tensor as lists nested as its shape says."""
    nested: list[Any] = tensor.data
    for size in reversed(tensor.shape[1:]):
        nested = [nested[start : start + size] for start in range(0, len(nested), size)] if size else []
    return nested


def encode_tensor(name: str, value: Any) -> dict[str, Any]:
    """Write what a model returned (a numpy array, a list, a pandas object or one value) as a v2 output tensor.

    Raises:
        ValueError: if the value is not a tensor, or JSON cannot hold it (NaN, infinity).
    """
    if hasattr(value, "to_numpy"):  # pandas, polars
        value = value.to_numpy()
    if hasattr(value, "dtype") and hasattr(value, "reshape"):
        shape = list(value.shape) or [1]
        flat = value.reshape(-1).tolist()
        datatype = _DATATYPE_OF_NUMPY.get(getattr(value.dtype, "name", "")) or _datatype_of_values(flat, name=name)
    else:
        shape, flat = _measure(value)
        datatype = _datatype_of_values(flat, name=name)
    if datatype == "BYTES":
        flat = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in flat]
    elif datatype in FLOAT_LIMITS and not all(map(math.isfinite, flat)):
        raise ValueError(f'output "{name}" has a value that JSON cannot hold (NaN or infinity)')
    return {"name": name, "datatype": datatype, "shape": shape, "data": flat}


def _measure(value: Any) -> tuple[list[int], list[Any]]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return [1], [_plain(value)]
    flat: list[Any] = list(value)
    shape = [len(flat)]
    while flat and isinstance(flat[0], Sequence) and not isinstance(flat[0], (str, bytes)):
        if any(isinstance(row, (str, bytes)) or not isinstance(row, Sequence) for row in flat) or (
            len(set(map(len, flat))) != 1
        ):
            raise ValueError("the model returned nested lists that are not all of one length")
        shape.append(len(flat[0]))
        flat = list(chain.from_iterable(flat))
    return shape, list(map(_plain, flat))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value


def _datatype_of_values(flat: list[Any], *, name: str) -> str:
    kinds = set(map(type, flat))
    if kinds <= {bool}:
        return "BOOL" if flat else "FP64"
    if kinds <= {int}:
        return "INT64" if min(flat) >= -(2**63) and max(flat) < 2**63 else "BYTES"
    if kinds <= {int, float}:
        return "FP64"
    if kinds <= {str, bytes}:
        return "BYTES"
    words = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ValueError(f'output "{name}" holds values of type {words}, which are not one datatype of the protocol')
