"""What `make engines` does."""

import time
from collections.abc import Callable, Iterable
from functools import partial

from filelock import FileLock

from tests.engines import base_image, go_tools, lifetime, packages
from tests.engines.groups import Group
from tests.engines.places import cache


def install(groups: Iterable[Group]) -> None:
    """Install the engines of these groups and what they stand on. Does nothing that is done already."""
    cache().mkdir(parents=True, exist_ok=True)
    with FileLock(cache() / "install.lock"):
        for group in groups:
            _install(group)


def _install(group: Group) -> None:
    for needed in group.needs:
        _install(needed)
    if left := packages.missing(group.packages):
        _timed(f"Debian packages {', '.join(left)}", partial(packages.install, left))
    for tool in group.tools:
        if not tool.built():
            _timed(f"{tool.name} {tool.version}", partial(go_tools.build, tool))
    if group.image and not base_image.archive().exists():
        _timed("base image: debootstrap", base_image.make_archive)
    if group.image and not base_image.made():
        _timed("base image: registry", _seed_registry)


def _seed_registry() -> None:
    session = lifetime.begin()
    try:
        registry = lifetime.need(session, "registry")
        base_image.push(lifetime.need(session, "buildkit"), registry)
        base_image.keep_seed(session.data / "registry")
    finally:
        lifetime.end(session)


def _timed(what: str, do: Callable[[], None]) -> None:
    print(f"{what} …", end=" ", flush=True)
    begun = time.monotonic()
    do()
    print(f"{time.monotonic() - begun:.0f} s")
