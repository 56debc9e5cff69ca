"""Whatever is in the file: the order of maps does not matter, and only `MlstackError` comes out, with a place in it."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlstack.diagnostics import MlstackError
from mlstack.spec.faults import Faults, lines_of
from mlstack.spec.load import load_spec
from mlstack.spec.node import plain
from mlstack.spec.read_yaml import read_yaml
from mlstack.spec.schema import export_schema
from mlstack.spec.spec import Spec
from tests.unit.spec.catalogue import BAD, GOOD, cases

FINE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=FINE)
PARTS = {path.name: path.read_bytes() for path in [*(BAD / "parts").glob("*.*"), *(GOOD / "parts").glob("*.*")]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for name, data in PARTS.items():
        (tmp_path / "parts" / name).write_bytes(data)
    return tmp_path


def outcome(folder: Path, data: bytes, **chosen: str | None) -> Spec | MlstackError:
    """Load; anything but an `MlstackError` whose places lie inside the files fails the test."""
    (folder / "mlstack.yaml").write_bytes(data)
    try:
        return load_spec(folder / "mlstack.yaml", environ={"BUCKET": "b"}, **chosen)  # type: ignore[arg-type]
    except MlstackError as error:
        for fault in error.diagnostics:
            assert fault.position is not None, fault
            text = (folder / fault.position.file).read_bytes().decode("utf-8", "replace")
            lines = lines_of(text)
            assert 1 <= fault.position.line <= len(lines), fault
            assert 1 <= fault.position.column <= len(lines[fault.position.line - 1]) + 2, fault
            assert fault.hint or fault.command, fault
        return error


TEXTS = [path.read_text(encoding="utf-8") for folder in (GOOD, BAD) for path in cases(folder)]
KEYS = sorted(
    {key for each in [export_schema(), *export_schema()["$defs"].values()] for key in each.get("properties", {})}
)
PIECES = ["a", "b", "stages.a", "stages.a.outs.b", "datasets.a", "models.a@v1", "churn/a", "a/b", "..", "/", "x-a"]
PIECES += [
    "${{",
    "${{ params.a }}",
    "${{ matrix.a }}",
    "3d",
    "32Gi",
    "system",
    "env://A",
    "s3://x",
    "local",
    "null",
    "",
    " ",
]
WORDS = st.sampled_from([*KEYS, *PIECES])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.floats(allow_nan=False, width=16)
    | WORDS
    | st.text(max_size=6)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=25,
)


@RELAXED
@given(data=st.binary(max_size=200))
@example(data=b"a: \xf0\x9f\x98\x80\n\t- b")
@example(data=b"a: |\n")
@example(data=b"\xef\xbb\xbf")
@example(data=b"- - - - -\r? [")
@example(data=b"version: 1\nproject:")
def test_any_bytes(folder: Path, data: bytes) -> None:
    outcome(folder, data)


@RELAXED
@given(text=st.sampled_from(TEXTS), at=st.floats(0, 1), removed=st.integers(0, 12), put=WORDS | st.text(max_size=5))
def test_damaged_files(folder: Path, text: str, at: float, removed: int, put: str) -> None:
    start = int(at * len(text))
    damaged = text[:start] + put + text[start + removed :]
    outcome(folder, damaged.encode("utf-8", "surrogatepass"))


@RELAXED
@given(value=st.dictionaries(st.sampled_from(KEYS) | WORDS, VALUES, max_size=8))
def test_any_map(folder: Path, value: dict[str, Any]) -> None:
    file = {"version": 1, "project": "demo", **value}
    outcome(folder, json.dumps(file).encode("utf-8", "replace"))


@settings(RELAXED, max_examples=400)
@given(data=st.data())
def test_any_value_anywhere_in_a_good_file(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(cases(GOOD))))
    value = as_plain(path)
    spot: Any = value
    for _ in range(data.draw(st.integers(1, 5))):
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = data.draw(st.sampled_from(keys))
        below = spot[key]
        if not isinstance(below, (dict, list)) or not below:
            break
        spot = below
        key = data.draw(st.sampled_from(list(spot) if isinstance(spot, dict) else list(range(len(spot)))))
    spot[key] = data.draw(VALUES)
    environment, profile = data.draw(st.sampled_from([None, "prod"])), data.draw(st.sampled_from([None, "quick"]))
    outcome(folder, json.dumps(value).encode("utf-8", "replace"), environment=environment, profile=profile)


@settings(RELAXED, max_examples=80)
@given(data=st.data())
def test_the_order_of_the_file_does_not_matter(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(cases(GOOD))))
    value = as_plain(path)
    shuffled = reordered(value, data)
    with patch.dict("os.environ", {}):
        first = outcome(folder, json.dumps(value).encode())
        second = outcome(folder, json.dumps(shuffled).encode())
    assert isinstance(first, Spec)
    assert isinstance(second, Spec)
    assert comparable(first) == comparable(second)


def as_plain(path: Path) -> dict[str, Any]:
    node = read_yaml(path.read_text(encoding="utf-8"), file="f", faults=Faults())
    assert node is not None
    found: dict[str, Any] = plain(node)
    return found


def reordered(value: Any, data: st.DataObject) -> Any:
    if isinstance(value, dict):
        keys = data.draw(st.permutations(list(value)))
        return {key: reordered(value[key], data) for key in keys}
    if isinstance(value, list):
        return [reordered(each, data) for each in value]
    return value


def comparable(spec: Spec) -> Any:
    """Everything but places and digests; maps compare without order."""
    imports = tuple(msgspec.structs.replace(each, place=None) for each in spec.imports)
    return msgspec.to_builtins(msgspec.structs.replace(spec, declared={}, read_files={}, imports=imports))
