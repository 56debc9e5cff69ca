"""Which minor version of Python an environment has: the same answer on every machine wherever something declares it."""

import re
import sys

from mlstack.diagnostics import Diagnostic, Severity

_VERSION = re.compile(r"(?:(?:cpython|python)[-@]?)?(\d+\.\d+)(?:\.\w+)?t?(?:-.*)?")
_PROBED = range(6, 40)


def minor_of(text: str) -> str | None:
    """Return the minor version that `3.11`, `3.11.4`, `cpython-3.11.9` or `==3.11.*` fix; None if it is left open."""
    found = _VERSION.fullmatch(text.strip())
    return found[1] if found is not None else only_minor(text)


def only_minor(requires: str) -> str | None:
    """Return the one minor version that a specifier such as `>=3.11,<3.12` allows; None if there are several."""
    allowed = [minor for minor in (f"3.{number}" for number in _PROBED) if allows(requires, minor)]
    return allowed[0] if len(allowed) == 1 else None


def allows(requires: str, minor: str) -> bool:
    """Whether a specifier allows any release of a minor version. What cannot be parsed allows everything."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if not requires.strip():
        return True
    try:
        specifiers = SpecifierSet(requires)
    except InvalidSpecifier:
        return True
    return any(specifiers.contains(f"{minor}.{patch}", prereleases=True) for patch in (*range(20), 99))


def running_minor() -> str:
    """Return the minor version of the interpreter that mlstack runs on."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def undeclared(lock: str, minor: str) -> Diagnostic:
    """Return the warning that nothing says which Python an environment has."""
    return Diagnostic(
        code="python-version-undeclared",
        summary="Nothing says which Python version an environment has",
        detail=f"{lock} allows several, so the one that runs mlstack is taken here ({minor}); "
        "another machine may take another one and retrain.",
        hint=f'Set `python: {{version: "{minor}"}}`, or record it:',
        command="mlstack lock",
        severity=Severity.WARNING,
    )


def conflict(lock: str, minor: str, requires: str) -> Diagnostic:
    """Return the error that the declared version is not one that the lock allows."""
    return Diagnostic(
        code="python-version-conflict",
        summary="The Python version does not fit the lock",
        detail=f"Python {minor} is asked for, and {lock} was made for {requires}.",
        hint="Change `python.version`, or `requires-python` in pyproject.toml followed by `uv lock`.",
    )
