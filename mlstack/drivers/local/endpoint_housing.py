"""What model servers live in: processes of this machine, or containers. What is done with them is the same."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mlstack.drivers.base import Say, StepContext
from mlstack.drivers.local.endpoint_server import Launch, Running
from mlstack.spec.spec import Endpoint, Model, Variant

Start = Callable[[Launch, Mapping[str, Any]], Running]
"""Starts a server with these settings and waits until it is ready.

It then serves on the socket of `launch.before`, if that is given. Raises `ServerFailedError`; nothing of it is left
then.
"""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One server to be made. `current` is the one in place, `foreign` one that another driver has made.

    Times are in seconds; `patience` is how long a server may take to say that it is ready before it counts as stuck.
    """

    endpoint: Endpoint
    context: StepContext
    attributes: dict[str, Any]
    digest: str
    folder: Path
    current: Running | None
    foreign: Running | None
    start_timeout: float
    stop_grace: float
    patience: float

    @property
    def variant(self) -> tuple[str, Variant]:
        """The one variant that is served."""
        return next(iter(self.endpoint.variants.items()))


class Housing(Protocol):
    """How servers are started, found, watched and ended."""

    def prepare(self, job: Job, model: Model) -> Start:
        """Get ready what a server needs to start: before anything that serves is touched. Raises `MlstackError`."""
        ...

    def below(self, folder: Path) -> Sequence[Running]:
        """Return the servers of an endpoint's folder, ready or not: also those that nothing has recorded."""
        ...

    def lives(self, running: Running) -> bool:
        """Whether this very server is still there."""
        ...

    def why_gone(self, running: Running) -> str:
        """Say why a server that does not answer is gone ("process 4711 is gone"); "" if it is there."""
        ...

    def settle(self, running: Running) -> None:
        """See to it that a server that is ready stays, as far as that can be seen to here."""
        ...

    def stop(self, running: Running, *, grace: float, say: Say) -> None:
        """End a server and wait until it is gone; one that is gone succeeds. Raises `MlstackError`."""
        ...

    def wait_gone(self, running: Running, *, seconds: float) -> None:
        """Wait for a server that ends by itself, at most `seconds`."""
        ...


def name_of(running: Running) -> str:
    """Return what people call a server: where to look for it."""
    return f"container {running.container}" if running.container else f"process {running.pid}"


def recorded_server(known: Mapping[str, Any]) -> Running | None:
    """Return the server that an endpoint's record names, whether it lives or not; None for a record of another kind."""
    try:
        return Running(
            folder=Path(str(known["folder"])),
            host=str(known["listen"]),
            port=int(known["bound_port"]),
            instance=str(known.get("instance", "")),
            digest=str(known.get("process", "")),
            pid=int(known.get("pid", 0)),
            birth=str(known.get("birth", "")),
            container=str(known.get("container", "")),
            engine=str(known.get("engine", "")),
        )
    except (KeyError, TypeError, ValueError):  # a record of another version of mlstack
        return None


def facts_of(running: Running) -> dict[str, Any]:
    """Return what the record keeps of a server, to find it again."""
    handle = {"pid": running.pid, "birth": running.birth, "container": running.container, "engine": running.engine}
    return {
        "instance": running.instance,
        "bound_port": running.port,
        "url": running.url,
        "folder": str(running.folder),
        "process": running.digest,
        **{name: value for name, value in handle.items() if value},
    }
