"""Model servers in containers of a Docker engine on this machine. The engine starts one again that fails."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.docker.endpoint_container import (
    ENDPOINT_LABEL,
    EVERYWHERE,
    FOLDER_LABEL,
    HOST_NETWORK,
    container_of_server,
)
from mlstack.drivers.docker.engine import connect, engine_error, engine_unreachable, remove_container
from mlstack.drivers.docker.engine_images import have_image
from mlstack.drivers.local.endpoint_housing import Job, Start
from mlstack.drivers.local.endpoint_process import is_port_taken, wait_until
from mlstack.drivers.local.endpoint_server import (
    Launch,
    Running,
    ServerFailedError,
    server_in,
    wait_until_ready,
    write_settings,
)
from mlstack.spec.spec import Model

if TYPE_CHECKING:
    from docker import DockerClient

LOOK_EVERY = 0.1
"""Seconds between two looks at a container that starts or ends: each is a request to the engine."""
_CONTROL = "control.sock"
_PREDECESSOR = "before"


class Containers:
    """The housing of endpoints whose pool has `target: docker`."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    # ------------------------------------------------------------------------------------------------ starting

    def prepare(self, job: Job, model: Model) -> Start:
        """See that the image is on the engine. Raises `MlstackError`."""
        del model
        image = job.context.image
        if image is None:
            raise MlstackError(_no_image(job))
        with self._client() as client:
            have_image(client, image, say=job.context.say)

        def start(launch: Launch, settings: Mapping[str, Any]) -> Running:
            if job.attributes["network"] == HOST_NETWORK:
                return self._start(job, launch, settings)
            return self._start_published(job, launch, settings)

        return start

    def _start_published(self, job: Job, launch: Launch, settings: Mapping[str, Any]) -> Running:
        """Start one whose port the engine publishes: the one before has to leave the port first.

        That one comes back when the new one does not start.
        """
        before = launch.before
        alone = msgspec.structs.replace(launch, before=None)
        told = {**settings, "host": EVERYWHERE, "reached_at": settings["host"]}
        if before is None:
            return self._start(job, alone, told)
        job.context.say("the server before ends first: the engine publishes its port")
        if before is not job.current:
            job.context.end_foreign()
            return self._start(job, alone, told)
        with self._client(before) as client:
            client.api.stop(before.container, timeout=int(job.stop_grace))
        try:
            return self._start(job, alone, told)
        except BaseException:
            with self._client(before) as client:
                client.api.start(before.container)
            raise

    def _start(self, job: Job, launch: Launch, settings: Mapping[str, Any]) -> Running:
        from docker.errors import DockerException

        before = launch.before
        port = before.port if before is not None else _free_port(job, settings)
        others = settings["candidates"] if job.attributes["network"] == HOST_NETWORK else []
        told = {**settings, "candidates": list(dict.fromkeys([port, *others])), "take_over": None}
        if before is not None:
            told["take_over"] = _lay_open(before, launch)
        write_settings(launch.folder, told)
        wanted = container_of_server(job, launch, port=port)
        name = wanted["name"]
        with self._client() as client:
            try:
                client.containers.create(**wanted)
                client.api.start(name)
                return wait_until_ready(
                    launch,
                    told,
                    found=lambda _: self._named(launch.folder, name),
                    why_ended=lambda: _why_ended(client, name),
                    tick=LOOK_EVERY,
                )
            except BaseException:  # whatever ends the waiting (Ctrl-C too), nothing half-started stays behind
                with suppress(DockerException, OSError):
                    remove_container(client, name)
                raise

    def settle(self, running: Running) -> None:
        """Have the engine start it again when it fails. Not before it was ready once: a start that fails is told."""
        with self._client(running) as client:
            client.api.update_container(running.container, restart_policy={"Name": "on-failure"})

    # ------------------------------------------------------------------------------------------------ looking

    def below(self, folder: Path) -> Sequence[Running]:
        """Return the servers whose containers are labelled with an endpoint's folder, whether they run or not."""
        with self._client() as client:
            found = client.api.containers(all=True, filters={"label": f"{ENDPOINT_LABEL}={folder}"})
        places = {str(each["Names"][0]).lstrip("/"): Path(each["Labels"][FOLDER_LABEL]) for each in found}
        return [self._named(place, name) for name, place in sorted(places.items())]

    def lives(self, running: Running) -> bool:
        """Whether its container runs."""
        with self._client(running) as client:
            state = _state(client, running.container)
        return state is not None and _is_on(state)

    def why_gone(self, running: Running) -> str:
        """Say why a server that does not answer is gone; "" if its container runs."""
        try:
            with self._client(running) as client:
                state = _state(client, running.container)
        except MlstackError as error:
            return f"nothing of it answers on port {running.port}, and {_in_a_sentence(error.diagnostics[0])}"
        container = f"container {running.container}"
        if state is None:
            return f"{container} is gone"
        if state.get("Restarting"):
            return f"{container} keeps ending (exit code {state.get('ExitCode')}); the engine starts it again"
        return "" if _is_on(state) else f"{container} has ended (exit code {state.get('ExitCode')})"

    # ------------------------------------------------------------------------------------------------ ending

    def stop(self, running: Running, *, grace: float, say: Say) -> None:
        """End it, SIGTERM first, after `grace` seconds SIGKILL, and remove its container."""
        from docker.errors import NotFound

        with self._client(running) as client:
            began = time.monotonic()
            with suppress(NotFound):
                client.api.stop(running.container, timeout=int(grace))
                if time.monotonic() - began > grace:
                    say(f"container {running.container} did not end within {grace:.0f} s; it was killed")
            remove_container(client, running.container)

    def wait_gone(self, running: Running, *, seconds: float) -> None:
        """Wait for a container that ends by itself."""
        with self._client(running) as client:
            wait_until(lambda: bool(_why_ended(client, running.container)), seconds=seconds, tick=LOOK_EVERY)

    # ------------------------------------------------------------------------------------------------ parts

    def _named(self, folder: Path, name: str) -> Running:
        return msgspec.structs.replace(server_in(folder), container=name, engine=self._engine)

    @contextmanager
    def _client(self, running: Running | None = None) -> Iterator["DockerClient"]:
        """Speak with the engine, or with the one that runs a server.

        Raises `MlstackError` when it does not answer, or refuses.
        """
        from docker.errors import APIError, DockerException

        engine = running.engine if running is not None else self._engine
        try:
            client = connect(engine)
        except (DockerException, OSError) as error:
            raise MlstackError(engine_unreachable(engine, error)) from error
        try:
            yield client
        except APIError as error:
            raise MlstackError(_refused(engine_error(error))) from error
        except (DockerException, OSError) as error:
            raise MlstackError(engine_unreachable(engine, error)) from error
        finally:
            client.close()


