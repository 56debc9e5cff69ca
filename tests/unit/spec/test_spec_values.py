"""Quantities, durations, plain scalars of YAML 1.2, and expressions with their bounds."""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from mlstack.diagnostics import MlstackError
from mlstack.spec.expression import Refused, compile_expression
from mlstack.spec.faults import Faults
from mlstack.spec.interpolate import Interpolator
from mlstack.spec.node import Mark, Node, plain
from mlstack.spec.quantity import Limit, WrongError, read_cores, read_duration, read_limit, read_memory
from mlstack.spec.read_yaml import read_yaml
from mlstack.spec.scalar import OutOfRangeError, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("true", True), ("True", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ("nUll", "nUll"),
        ("1", 1), ("-1", -1), ("+1", 1), ("010", 10), ("0o10", 8), ("0x1F", 31), ("1_000", "1_000"), ("1e-3", 0.001),
        ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("1.5", 1.5), ("-", "-"), (".", "."), ("1.2.3", "1.2.3"),
        ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("0b1", "0b1"), ("-0x1", "-0x1"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    found = read_scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", [".inf", "-.inf", ".NaN", "1e999", "9223372036854775808", "9" * 10_000, "0xffffffffffffffffff"]
)
def test_numbers_out_of_range(text: str) -> None:
    with pytest.raises(OutOfRangeError):
        read_scalar(text)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7200), ("3d", 259200), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "value", ["", "5", 5, "5 m", "5w", "-5s", "0s", "1h30m", True, None, [], "\u0661s", "3651d", "9e9s"]
)
def test_durations_that_are_none(value: object) -> None:
    with pytest.raises(WrongError):
        read_duration(value)


@pytest.mark.parametrize(
    ("value", "size"), [("32Gi", 32 * 1024**3), ("500M", 500_000_000), ("1.5Ki", 1536), (7, 7), ("8", 8), ("2k", 2000)]
)
def test_memory(value: object, size: int) -> None:
    assert read_memory(value) == size


@pytest.mark.parametrize("value", ["", "32GB", "32g", "-1Gi", 0, -5, 1.5, True, None, "1e3", "9" * 30 + "Pi"])
def test_memory_that_is_none(value: object) -> None:
    with pytest.raises(WrongError):
        read_memory(value)


@pytest.mark.parametrize(("value", "cores"), [(8, 8.0), (0.5, 0.5), ("500m", 0.5), ("2", 2.0)])
def test_cores(value: object, cores: float) -> None:
    assert read_cores(value) == cores


@pytest.mark.parametrize("value", [0, -1, "0m", "two", True, None, "1 core"])
def test_cores_that_are_none(value: object) -> None:
    with pytest.raises(WrongError):
        read_cores(value)


def test_limits() -> None:
    assert read_limit(3) == Limit(count=3, window=None)
    assert read_limit("6h") == Limit(count=None, window=21600.0)
    with pytest.raises(WrongError):
        read_limit(-1)


# ---------------------------------------------------------------------------------------------------- expressions


def filled(text: str, params: Mapping[str, Any] | None = None, **env: str) -> Any:
    faults = Faults()
    interpolator = Interpolator(
        faults, project="demo", environment="local", variables=tuple(env), environ=env, git=dict
    )
    node = interpolator.tree(Node(text, Mark("f", 1, 1), raw=text), params=params or {})
    faults.raise_all()
    return plain(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${{ params.n }}", 3),
        ("  ${{ params.n }} ", 3),
        ("${{params.n}}${{params.n}}", "33"),
        ("n=${{ params.n }}", "n=3"),
        ("${{ params.f }}", 0.5),
        ("${{ params.list }}", [1, 2]),
        ("${{ params['list'][1] }}", 2),
        ("${{ params.map.items }}", "own"),
        ("${{ params.map }}", {"items": "own"}),
        ("flag ${{ params.n > 2 }}", "flag true"),
        ("${{ 'big' if params.n > 2 else 'small' }}", "big"),
        ("${{ params.nope | default(7) }}", 7),
        ("${{ params.nope is defined }}", False),
        ("${{ params.n + 1 }}", 4),
        ("${{ -params.n // 2 }}", -2),
        ("${{ 'a' ~ params.n ~ 'b' }}", "a3b"),
        ("${{ 'a' + 'b' }}", "ab"),
        ("${{ params.name | upper | replace('W', 'V') }}", "VINE"),
        ("${{ params.list | join('-') }}", "1-2"),
        ("${{ params.list | length }}", 2),
        ("${{ 2.567 | round(1) }}", 2.6),
        ("${{ {'a': 1} | tojson }}", '{"a": 1}'),
        ("${{ '}}' }}", "}}"),
        ('${{ "${{" }}', "${{"),
        ("${{ project }}", "demo"),
        ("${{ env.HOME }}", "/root"),
        ("${x} {{ y }} {% z %} {# c #}", "${x} {{ y }} {% z %} {# c #}"),
    ],
)
def test_expressions(text: str, value: object) -> None:
    params = {"n": 3, "f": 0.5, "list": [1, 2], "map": {"items": "own"}, "name": "wine"}
    assert filled(text, params, HOME="/root") == value


@pytest.mark.parametrize(
    "source",
    [
        "range(10**9)", "9**9**9", "'a' * 10**9", "[1] * 10**9", "'%1000000000d' % 1", "cycler(1)", "''.join([])",
        "params.__class__", "''.__class__.__mro__", "params | attr('x')", "lipsum()", "self", "namespace(a=1)",
        "'x' | format(1)", "'x' | center(1000000000)", "1 | round(1000000000)", "1 | round(-1000000000)",
        "'a' | replace('', 'b' | replace('b', 'ccccccccccccccccccc'))" + " | replace('c', 'cccccccccccc')" * 8,
        "'\"'" + " | tojson" * 40,
        "[" * 120 + "]" * 120, "not " * 120 + "1", "1" + "+1" * 240, "(" * 200 + "1" + ")" * 200,
        "x" * 501, "9" * 400 + "*" + "9" * 90, "params.s ~ params.s", "a b", "{", "1 +", "", "'", "params.", "\\",
        "1 if",
    ],
)  # fmt: skip
def test_hostile_expressions_are_refused_at_once(source: str) -> None:
    started = time.process_time()
    with pytest.raises(Refused):
        compile_expression(source).evaluate({"params": {"s": "x" * 60_000}, "project": "demo"})
    assert time.process_time() - started < 2


def test_yaml_positions() -> None:
    faults = Faults()
    node = read_yaml("a: 1\nb:\n  - x\n  - {c: 'yes'}\n", file="f", faults=faults)
    assert node is not None
    inner = node.map["b"].items[1].map["c"]
    assert (inner.mark.line, inner.mark.column, inner.mark.end) == (4, 9, 14)
    assert inner.key is not None
    assert (inner.key.line, inner.key.column, inner.key.end) == (4, 6, 7)
    assert plain(node) == {"a": 1, "b": ["x", {"c": "yes"}]}


def test_a_text_with_many_openings_is_read_in_no_time() -> None:
    for text in ("${{ " * 50_000, "${{ 'a' " * 50_000, "${{ params.n }}" * 3_000):
        started = time.process_time()
        if text.endswith("}}"):
            assert filled(text, {"n": 1}) == "1" * 3_000
        else:
            with pytest.raises(MlstackError, match="cannot be read"):
                filled(text)
        assert time.process_time() - started < 2
