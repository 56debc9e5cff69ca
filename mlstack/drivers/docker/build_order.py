"""One build, everything decided; and what it gives."""

import threading
from pathlib import Path

import msgspec

from mlstack.drivers.base import Say
from mlstack.drivers.docker.build_network import BuildNetwork
from mlstack.drivers.docker.builders import Builder
from mlstack.graph.graph import ImagePlan


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One image to be built by one builder from a project at `root`.

    `push`: its name begins with a registry, and it goes there. `fresh`: nothing of earlier builds is used. `stop` is
    set when the person asked to stop now.
    """

    plan: ImagePlan
    builder: Builder
    network: BuildNetwork
    root: Path
    say: Say
    stop: threading.Event
    push: bool = False
    fresh: bool = False


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What was built: the ID that an engine knows it by, and the digest that the registry gave it, if it was pushed."""

    image_id: str | None
    digest: str | None = None
