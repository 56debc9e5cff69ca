"""Plain YAML scalars after the core schema of YAML 1.2: `yes`, `no`, `on` and `off` are text, `1e-3` is a number."""

import re

from mlstack.spec.spec import Scalar

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_STARTS_NUMBER = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MOST_DIGITS = 400


class OutOfRangeError(ValueError):
    """A number that no JSON document carries faithfully: not finite, or beyond 64 bits."""


def read_scalar(text: str) -> Scalar:
    """Return the value of a plain scalar. Raises `OutOfRangeError` for numbers that are not finite or over 64 bits."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _STARTS_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _REAL.fullmatch(text):
        return _real(text)
    if _BASED.fullmatch(text):
        return _integer(text[2:], 8 if text[1] == "o" else 16)
    if _ENDLESS.fullmatch(text):
        raise OutOfRangeError("is not a finite number")
    return text


def _integer(digits: str, base: int) -> int:
    number = int(digits, base) if len(digits) <= _MOST_DIGITS else None
    if number is None or not -(2**63) <= number < 2**63:
        raise OutOfRangeError("does not fit into 64 bits")
    return number


def _real(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise OutOfRangeError("does not fit into a 64-bit floating-point number")
    return number
