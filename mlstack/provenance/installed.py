"""Which packages of a lock an environment consists of: those for other Pythons are left out, on every machine alike."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from posixpath import basename

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.graph.packages import LockedPackage, versions_of
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.plain_files import read_plain

_LARGEST = 32 << 20
_SYSTEMS = (("linux", "Linux", "posix"), ("darwin", "Darwin", "posix"), ("win32", "Windows", "nt"))
_MACHINES = ("x86_64", "aarch64", "arm64", "AMD64")


def packages_of(identity: EnvironmentIdentity, root: Path) -> tuple[LockedPackage, ...]:
    """Return the packages that some machine with the environment's Python gets, as its lock file has them.

    Raises `MlstackError`, `OSError` or `ValueError` when the lock cannot be read.
    """
    return tuple(each for each in _resolve(identity, root) if is_for(each.markers, identity.python))


def with_packages(identity: EnvironmentIdentity, root: Path) -> EnvironmentIdentity:
    """Return an identity that names the versions of its own Python alone; as it is where the lock cannot be read."""
    if identity.lock is None:
        return identity
    try:
        found = versions_of(packages_of(identity, root))
    except (MlstackError, OSError, ValueError):
        return identity
    return msgspec.structs.replace(identity, packages=found)


def is_for(markers: Sequence[str], python: str | None) -> bool:
    """Whether one of these conditions can hold on a Python ("3.11"). None at all, or an empty one, always does."""
    return python is None or not markers or any(not marker or _may_hold(marker, python) for marker in markers)


@cache
def _may_hold(marker: str, python: str) -> bool:
    from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName

    try:
        return any(Marker(marker).evaluate(environment) for environment in _environments(python))
    except (InvalidMarker, UndefinedEnvironmentName):  # groups of a pylock, which are decided where it is read
        return True


def _environments(python: str) -> Iterator[dict[str, str]]:
    """Yield machines of the kinds that there are; the patch version is the first and the last one, so to speak."""
    for (platform, system, name), machine, patch in product(_SYSTEMS, _MACHINES, (0, 99)):
        yield {
            "python_version": python,
            "python_full_version": f"{python}.{patch}",
            "sys_platform": platform,
            "platform_system": system,
            "os_name": name,
            "platform_machine": machine,
        }


def _resolve(identity: EnvironmentIdentity, root: Path) -> tuple[LockedPackage, ...]:
    from tomllib import loads

    lock = identity.lock or ""
    content = read_plain(root, lock, most=_LARGEST).decode("utf-8")
    if not lock.endswith((".lock", ".toml")):
        from mlstack.graph.requirements import resolve_requirements

        return resolve_requirements(lock, lambda path: _text(root, path)).packages
    from mlstack.graph.pylock import resolve_pylock
    from mlstack.graph.uv_lock import resolve_uv_lock

    resolver = resolve_pylock if basename(lock).startswith("pylock") else resolve_uv_lock
    return resolver(loads(content), file=lock, groups=identity.groups).packages


def _text(root: Path, path: str) -> str | None:
    try:
        return read_plain(root, path, most=_LARGEST).decode("utf-8")
    except FileNotFoundError:
        return None
