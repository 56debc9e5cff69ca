"""Engines that come as Debian packages."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

# Mirrors have bad moments, other installations hold the lock for a while, and nobody is there to answer questions.
APT_GET: tuple[str, ...] = ("apt-get", "-qq", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300")
APT_GET += ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")

POLICY = Path("/usr/sbin/policy-rc.d")


def missing(packages: Sequence[str]) -> list[str]:
    """Which of the packages are not installed; all, where there is no dpkg."""
    if not packages:  # dpkg-query would name every package of the machine
        return []
    if shutil.which("dpkg-query") is None:
        return list(packages)
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def install(packages: Sequence[str]) -> None:
    """Install packages, without starting the services that some of them bring."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run([*APT_GET, *words], env=environment, stdout=subprocess.DEVNULL, check=True)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's own switch: while this file says 101, no package starts its service."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