def _state(client: "DockerClient", name: str) -> dict[str, Any] | None:
    """Return what the engine says of a container; None when there is none of that name."""
    from docker.errors import NotFound

    try:
        found: dict[str, Any] = client.api.inspect_container(name)["State"]
    except NotFound:
        return None
    return found


def _is_on(state: Mapping[str, Any]) -> bool:
    return bool(state.get("Running") or state.get("Restarting"))


def _why_ended(client: "DockerClient", name: str) -> str:
    state = _state(client, name)
    if state is None:
        return f"container {name} is gone"
    if _is_on(state):
        return ""
    why = "out of memory" if state.get("OOMKilled") else f"exit code {state.get('ExitCode')}"
    return f"its container ended ({why})"


def _free_port(job: Job, settings: Mapping[str, Any]) -> int:
    """Return the declared port, else the first candidate that nobody listens on."""
    if settings["port"] is not None:
        return int(settings["port"])
    host, candidates = str(job.attributes["listen"]), settings["candidates"]
    return int(next((port for port in candidates if not is_port_taken(host, port)), candidates[0]))


def _lay_open(before: Running, launch: Launch) -> str:
    """Let the new server reach the control socket of the one before, and return the folder that it finds it in.

    A second name of the same socket: the folder of the one before is removed later, and an engine does not start a
    container again whose mounts are gone. Raises `ServerFailedError`.
    """
    place = launch.folder / _PREDECESSOR
    place.mkdir(mode=0o700)
    try:
        os.link(before.folder / _CONTROL, place / _CONTROL)
    except OSError as error:
        problem = Diagnostic(
            code="endpoint-take-over",
            summary="The server in place cannot be taken over",
            detail=f"{before.folder / _CONTROL}: {error.strerror}.",
            address=launch.address,
        )
        raise ServerFailedError(problem, code="take-over") from error
    return _PREDECESSOR


def _in_a_sentence(problem: Diagnostic) -> str:
    text = f"{problem.summary[:1].lower()}{problem.summary[1:]}"
    return f"{text} ({problem.detail.rstrip('.')})" if problem.detail else text


def _no_image(job: Job) -> Diagnostic:
    return Diagnostic(
        code="endpoint-without-image",
        summary="The image of the endpoint was not made",
        detail=f"{job.context.graph.image_of.get(job.endpoint.address)} is not recorded in this environment.",
        hint="Leave out --target or --exclude, so that it is made too.",
        address=job.endpoint.address,
    )


def _refused(said: str) -> Diagnostic:
    return Diagnostic(
        code="docker-refused",
        summary="The Docker engine refuses the container",
        detail=f"{said[:1].upper()}{said[1:]}",
        hint="What served before still does.",
    )
