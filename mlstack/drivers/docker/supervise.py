"""The process around one stage in a container: as `launch` is around a process, with the same limits, log and result.

It is started in a session of its own and outlives mlstack. The container's output comes through the engine, is masked
here and kept in the run's folder; the engine itself keeps none of it.
"""

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlstack.diagnostics import MlstackError
from mlstack.drivers.docker.engine import connect, engine_address, engine_error, remove_container
from mlstack.drivers.docker.engine_images import have_image
from mlstack.drivers.docker.hijack import hijack
from mlstack.drivers.docker.stage_container import secrets_message
from mlstack.drivers.local.launch import Order
from mlstack.drivers.local.launch import main as carry_out
from mlstack.drivers.local.run_files import Log
from mlstack.runner.command import Run
from mlstack.runner.processes import Group

if TYPE_CHECKING:
    from docker.models.containers import Container

ENGINE_ANSWERS_WITHIN = 30.0
_NO_STATUS = 255


class ContainerGroup(Group):
    """A container in the place of a process group."""

    def __init__(self, container: "Container") -> None:
        super().__init__(pid=0)
        self._container = container

    def reap(self) -> bool:
        """Whether the container has ended; the thread that waits for it notes that."""
        return self.status is not None

    def alive(self) -> bool:
        """Whether it runs: with its first process, all others in it end."""
        return self.status is None

    def ask_to_end(self, grace: float) -> None:
        """Send SIGTERM to all its processes; `grace` seconds later SIGKILL is due."""
        due = time.monotonic() + grace
        self.kill_at = due if self.kill_at is None else min(self.kill_at, due)
        self._signal("SIGTERM")

    def kill(self) -> None:
        """Send SIGKILL."""
        self.killed_at = time.monotonic()
        self._signal("SIGKILL")

    def _signal(self, name: str) -> None:
        from docker.errors import APIError

        with suppress(APIError, OSError):  # it ended meanwhile; an engine that is gone shows when waiting
            self._container.kill(name)


class ContainerRun(Run):
    """One attempt at one stage, in a container."""

    output_within = ENGINE_ANSWERS_WITHIN  # the engine ends the stream, and on a busy machine not at once

    def __init__(self, order: Order, log: Log, wake: int) -> None:
        super().__init__(order, log, wake)
        self._order = order
        self._problem = ""

    def carry_out(self) -> None:
        """Make the container, follow it to its end, and remove it."""
        from docker.errors import DockerException

        wanted: dict[str, Any] = json.loads(self._order.text("container"))
        engine, name = wanted.pop("engine"), wanted["name"]
        client = None
        try:
            client = connect(engine, timeout=ENGINE_ANSWERS_WITHIN)
            remove_container(client, name)
            have_image(client, wanted["image"], say=lambda _: None)
            container = client.containers.create(environment=self._environment(), **wanted)
            self._follow_container(container, engine)
        except (DockerException, OSError) as error:
            self.cause, self.exit_code = "error", None
            self.detail = engine_error(error)
        except MlstackError as error:
            self.cause, self.exit_code = "error", None
            self.detail = str(error)
        finally:
            with suppress(DockerException, OSError):
                if client is not None:
                    remove_container(client, name)

    def _environment(self) -> dict[str, str]:
        """Return what anybody may see who can ask the engine; secrets go another way."""
        order = self._order
        shown = {name: value for name, value in order.env.items() if name not in order.secrets}
        return {os.fsdecode(name): os.fsdecode(value) for name, value in shown.items()}

    def _follow_container(self, container: "Container", engine: str | None) -> None:
        output = container.attach(stdout=True, stderr=True, stream=True, logs=False)
        group = ContainerGroup(container)
        reading, writing = os.pipe()
        try:
            self._start(container, engine)
            threading.Thread(target=self._copy, args=(output, writing), daemon=True, name="output").start()
            threading.Thread(target=self._wait, args=(container, group), daemon=True, name="end").start()
            self._follow(group, reading)
        finally:
            os.close(reading)
        self._judge(group)
        self._judge_container(container)

    def _start(self, container: "Container", engine: str | None) -> None:
        """Start it, and hand it the secrets that it waits for."""
        order = self._order
        if not order.secrets:
            container.start()
            return
        path = f"/containers/{container.id}/attach?stream=1&stdin=1"
        with hijack(engine_address({"host": engine}), path) as stdin:
            container.start()
            with suppress(ConnectionError):  # it ended meanwhile: whoever waits for it says so
                stdin.sendall(secrets_message({name: order.env[name] for name in order.secrets}))
                stdin.shutdown(socket.SHUT_WR)

    def _copy(self, output: Any, writing: int) -> None:
        """Hand the output to the loop that also watches the limits; runs in a thread."""
        from docker.errors import DockerException

        with suppress(DockerException, OSError):  # what ended it is told by the one who waits
            for chunk in output:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(writing, view) :]
        os.close(writing)

    def _wait(self, container: "Container", group: ContainerGroup) -> None:
        """Note how the container ended and wake the loop; runs in a thread."""
        from docker.errors import DockerException

        try:
            code = int(container.wait()["StatusCode"])
        except (DockerException, OSError) as error:
            code = _NO_STATUS
            self._problem = engine_error(error)
        group.status = (code & 0xFF) << 8
        os.kill(os.getpid(), signal.SIGCHLD)

    def _judge_container(self, container: "Container") -> None:
        if self._problem:
            self.cause, self.exit_code, self.detail = "error", None, self._problem
            return
        container.reload()
        state = container.attrs["State"]
        if state.get("OOMKilled") and self.cause in {"", "error"} and self.exit_code != 0:
            self.cause = "out-of-memory"
            self.detail = "the kernel ended it for lack of memory"
        elif state.get("Error"):
            self.cause = self.cause or "error"
            self.detail = str(state["Error"])


def main() -> None:
    """Carry out the order on standard input."""
    carry_out(ContainerRun)
