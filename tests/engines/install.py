"""What `make engines` does, and why an engine is not there."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial

from filelock import FileLock

from tests.engines import base_image, go_tools, lifetime, packages
from tests.engines.go_tools import BUILDKIT, BUILDX
from tests.engines.places import cache


def cannot_start() -> str | None:
    """Why no engine can be started by this user on this machine, in a few words."""
    if sys.platform != "linux":
        return "engines run on Linux only"
    if os.getuid() != 0:
        return "starting engines needs root"
    return None


def cannot_install() -> str | None:
    """Why no engine can be installed by this user on this machine, in a few words."""
    for program, need in (("apt-get", "come as Debian packages"), ("go", "are built with Go")):
        if shutil.which(program) is None:
            return f"some engines {need}, and there is no {program} on the PATH"
    return cannot_start()


def docker_is_absent() -> str | None:
    """Why the engines of Docker's kind cannot be started here, in a few words; None: they can."""
    if reason := cannot_start():
        return reason
    if packages.missing(packages.DOCKER) or not (BUILDKIT.built() and BUILDX.built() and base_image.made()):
        return "not installed; `make engines` does that"
    return None


def install_docker() -> None:
    """Install Docker's engine, BuildKit, buildx, a registry and the base image. Does nothing that is done already."""
    cache().mkdir(parents=True, exist_ok=True)
    with FileLock(cache() / "install.lock"):
        if left := packages.missing(packages.DOCKER):
            _timed(f"Debian packages {', '.join(left)}", partial(packages.install, left))
        for tool in (BUILDKIT, BUILDX):
            if not tool.built():
                _timed(f"{tool.name} {tool.version}", partial(go_tools.build, tool))
        if not base_image.archive().exists():
            _timed("base image: debootstrap", base_image.make_archive)
        if not base_image.made():
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
