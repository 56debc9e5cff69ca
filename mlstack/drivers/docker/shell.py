"""A command, or a shell for a person, in the container that a run of a stage would get.

The container is the one of a run, but for what it runs: it waits, and the command is started in it, on this terminal.
It waits as long as a connection is open that only this process has, so it ends whatever becomes of this process.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, Severity
from mlstack.drivers.base import RunOrder
from mlstack.drivers.docker.endpoint_container import EVERYWHERE, HOST_NETWORK
from mlstack.drivers.docker.engine import (
    LABEL,
    connect,
    engine_address,
    engine_error,
    engine_unreachable,
    remove_container,
)
from mlstack.drivers.docker.engine_images import have_image
from mlstack.drivers.docker.hijack import hijack
from mlstack.drivers.docker.stage_container import container_of
from mlstack.drivers.docker.streams import carry
from mlstack.drivers.secrets import SecretValues

if TYPE_CHECKING:
    from docker import DockerClient

NO_NETWORK, PUBLISHED_IN = "none", "bridge"
LOOPBACK = "127.0.0.1"
_WAIT = 'trap "" HUP INT QUIT TERM; exec cat >/dev/null'
_ANY_SHELL = "command -v bash >/dev/null 2>&1 && exec bash --norc -i; exec /bin/sh -i"
_NOT_READ = 141  # as a shell has it for a command whose output nobody reads
_ENDS_WITHIN = 10.0


class Contained(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command runs: the container of a run. `label` says in a prompt where one is.

    `cache` is DVC's. `port` is published on this machine, for a notebook.
    """

    order: RunOrder
    secrets: SecretValues
    label: str
    cache: Path
    port: int | None = None


def run_contained(place: Contained, command: Sequence[str]) -> int:
    """Run a command in a new container, on this terminal, and return its exit code. Without a command: a shell.

    Raises `MlstackError` when the container cannot be had.
    """
    with _opened(place) as container:
        return container.run(*_command(place, command))


def notebook_in(place: Contained, programs: Sequence[str], options: Sequence[str]) -> int | None:
    """Run the first of these notebook programs that the image has; None when it has none of them."""
    with _opened(place) as container:
        if container.is_there(programs):
            script = 'for one in $1; do command -v "$one" >/dev/null && { shift; exec "$one" "$@"; }; done'
            return container.run(["/bin/sh", "-c", script, "sh", " ".join(programs), *options], {})
    return None


def listens_at(place: Contained) -> str:
    """Return the address that a server in the container listens at, to be reached at its port on this machine."""
    return LOOPBACK if _network(place) == HOST_NETWORK else EVERYWHERE


def network_opened(place: Contained) -> Diagnostic | None:
    """Say that a notebook needs a network, where a run of the stage would have none."""
    if place.port is None or _declared_network(place) != NO_NETWORK:
        return None
    return Diagnostic(
        severity=Severity.WARNING,
        code="shell-has-network",
        summary="The notebook has a network, which a run of the stage does not have",
        detail=f"{place.order.stage.address}: its port could not be reached otherwise. What works in the notebook "
        "because it can fetch something fails in a run.",
        hint=f"Should a run have it too, give {place.order.pool.address} `settings: {{network: {PUBLISHED_IN}}}`.",
        address=place.order.stage.address,
    )


# ---------------------------------------------------------------------------------------------------- the container


