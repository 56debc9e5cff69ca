"""Which packages an environment had before: read from the versions of its lock file in Git's history."""

from collections.abc import Callable
from pathlib import Path
from posixpath import basename

from mlstack.gitops.origins import commits_of, text_at
from mlstack.graph.packages import Resolution, digest_packages, versions_of
from mlstack.graph.sources import EnvironmentIdentity


def find_packages_of(root: Path, now: EnvironmentIdentity, *, digest: str) -> dict[str, str] | None:
    """Return name → version of the environment whose identity was `digest`; None when it is not in the history.

    `now` says which lock and groups are meant. Nothing is checked out or run.
    """
    if now.lock is None or now.python is None:
        return None
    for commit in commits_of(root, now.lock):
        resolution = _resolve(now, lambda path, commit=commit: text_at(root, path, commit=commit))  # type: ignore[misc]
        if resolution is not None and digest_packages(now.python, resolution.packages) == digest:
            return versions_of(resolution.packages)
    return None


def _resolve(now: EnvironmentIdentity, read: Callable[[str], str | None]) -> Resolution | None:
    lock = now.lock or ""
    if not lock.endswith((".lock", ".toml")):
        from mlstack.graph.requirements import resolve_requirements

        return resolve_requirements(lock, read)
    from tomllib import loads

    from mlstack.graph.pylock import resolve_pylock
    from mlstack.graph.uv_lock import resolve_uv_lock

    try:
        table = loads(read(lock) or "")
    except ValueError:
        return None
    resolver = resolve_pylock if basename(lock).startswith("pylock") else resolve_uv_lock
    return resolver(table, file=lock, groups=now.groups)


def differing_packages(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Say what differs between two environments, one line a package."""
    return [
        f"{name} {before.get(name, 'not there')} -> {after.get(name, 'not there')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
