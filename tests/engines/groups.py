"""Which engines belong together: what each group needs to be installed, and why it cannot be had here."""

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from tests.engines import base_image, packages
from tests.engines.go_tools import BUILDKIT, BUILDX, COREDNS, ETCD, KUBERNETES, KWOK, PAUSE, PULUMI, GoTool

NOT_INSTALLED = "not installed; `make engines` does that"


@dataclass(frozen=True)
class Group:
    """Engines that are installed, tried and, where they cannot be had, left out together."""

    name: str
    packages: tuple[str, ...] = ()
    tools: tuple[GoTool, ...] = ()
    daemons: tuple[str, ...] = ()
    """Names of `daemons.DAEMONS`."""
    needs: tuple["Group", ...] = ()
    root: bool = False
    """Whether starting them needs root; installing always does."""
    image: bool = False
    """Whether the base image belongs to it."""

    def cannot_start(self) -> str | None:
        """Why they cannot be started by this user on this machine, in a few words, were they installed."""
        if sys.platform != "linux":
            return "engines run on Linux only"
        if self.root and os.getuid() != 0:
            return "starting them needs root"
        return None

    def absent(self) -> str | None:
        """Why they cannot be had here, in a few words; None: they can."""
        for group in self.needs:
            if reason := group.absent():
                return f"{group.name}: {reason}"
        if reason := self.cannot_start():
            return reason
        there = not packages.missing(self.packages) and all(tool.built() for tool in self.tools)
        return None if there and (base_image.made() or not self.image) else NOT_INSTALLED


DOCKER = Group(
    "docker",
    packages=("docker.io", "iptables", "iproute2", "docker-registry", "debootstrap", "debian-archive-keyring"),
    tools=(BUILDKIT, BUILDX),
    daemons=("docker", "registry", "buildkit"),
    root=True,
    image=True,
)
KUBERNETES_API = Group(
    "kubernetes",
    tools=(ETCD, KUBERNETES, KWOK),
    daemons=("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"),
)
KUBERNETES_NODE = Group(
    "node",
    packages=("containerd", "containernetworking-plugins", "iproute2", "iptables", "mount", "runc", "util-linux"),
    tools=(COREDNS, PAUSE),
    daemons=("containerd", "coredns", "kubelet", "kube-proxy"),
    needs=(DOCKER, KUBERNETES_API),
    root=True,
)
PULUMI_CLI = Group("pulumi", tools=(PULUMI,))

GROUPS = (DOCKER, KUBERNETES_API, KUBERNETES_NODE, PULUMI_CLI)
"""In an order in which they can be installed."""


def named(names: Iterable[str]) -> tuple[Group, ...]:
    """The groups with these names; all of them for none. Raises ValueError for a name that there is not."""
    wanted = set(names)
    if unknown := wanted - {group.name for group in GROUPS}:
        there = ", ".join(group.name for group in GROUPS)
        raise ValueError(f"{', '.join(sorted(unknown))}: no such group of engines; there are {there}")
    return tuple(group for group in GROUPS if group.name in wanted or not wanted)


def cannot_install() -> str | None:
    """Why no engine can be installed by this user on this machine, in a few words."""
    for program, need in (("apt-get", "come as Debian packages"), ("go", "are built with Go")):
        if shutil.which(program) is None:
            return f"some engines {need}, and there is no {program} on the PATH"
    if sys.platform != "linux":
        return "engines run on Linux only"
    return None if os.getuid() == 0 else "installing engines needs root"
