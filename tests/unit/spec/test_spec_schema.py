"""The committed schema is what the models export, and says what it promises."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec

from mlstack.spec.file import EnvironmentModel, File
from mlstack.spec.patch import PATCHED
from mlstack.spec.schema import export_schema

ROOT = Path(__file__).parents[3]
SCHEMA = export_schema()


def test_the_committed_schema_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, "-m", "mlstack.spec.schema"], capture_output=True, check=True, cwd=ROOT)
    committed = (ROOT / "schemas" / "mlstack.schema.json").read_bytes()
    assert made.stdout == committed, "run: python -m mlstack.spec.schema > schemas/mlstack.schema.json"
    assert msgspec.json.decode(committed) == SCHEMA


def test_it_is_a_schema_with_a_name() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")
    assert SCHEMA["$id"]
    assert SCHEMA["title"] == "mlstack.yaml"
    assert SCHEMA["required"] == ["version", "project"]


def test_every_key_is_described() -> None:
    for name, definition in [("File", SCHEMA), *SCHEMA["$defs"].items()]:
        for key, value in definition.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key}"


def test_fingerprinted_keys_are_marked_and_no_environment_has_them() -> None:
    marked = {
        key for key, value in SCHEMA["$defs"]["StageModel"]["properties"].items() if value.get("x-mlstack-fingerprint")
    }
    assert marked == {"cmd", "deps", "params", "env", "outs", "metrics", "plots", "python", "matrix", "image"}
    patch = SCHEMA["$defs"]["EnvironmentStageModel"]["properties"]
    assert marked & set(patch) == {"env"}  # only references to secrets, which are not in the fingerprint
    assert set(SCHEMA["$defs"]["ProfileStageModel"]["properties"]) == set(SCHEMA["$defs"]["StageModel"]["properties"])


def test_patches_require_nothing_and_know_what_they_patch() -> None:
    for name, definition in SCHEMA["$defs"].items():
        if name.startswith(("Environment", "Profile")):
            assert not definition.get("required"), name
    assert PATCHED[EnvironmentModel] is File


def accepts(value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(value))


def file(**more: Any) -> dict[str, Any]:
    return {"version": 1, "project": "demo", **more}


def test_short_and_long_forms() -> None:
    good: list[dict[str, Any]] = [
        {"cmd": "x", "outs": ["a"]},
        {"cmd": "x", "outs": {"a": "a"}},
        {"cmd": "x", "outs": {"a": {"path": "a", "cache": False}}},
        {"cmd": "x", "outs": [{"path": "a"}], "retry": 3, "timeout": "3d", "python": "system", "checkpoint": "c"},
        {"cmd": "x", "nodes": "${{ params.n }}", "always": "${{ params.a }}", "x-note": [1]},
        {"cmd": "x", "params": ["a", {"f.yaml": ["b"]}], "matrix": {"d": [1, "a", True], "exclude": [{"d": 1}]}},
    ]
    for stage in good:
        assert accepts(file(stages={"a": stage})), stage
    bad: list[dict[str, Any]] = [
        {"cmd": 1},
        {"outs": ["a"]},
        {"cmd": "x", "out": []},
        {"cmd": "x", "nodes": 0},
        {"cmd": "x", "outs": "a"},
    ]
    for stage in bad:
        assert not accepts(file(stages={"a": stage})), stage
    assert not accepts(file(stages={"a b": {"cmd": "x"}}))
    assert not accepts({"version": 2, "project": "demo"})


def test_null_removes_in_a_patch_only() -> None:
    endpoints = {"web": {"model": "models.m"}}
    assert accepts(file(endpoints=endpoints, environments={"dev": {"endpoints": {"web": None}}}))
    assert accepts(file(endpoints=endpoints, environments={"dev": {"endpoints": {"web": {"port": None}}}}))
    assert not accepts(file(endpoints={"web": None}))


def test_a_component_file_has_a_definition() -> None:
    schema = {"$ref": "#/$defs/ComponentFile", "$defs": SCHEMA["$defs"]}
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"stages": {"fit": {"cmd": "x", "outs": ["a"]}}})
    assert not validator.is_valid({"compute": {}})
