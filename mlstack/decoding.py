"""Plain data into types, from any thread.

msgspec works out what a type consists of when it first meets it, and two threads that do so at the same time crash the
interpreter (0.22.0, seen). So that happens here, under a lock, once for each type: use these functions, and not
`msgspec.json.decode(…, type=…)`, `msgspec.msgpack.decode(…, type=…)` or `msgspec.convert`.
"""

from _thread import allocate_lock  # `threading` costs what no plan with nothing to do has to pay
from typing import Any, TypeVar

import msgspec

Kind = TypeVar("Kind")

_LOCK = allocate_lock()
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}
_PACKED: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def decode(data: bytes | str, kind: type[Kind]) -> Kind:
    """Read JSON as this type. Raises `msgspec.DecodeError`, of which `msgspec.ValidationError` is one."""
    found: Kind = _decoder(kind).decode(data)
    return found


def decode_packed(data: bytes, kind: type[Kind]) -> Kind:
    """Read MessagePack as this type. Raises as `decode` does."""
    decoder = _PACKED.get(kind)
    if decoder is None:
        with _LOCK:
            decoder = _PACKED.setdefault(kind, msgspec.msgpack.Decoder(kind))
    found: Kind = decoder.decode(data)
    return found


def convert(value: Any, kind: type[Kind]) -> Kind:
    """Take plain data as this type. Raises `msgspec.ValidationError`."""
    _decoder(kind)
    return msgspec.convert(value, kind)


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    found = _DECODERS.get(kind)
    if found is None:
        with _LOCK:
            found = _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    return found