class _Container:
    def __init__(self, client: "DockerClient", host: str, name: str, secrets: SecretValues) -> None:
        self._client, self._host, self._name = client, host, name
        self._secrets = secrets

    def run(self, command: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run a command on this terminal, or with these pipes; return its exit code."""
        terminal = os.isatty(0) and os.isatty(sys.stdout.fileno())
        more = {"TERM": os.environ.get("TERM", "dumb")} if terminal else {}
        made = self._client.api.exec_create(
            self._name,
            [*command],
            stdin=True,
            tty=terminal,
            environment={**more, **self._secrets.reveal(), **variables},
        )["Id"]
        with hijack(self._host, f"/exec/{made}/start", {"Detach": False, "Tty": terminal}) as connection:
            try:
                carry(connection, terminal=terminal, on_signal=lambda number: self._signal(made, number))
            except BrokenPipeError:
                return _NOT_READ
        return self._exit_code(made)

    def is_there(self, programs: Sequence[str]) -> bool:
        """Whether the image has one of these programs."""
        test = " || ".join(f"command -v {program}" for program in programs)
        made = self._client.api.exec_create(self._name, ["/bin/sh", "-c", test])["Id"]
        self._client.api.exec_start(made)
        return self._exit_code(made) == 0

    def _signal(self, made: str, number: int) -> None:
        """Hand a signal on to all that runs in the container; the engine itself has no way to do that."""
        from docker.errors import APIError

        with suppress(APIError):  # the command ended at this moment
            if number == signal.SIGWINCH:
                size = os.get_terminal_size(sys.stdout.fileno())
                if size.lines and size.columns:
                    self._client.api.exec_resize(made, height=size.lines, width=size.columns)
                return
            name = signal.Signals(number).name.removeprefix("SIG")
            killing = self._client.api.exec_create(self._name, ["/bin/sh", "-c", f"kill -s {name} -- -1"])
            self._client.api.exec_start(killing["Id"], detach=True)

    def _exit_code(self, made: str) -> int:
        due = time.monotonic() + _ENDS_WITHIN  # its output ended; the engine notes the code a moment later
        while (found := self._client.api.exec_inspect(made))["Running"] and time.monotonic() < due:
            time.sleep(0.02)
        return int(found["ExitCode"] or 0)


@contextmanager
def _opened(place: Contained) -> Iterator[_Container]:
    """Start the container, and remove it at the end. Raises `MlstackError` when it cannot be had."""
    from docker.errors import APIError, DockerException

    wanted = {**container_of(place.order, cache=place.cache), **_waiting(place)}
    engine, name = wanted.pop("engine"), wanted["name"]
    wanted["labels"] = {**wanted["labels"], LABEL: "shell"}
    for mount in wanted["mounts"]:
        if not mount["ReadOnly"]:
            Path(mount["Source"]).mkdir(parents=True, exist_ok=True)  # of outputs that were never made
    client = None
    try:
        client = connect(engine)
        have_image(client, wanted["image"], say=lambda _: None)
        made = client.containers.create(environment=place.order.environment, **wanted)
        host = engine_address({"host": engine})
        with hijack(host, f"/containers/{made.id}/attach?stream=1&stdin=1"):
            made.start()
            yield _Container(client, host, name, place.secrets)
    except APIError as error:
        raise MlstackError(_refused(place, engine_error(error))) from error
    except (DockerException, OSError) as error:
        raise MlstackError(engine_unreachable(engine, error)) from error
    finally:
        if client is not None:
            with suppress(DockerException, OSError):
                remove_container(client, name)
            client.close()


def _waiting(place: Contained) -> dict[str, Any]:
    """Return what differs from the container of a run."""
    readable = "".join(letter if letter.isalnum() else "-" for letter in place.order.stage.address)[:60]
    found: dict[str, Any] = {
        "name": f"mlstack-shell-{readable}-{token_hex(4)}",
        "command": ["/bin/sh", "-c", _WAIT],
        "stdin_open": True,
        "auto_remove": True,
        "network_mode": _network(place),
    }
    if place.port is not None and _network(place) != HOST_NETWORK:
        found["ports"] = {f"{place.port}/tcp": (LOOPBACK, place.port)}
    return found


def _network(place: Contained) -> str:
    declared = _declared_network(place)
    return PUBLISHED_IN if place.port is not None and declared == NO_NETWORK else declared


def _declared_network(place: Contained) -> str:
    return str(place.order.pool.settings.get("network", NO_NETWORK))


def _command(place: Contained, command: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return what is run, and the variables that it needs beside those of the stage."""
    if command:  # by a shell, which says what is wrong when there is no such command, and has a code for it
        return ["/bin/sh", "-c", 'exec "$@"', "sh", *command], {}
    if os.isatty(0) and os.isatty(sys.stdout.fileno()):
        return ["/bin/sh", "-c", _ANY_SHELL], {"PS1": f"({place.label}) $ "}
    return ["/bin/sh"], {}


def _refused(place: Contained, said: str) -> Diagnostic:
    return Diagnostic(
        code="shell-refused",
        summary="The Docker engine refuses the container",
        detail=f"{place.order.stage.address}: {said}",
        hint="Is another notebook at that port? Name another one with --port."
        if place.port is not None
        else "The same would become of a run of the stage.",
        address=place.order.stage.address,
    )
