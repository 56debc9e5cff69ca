"""Quantities as people write them: Kubernetes' for cores and bytes, `30s 5m 2h 3d` for durations."""

import re

import msgspec

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_BYTES = {
    "": 1,
    **{unit + "i": 1024**power for power, unit in enumerate(("K", "M", "G", "T", "P"), start=1)},
    **{unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T", "P"), start=1)},
}
_LOOSE_MEMORY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtp])i?b?\s*", re.IGNORECASE)
_CORES = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m)?")
_LOOSE_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|d)[a-z]*\s*", re.IGNORECASE)


class WrongError(ValueError):
    """A value that cannot be taken: what is wrong, and what to do. `code` is that of the fault."""

    def __init__(self, detail: str, hint: str = "", code: str = "invalid-value") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.code = code


class Limit(msgspec.Struct, frozen=True):
    """How often (`count`) or for how long (`window`, in seconds) something is tried again."""

    count: int | None
    window: float | None


_LONGEST_DURATION = 3650 * 86400.0  # and no clock of the system counts much further


def read_duration(value: object) -> float:
    """Return seconds for `30s`, `5m`, `2h`, `3d`. Raises `WrongError`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise WrongError(f"`{value}` has no unit.", f"Say which: {value}s, {value}m, {value}h or {value}d.")
    text = _text(value, "a duration such as 30s, 5m, 2h or 3d")
    found = _DURATION.fullmatch(text)
    if found is None:
        loose = _LOOSE_DURATION.fullmatch(text)
        hint = f"Write {loose[1]}{loose[2].lower()}." if loose else "Write for example 30s, 5m, 2h or 3d."
        raise WrongError(f"`{text}` is not a duration: a number and one of the units s, m, h, d.", hint)
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds <= 0:
        raise WrongError("a duration must be greater than zero.", "Leave the key out if there is to be no limit.")
    if seconds > _LONGEST_DURATION:
        raise WrongError("a duration must be at most ten years.", "Leave the key out if there is to be no limit.")
    return seconds


def read_memory(value: object) -> int:
    """Return bytes for `32Gi`, `500M` or a plain number of bytes. Raises `WrongError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _positive_bytes(value)
    text = _text(value, "an amount of memory such as 32Gi or 500M")
    found = _MEMORY.fullmatch(text)
    if found is None:
        loose = _LOOSE_MEMORY.fullmatch(text)
        hint = "Write for example 512Mi, 32Gi or 500M."
        if loose:
            unit = loose[2].upper()
            hint = f"Write {loose[1]}{unit}i (1024-based) or {loose[1]}{unit.replace('K', 'k')} (1000-based)."
        raise WrongError(f"`{text}` is not an amount of memory.", hint)
    return _positive_bytes(int(float(found[1]) * _BYTES[found[2] or ""]))


def read_cores(value: object) -> float:
    """Return cores for `8`, `0.5` or `500m`. Raises `WrongError`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        cores = float(value)
    else:
        text = _text(value, "a number of cores such as 8, 0.5 or 500m")
        found = _CORES.fullmatch(text)
        if found is None:
            raise WrongError(f"`{text}` is not a number of cores.", "Write for example 8, 0.5 or 500m.")
        cores = float(found[1]) / (1000 if found[2] else 1)
    if cores <= 0:
        raise WrongError("the number of cores must be greater than zero.", "Write for example 1 or 500m.")
    return cores


def read_limit(value: object) -> Limit:
    """Return how often or how long something is tried again: `3` or `6h`. Raises `WrongError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise WrongError("a number of retries cannot be negative.", "Write 0 for none.")
        return Limit(count=value, window=None)
    if not isinstance(value, str):
        raise WrongError(f"expected a number of retries or a duration, found {found_word(value)}.", "Write 3 or 6h.")
    return Limit(count=None, window=read_duration(value))


def found_word(value: object) -> str:
    """Say what a value is, for a sentence: `the text "x"`, `the number 3`, `a list`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f'the text "{value}"' if len(value) < 60 and "\n" not in value else "a text"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case dict():
            return "a map"
        case _:
            return type(value).__name__


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise WrongError(f"expected {expected}, found {found_word(value)}.")
    return value


def _positive_bytes(amount: int) -> int:
    if not 0 < amount < 2**63:
        raise WrongError("an amount of memory must be at least one byte, and below 8 exbibytes.", "Write 16Gi.")
    return amount
