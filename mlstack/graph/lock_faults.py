"""What is wrong with a lock that somebody cut off, merged or edited: told by the plan, before anything is installed."""

import re
from collections.abc import Iterable, Iterator

import msgspec

from mlstack.diagnostics import Diagnostic, Position

_DIGITS = {"md5": 32, "sha256": 64, "sha384": 96, "sha512": 128, "blake2b": 128}
"""Hexadecimal digits by algorithm: those that uv and pip check."""

_HEX = re.compile(r"[0-9a-fA-F]*")
_VERSION = re.compile(
    r"v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?\d*)?"
    r"(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)
"""PEP 440, appendix B."""

_TERM = r"""(?:[A-Za-z_][\w.]*|'[^']*'|"[^"]*")"""
_CLAUSE = rf"{_TERM}\s*(?:[<>=!~]=?=?|\bnot\s+in\b|\bin\b)\s*{_TERM}"
_MARKER = re.compile(rf"[(\s]*{_CLAUSE}(?:[)\s]*\b(?:and|or)\b[(\s]*{_CLAUSE})*[)\s]*")


def malformed_lock(detail: str, position: Position) -> Diagnostic:
    """Return the diagnostic for a lock that no installer would take."""
    return Diagnostic(
        code="lock-malformed",
        summary="A lock holds what no installer would take",
        detail=detail,
        hint="It was cut off or edited; make it again with the tool that wrote it, or take it from Git.",
        position=position,
    )


def broken_hashes(hashes: Iterable[tuple[str, str]], *, file: str, text: str) -> Iterator[Diagnostic]:
    """Yield what is wrong with the hashes (package, `sha256:…`) of a TOML lock; the place is looked up in its text."""
    lines: list[str] = []
    for package, digest in hashes:
        fault = hash_fault(digest)
        if fault is None:
            continue
        lines = lines or text.splitlines()
        digits = digest.partition(":")[2] or digest
        number = next((number for number, line in enumerate(lines, start=1) if f'"{digits}"' in line), 0)
        number = number or next((number for number, line in enumerate(lines, start=1) if f'"{digest}"' in line), 1)
        yield malformed_lock(f"A hash of {package} {fault}.", Position(file, number, 1))


def broken_pin(line: str, *, version: str | None, marker: str, hashes: Iterable[str]) -> str | None:
    """Say what is wrong with a line of a requirements file that has an exact version (None: another pin)."""
    if line.endswith("\\"):
        return "the file ends in the middle of it"
    if version is not None and not _VERSION.fullmatch(version):
        return f"{version} is not a version"
    if marker and not is_marker(marker):
        return f"its condition is not complete: {marker}"
    return next((f"its hash {fault}" for fault in map(hash_fault, hashes) if fault is not None), None)


def malformed_requirement(what: str, fault: str, position: Position, source_line: str) -> Diagnostic:
    """Return the diagnostic for a line of a requirements file that no installer would take."""
    found = malformed_lock(f"{what}: {fault}.", position)
    return msgspec.structs.replace(found, source_line=source_line)


def is_marker(text: str) -> bool:
    """Whether this is a whole condition, as in `os_name == 'nt' and (…)`; its variables are not looked at."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", text)
    return _MARKER.fullmatch(text) is not None and bare.count("(") == bare.count(")")


def hash_fault(digest: str) -> str | None:
    """Say what is wrong with `sha256:…`; None if nothing is."""
    algorithm, colon, digits = digest.partition(":")
    if not colon:
        return f"is not written as sha256:…, but {_shown(digest)}"
    if algorithm not in _DIGITS:
        return f"is of an unknown kind, {_shown(algorithm)}"
    if not _HEX.fullmatch(digits):
        return f"holds letters that are no hexadecimal digits ({_shown(digits)})"
    if len(digits) != _DIGITS[algorithm]:
        kind = "is cut off" if len(digits) < _DIGITS[algorithm] else "is too long"
        return f"{kind}: {algorithm} has {_DIGITS[algorithm]} digits, there are {len(digits)}"
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 20 else f"{text[:20]}…")
