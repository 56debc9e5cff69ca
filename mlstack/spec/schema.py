"""The JSON Schema of `mlstack.yaml`, for editors: exported from the models and from nothing else.

`python -m mlstack.spec.schema > schemas/mlstack.schema.json` writes the committed file; a test compares the two.
"""

import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from mlstack.spec.file import ComponentFile, File

SCHEMA_ID = "urn:mlstack:schema:1"
_EXPRESSION = {
    "title": "Expression",
    "description": "A value that is put in when the file is read, such as ${{ params.depth }}.",
    "type": "string",
    "pattern": r"^\s*\$\{\{[\s\S]*\}\}\s*$",
}
_AS_WRITTEN = ("version", "project", "required_version", "env", "moved", "components")
_NOT_TEXT = ("integer", "number", "boolean")
_BELOW = ("items", "additionalProperties", "anyOf", "oneOf")


class _Generator(GenerateJsonSchema):
    """Leaves out titles that are made up from names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class names it
        return False


def export_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) with titles, descriptions, examples and short forms.

    Keys that are part of a stage's fingerprint carry `x-mlstack-fingerprint: true`. Wherever a number or a boolean is
    expected, an expression is accepted as well. The file of a component is `#/$defs/ComponentFile`.
    """
    _, exported = models_json_schema([(File, "validation"), (ComponentFile, "validation")], schema_generator=_Generator)
    definitions = {name: _definition(name, each) for name, each in exported["$defs"].items()}
    file = definitions.pop("File")
    for key in _AS_WRITTEN:
        file["properties"][key] = _without_null(exported["$defs"]["File"]["properties"][key])
    definitions["Expression"] = _EXPRESSION
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **file,
        "title": "mlstack.yaml",
        "$defs": dict(sorted(definitions.items())),
    }


def _definition(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a model. In patches, `null` removes; elsewhere what is not there is left out."""
    is_patch = name.startswith(("Environment", "Profile")) and name not in ("EnvironmentModel", "ProfileModel")
    properties = {}
    for key, value in definition.get("properties", {}).items():
        properties[key] = _adjusted(value if is_patch else _without_null(value))
    return {**definition, "properties": properties}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional key: it may be absent, but not empty."""
    schema = {key: value for key, value in schema.items() if key != "default" or value is not None}
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1 and len(schema["anyOf"]) == 2:
        schema.pop("anyOf")
        return {**choices[0], **schema}
    return schema


def _adjusted(schema: Any) -> Any:
    """Return the schema of a value with names closed, and an expression as a choice where it would not be a text."""
    if isinstance(schema, list):
        return [_adjusted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _adjusted(value) if key in _BELOW else value for key, value in schema.items()}
    if schema.get("default", ...) is None:
        del schema["default"]
    if "patternProperties" in schema:
        patterns = {name: _adjusted(value) for name, value in schema["patternProperties"].items()}
        schema |= {"patternProperties": patterns, "additionalProperties": False}
    if schema.get("type") in _NOT_TEXT or ("enum" in schema and "type" in schema):
        kept = {key: schema.pop(key) for key in ("description", "examples", "default") if key in schema}
        return {**kept, "anyOf": [schema, {"$ref": "#/$defs/Expression"}]}
    return schema


def main() -> int:
    """Write the schema to standard output."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(export_schema()), indent=2).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
