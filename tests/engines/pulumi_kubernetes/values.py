"""Property values: Pulumi's wire form and plain Python, with secrets and what is not known yet kept apart."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWNS = {  # one for each type that the value will have
    "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
    "030794c1-ac77-496b-92df-f27374a8bd58",
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
}

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as it is in JSON; values may be UNKNOWN."""


class Unknown:
    """A value that is known only after apply."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, _memo: object) -> Unknown:
        return self


UNKNOWN = Unknown()


class Secret:
    """A value that Pulumi keeps encrypted."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def decode(struct: Struct) -> Object:
    """What the engine sent; secrets as Secret, unknowns as UNKNOWN, whole numbers as int."""
    return {key: _decode_value(value) for key, value in struct.fields.items()}


def _decode_value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        return UNKNOWN if text in UNKNOWNS else text
    if kind == "struct_value":
        fields = value.struct_value.fields
        if SIGNATURE in fields and fields[SIGNATURE].string_value == SECRET:
            return Secret(_decode_value(fields["value"]))
        return {key: _decode_value(inner) for key, inner in fields.items()}
    if kind == "list_value":
        return [_decode_value(inner) for inner in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    return None


def encode(properties: Object) -> Struct:
    """The wire form; secrets stay secrets."""
    struct = Struct()
    _fill_struct(struct, properties)
    return struct


def _fill_struct(struct: Struct, properties: Object) -> None:
    fields = struct.fields
    for key, value in properties.items():
        _fill_value(fields[key], value)


def _fill_value(target: Value, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        _fill_struct(target.struct_value, value)
    elif isinstance(value, bool):  # before int: a bool is one
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, list):
        target.list_value.SetInParent()
        for inner in value:
            _fill_value(target.list_value.values.add(), inner)
    elif value is UNKNOWN:
        target.string_value = next(iter(sorted(UNKNOWNS)))
    elif isinstance(value, Secret):
        target.struct_value.fields[SIGNATURE].string_value = SECRET
        _fill_value(target.struct_value.fields["value"], value.value)
    else:
        target.null_value = 0


def plain(value: Any) -> Any:
    """A copy with secrets opened; UNKNOWN stays."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def has_unknown(value: Any) -> bool:
    """Whether anything in it is known only after apply."""
    if isinstance(value, dict):
        return any(has_unknown(inner) for inner in value.values())
    if isinstance(value, list):
        return any(has_unknown(inner) for inner in value)
    return value is UNKNOWN


def has_secret(value: Any) -> bool:
    """Whether anything in it is secret."""
    if isinstance(value, dict):
        return any(has_secret(inner) for inner in value.values())
    if isinstance(value, list):
        return any(has_secret(inner) for inner in value)
    return isinstance(value, Secret)


def keep_secrets(target: Object, source: Any) -> None:
    """Make secret in `target`, in place, what is secret in `source`; a list with one secret in it is secret whole."""
    if target.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in target and not isinstance(target[key], Secret):
                target[key] = Secret(target[key])
        return
    for key, value in source.items() if isinstance(source, dict) else ():
        mine = target.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            keep_secrets(mine, value)
        elif key in target and not isinstance(mine, Secret) and has_secret(value):
            target[key] = Secret(mine)
