"""One server from its start to its end: socket, model, ready file, handover, graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn

from .app import ModelService, build_app
from .faults import StartError, first_line
from .guard import PatientConnection, check_usable
from .handover import Predecessor, offer
from .log_output import mask_output, rotate_log
from .models import ServedModel, load_model
from .settings import TOKEN, ServerSettings, load_settings

# Rounds of the event loop from accepting a connection to uvicorn's knowing of it: task, transport, protocol; and spare.
ROUNDS_TO_CONNECT = 8
BACKLOG = 1024
log = logging.getLogger("mlstack.serving")


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: this module decides when the server ends."""

    def install_signal_handlers(self) -> None:  # uvicorn before 0.29
        """Do nothing."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


class ModelServer:
    """The process's one server."""

    def __init__(self, settings: ServerSettings, *, token: str | None = None) -> None:
        self.settings = settings
        self.token = token
        self.service = ModelService(settings, pid=os.getpid(), token=token)
        config = uvicorn.Config(
            build_app(self.service),
            loop="asyncio",
            http=PatientConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive,
            backlog=BACKLOG,
        )
        config.load()
        self.uvicorn = _Uvicorn(config)
        self.listening: socket.socket | None = None
        self.stopping = asyncio.Event()
        self.linger = settings.linger
        self.clean = True
        self.replaced = False

    async def run(self) -> None:
        """Serve until told to end.

        Raises:
            StartError: if the server could not start. What the model raised while loading goes through.
        """
        if self.token is not None:
            check_usable(self.token)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, self.settings.linger)
        predecessor = Predecessor(self.settings.take_over) if self.settings.take_over else None

        def taken() -> None:
            self.replaced = True
            loop.call_soon_threadsafe(self._stop, self.settings.keep_alive + 0.5)

        offer(
            self.settings.folder,
            get_socket=lambda: self.listening if self.service.ready() else None,
            on_taken=taken,
        )
        serving: asyncio.Task[None] | None = None
        if predecessor is None:
            # Listening comes first: a port in use is known at once, and clients get a 503 that says why.
            self.listening = bind(self.settings)
            serving = await self._listen()
        try:
            model = await self._load()
            if predecessor is not None:
                self.listening = predecessor.take()
                serving = await self._listen()
                predecessor.serving()
            if model is not None and not self.stopping.is_set():
                self._announce()
                await self._watch()
        finally:
            if serving is not None:
                await self._end(serving)

    async def _load(self) -> ServedModel | None:
        """Load the model in the thread that will call it; None when told to stop meanwhile."""
        began = time.monotonic()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        loading = asyncio.get_running_loop().run_in_executor(executor, load_model, self.settings.model)
        stopped = asyncio.ensure_future(self.stopping.wait())
        waiting: set[asyncio.Future[Any]] = {loading, stopped}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not loading.done():
            self.clean = False  # its thread cannot be ended: the process has to go without it
            return None
        model = loading.result()
        if model.workers > 1:
            executor.shutdown(wait=False)
            executor = ThreadPoolExecutor(max_workers=model.workers, thread_name_prefix="model")
        self.service.executor = executor
        self.service.model = model
        log.info("%s version %s loaded in %.1f s", self.service.name, self.service.version, time.monotonic() - began)
        return model

    async def _listen(self) -> asyncio.Task[None]:
        serving = asyncio.ensure_future(self.uvicorn.serve(sockets=[self.listening] if self.listening else []))
        while not self.uvicorn.started and not serving.done():  # noqa: ASYNC110  (uvicorn has a flag, no event)
            await asyncio.sleep(0.005)
        if serving.done():
            serving.result()
            raise StartError("listen", "The server ended before it listened.")
        return serving

    def _announce(self) -> None:
        """Write the ready file, whole or not at all."""
        host, port = (self.listening.getsockname() if self.listening else ("", 0))[:2]
        shown = f"[{host}]" if ":" in host else host
        ready = {"pid": os.getpid(), "host": host, "port": port, "url": f"http://{shown}:{port}"}
        write_whole(self.settings.folder / "ready.json", ready)
        log.info("ready at %s", ready["url"])

    async def _watch(self) -> None:
        """Wait for the end; keep the log within its bound meanwhile."""
        while not self.stopping.is_set():
            rotate_log(self.settings.folder / "server.log", limit=self.settings.log_bytes)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), timeout=5)

    def _stop(self, linger: float) -> None:
        self.linger = linger
        if not self.stopping.is_set():
            log.info("ending; %d requests in flight", self.service.in_flight)
        self.stopping.set()

    async def _end(self, serving: asyncio.Task[None]) -> None:
        """Accept no more, answer what is in flight, and end.

        Idle connections are kept for `linger` seconds: a request that is just on its way on one of them is answered
        (and its connection closed). After a handover that is as long as an idle connection lives anyway.
        """
        self.service.draining = True
        await stop_accepting(getattr(self.uvicorn, "servers", ()))
        began = time.monotonic()
        connections = self.uvicorn.server_state.connections
        while time.monotonic() - began < self.settings.grace:
            passed = time.monotonic() - began
            if not self.service.in_flight and (not connections or passed > self.linger):
                break
            await asyncio.sleep(0.02)
        left = self.service.in_flight
        if left:
            log.warning("%d requests were not answered within %.0f s", left, self.settings.grace)
            self.clean = False
            self.uvicorn.force_exit = True
        self.uvicorn.should_exit = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(serving, timeout=2)
        log.info("ended")


