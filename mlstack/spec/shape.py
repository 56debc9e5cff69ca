"""Building blocks of the models: strictness, names, short forms, and choices between a list and a map.

The models describe the long form. A `Short` on a field says which shorter way is accepted as well: the schema shows it,
and `expand` turns it into the long form before anything is merged or validated.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    Tag,
)
from pydantic import WithJsonSchema as Schema
from pydantic_core import CoreSchema

from mlstack.spec.address import NAME
from mlstack.spec.node import Node
from mlstack.spec.quantity import (
    Limit,
    WrongError,
    found_word,
    read_cores,
    read_duration,
    read_limit,
    read_memory,
)

_NAME = re.compile(NAME)
_PREFIXED = re.compile(rf"(?:{NAME}/)?{NAME}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
LONGEST_NAME = 63

A = TypeVar("A")
B = TypeVar("B")


def _free_keys(schema: dict[str, Any]) -> None:
    schema["patternProperties"] = {"^x-": {"description": "Free for your own use, for example for YAML anchors."}}


class Strict(BaseModel):
    """What all models have in common: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, json_schema_extra=_free_keys)


def fingerprinted(**more: Any) -> Any:
    """Return a required field that is part of a stage's fingerprint; the schema marks it."""
    return Field(json_schema_extra={"x-mlstack-fingerprint": True}, **more)


class Short:
    """A shorter way to write a field: a scalar (`of`) that stands for a map with it under `keys`."""

    def __init__(self, *keys: str, of: type, schema: dict[str, Any], word: str | None = None) -> None:
        self.keys = keys
        self.of = of
        self.schema = schema
        self.word = word

    def expand(self, node: Node) -> Node:
        """Return the long form if `node` is the short one, otherwise `node`."""
        value = node.value
        if not isinstance(value, self.of) or (isinstance(value, bool) and self.of is not bool):
            return node
        if self.word is not None:
            meant = value == self.word
            return node.with_value({self.word: node.with_value(meant)}) if meant else node
        if not self.keys:
            return node.with_value([node.with_key(None)])
        return node.with_value(dict.fromkeys(self.keys, node))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Show the short form beside the long one."""
        return {"anyOf": [self.schema, handler(core)]}


def _list_or_map(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else "<map>" if isinstance(value, dict) else None


def _text_or_map(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<map>" if isinstance(value, dict) else None


def _value_or_map(value: Any) -> str:
    return "<map>" if isinstance(value, dict) else "<value>"


def _matching(pattern: re.Pattern[str], what: str, example: str, *, joint: str = "-") -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or (pattern.fullmatch(value) and len(value) <= LONGEST_NAME):
            return value
        if not value:
            raise WrongError(f"{what} cannot be empty.", "Write a name.", "invalid-name")
        if len(value) > LONGEST_NAME:
            detail = f"{what} has at most {LONGEST_NAME} characters; this one has {len(value)}."
            raise WrongError(detail, "Shorten it.", "invalid-name")
        near = re.sub(r"\W+", joint, value, flags=re.ASCII).replace("-", joint).strip(joint)
        near = f"_{near}" if near[:1].isdigit() else near
        hint = f"Write for example {near}." if pattern.fullmatch(near) else "Write for example my_name."
        raise WrongError(f'"{value}" is not {what}: {example}', hint, "invalid-name")

    return check


_LETTERS = "letters, digits, _ and -, beginning with a letter or _."

Name = Annotated[
    str,
    BeforeValidator(_matching(_NAME, "a name", _LETTERS)),
    Schema({"type": "string", "pattern": f"^{NAME}$", "maxLength": LONGEST_NAME}),
]
PatchName = Annotated[
    str,
    BeforeValidator(_matching(_PREFIXED, "a name", _LETTERS)),
    Schema({"type": "string", "pattern": f"^({NAME}/)?{NAME}$"}),
]
Variable = Annotated[
    str,
    BeforeValidator(
        _matching(
            _VARIABLE,
            "the name of an environment variable",
            "letters, digits and _, not beginning with a digit.",
            joint="_",
        )
    ),
    Schema({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}),
]
Parameter = Annotated[
    str,
    BeforeValidator(_matching(_PARAMETER, "the name of a parameter", _LETTERS)),
    Schema({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"}),
]


def _not_blank(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise WrongError("the text is empty.", "Write the value, or remove the key.")
    return value


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (list, dict)):
        raise WrongError(f"expected a text, a number, true or false; found {found_word(value)}.")
    return value


ListOrMap = Annotated[
    Annotated[list[A], Tag("<list>")] | Annotated[dict[Name, B], Tag("<map>")], Discriminator(_list_or_map)
]
"""`ListOrMap[A, B]`: a list of A, or a map from names to B."""

TextOrMap = Annotated[Annotated[A, Tag("<text>")] | Annotated[B, Tag("<map>")], Discriminator(_text_or_map)]
"""`TextOrMap[A, B]`: a text A, or a map B."""

ValueOrMap = Annotated[Annotated[A, Tag("<value>")] | Annotated[B, Tag("<map>")], Discriminator(_value_or_map)]
"""`ValueOrMap[A, B]`: a scalar A, or a map B."""

_AMOUNT: list[dict[str, Any]] = [{"type": "integer", "minimum": 1}]
Text = Annotated[str, BeforeValidator(_not_blank), Schema({"type": "string", "minLength": 1})]
Cores = Annotated[
    float,
    BeforeValidator(read_cores),
    Schema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?m?$"}]}
    ),
]
Memory = Annotated[
    int,
    BeforeValidator(read_memory),
    Schema({"anyOf": [*_AMOUNT, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"}]}),
]
Duration = Annotated[
    float, BeforeValidator(read_duration), Schema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(s|m|h|d)$"})
]
RetryLimit = Annotated[
    Limit,
    PlainValidator(read_limit),
    Schema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(s|m|h|d)$"}]}
    ),
]
OneValue = Annotated[Any, BeforeValidator(_scalar), Schema({"type": ["string", "number", "boolean"]})]
