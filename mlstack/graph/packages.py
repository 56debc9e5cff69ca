"""What a lock file resolves to, whatever its format: the packages that an environment identity covers."""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from mlstack.diagnostics import Diagnostic, Position

IDENTITY_RECIPE = 1
"""Raised only with a migration: another recipe would retrain every stage with a locked environment."""

_TOML_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)")


class LockedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One resolved package.

    `source` names the content where the version does not (a Git commit, a path); an index is left out, because a mirror
    changes nothing. `hashes` are those of all its files, as `sha256:…`. `markers` are the conditions under which it is
    installed, as text and not evaluated, so that every machine gets the same identity.
    """

    name: str
    version: str = ""
    source: str = ""
    hashes: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from a lock. `folders` are packages that lie in the project, relative to the lock's folder."""

    packages: tuple[LockedPackage, ...] = ()
    folders: tuple[str, ...] = ()
    requires_python: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()


def digest_packages(python: str, packages: Iterable[LockedPackage]) -> str:
    """Return the SHA-256 hex digest of a Python minor version ("3.11") with packages; their order does not matter."""
    rows = sorted(
        (each.name, each.version, each.source, sorted(set(each.hashes)), sorted(set(each.markers))) for each in packages
    )
    canonical = {"recipe": IDENTITY_RECIPE, "python": python, "packages": rows}
    return sha256(msgspec.json.encode(canonical, order="deterministic")).hexdigest()


def versions_of(packages: Sequence[LockedPackage]) -> dict[str, str]:
    """Return name → version for people to read; a package locked in several versions shows them all."""
    found: dict[str, list[str]] = {}
    for each in sorted(packages, key=lambda package: (package.name, package.version)):
        found.setdefault(each.name, []).append(each.version or each.source)
    return {name: ", ".join(dict.fromkeys(versions)) for name, versions in found.items()}


def normal_name(name: str) -> str:
    """Return a package or group name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def toml_fault(file: str, error: ValueError) -> Diagnostic:
    """Return the diagnostic for a file that is not TOML, with the place that `tomllib` names."""
    place = _TOML_PLACE.search(str(error))
    return Diagnostic(
        code="lock-unreadable",
        summary="A lock or project file cannot be parsed",
        detail=f"{file}: {error}.",
        hint="A merge may have left its marks in it; make it again with the tool that wrote it.",
        position=Position(file, int(place[1]), int(place[2])) if place else Position(file, 1, 1),
    )


def unknown_group(file: str, group: str, known: Iterable[str], *, extras: Iterable[str] = ()) -> Diagnostic:
    """Return the diagnostic for a dependency group that the lock does not have."""
    from mlstack.diagnostics import did_you_mean

    names = sorted(known)
    if normal_name(group) in {normal_name(extra) for extra in extras}:
        hint = f'"{group}" is an extra (optional-dependencies); move it to [dependency-groups] to use it here.'
    else:
        hint = did_you_mean(group, names) or (f"It has: {', '.join(names)}." if names else "It has no groups.")
    return Diagnostic(
        code="unknown-group",
        summary="The lock has no such dependency group",
        detail=f'{file} has no dependency group "{group}".',
        hint=hint,
    )