async def stop_accepting(servers: Sequence[asyncio.Server]) -> None:
    """Accept no more, without losing what has just been accepted; a successor's descriptor of the socket stays open.

    asyncio drops a connection whose task has not begun when its server is closed (`Server._attach` asserts that it is
    open), and the client sees a reset. So listening ends first, and closing follows when those tasks have run.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
    for _ in range(ROUNDS_TO_CONNECT):
        await asyncio.sleep(0)
    for server in servers:
        server.close()


def bind(settings: ServerSettings) -> socket.socket:
    """Bind the given port, or the first free candidate.

    Raises:
        StartError: "port-in-use" or "bind".
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    tried = (settings.port,) if settings.port is not None else settings.candidates
    failure: OSError | None = None
    for port in tried:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, port))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            failure = error
        else:
            return listening
    what = f"port {settings.port}" if settings.port is not None else f"any of {len(tried)} ports"
    code = "port-in-use" if failure is not None and failure.errno == errno.EADDRINUSE else "bind"
    reason = failure.strerror if failure is not None else "none was given"
    raise StartError(code, f"{what} on {settings.host} cannot be listened on: {reason}.")


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def prepare(settings_file: Path) -> ModelServer:
    """Read the settings and make the server, with all imports that it will ever need of its own packages.

    Raises:
        StartError: "settings".
    """
    settings = load_settings(settings_file)
    mask_output(os.environ.get(name, "") for name in settings.secrets)
    # The model's code has no use for it, and could give it away.
    token = os.environ.pop(TOKEN, "") if TOKEN in settings.secrets else None
    return ModelServer(settings, token=token)


def serve(server: ModelServer) -> tuple[int, bool]:
    """Run the server to its end; return the exit code, and whether no thread is left that could hold the process up.

    A start that failed is told in `failed.json` (code and sentence) and, with its traceback, in the log. The code is 0
    only when another server has taken this one's place: an engine that starts containers again leaves that one alone.
    """
    failure: dict[str, str] | None = None
    try:
        asyncio.run(server.run())
    except StartError as fault:
        failure = {"code": fault.code, "sentence": fault.sentence}
        log.error("%s", fault.sentence)  # noqa: TRY400  (the sentence says it all)
    except (Exception, SystemExit) as error:  # user code may do anything, even ask to exit
        failure = {"code": "model-load", "sentence": f"The model does not load: {first_line(error)}."}
        log.exception("the model does not load")
    if failure is not None:
        write_whole(server.settings.folder / "failed.json", failure)
        return 3, server.clean
    return 0 if server.replaced else 128 + signal.SIGTERM, server.clean
