"""What the engine calls back while it works: the program that it runs, and the place where its events go."""

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    events_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    resource_pb2_grpc,
)

from mlstack.drivers.pulumi.program import StackProgram

# Loopback only: a proxy in the environment is not meant, and states of large objects exceed gRPC's 4 MB.
_OPTIONS = (("grpc.max_receive_message_length", 400 << 20), ("grpc.enable_http_proxy", 0), ("grpc.so_reuseport", 0))
_THREADS = 8
_STOPS_WITHIN = 5.0

OnEvent = Callable[[str], None]


class Host(language_pb2_grpc.LanguageRuntimeServicer, events_pb2_grpc.EventsServicer):
    """Runs one program for one call of the engine, and hands on what the engine reports.

    `problem` is the first exception of either: gRPC would only log it.
    """

    def __init__(self, program: StackProgram | None, on_event: OnEvent) -> None:
        self._program = program
        self._on_event = on_event
        self.problem: Exception | None = None

    # The names below are the protocol's.

    def Run(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Run the program against the engine that asks."""
        try:
            with grpc.insecure_channel(request.monitor_address, options=_OPTIONS) as channel:
                monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
                if self._program is not None:
                    self._program.run(monitor.RegisterResource.future, project=request.project, stack=request.stack)
        except grpc.RpcError as error:
            # The engine goes: a failed step, or a call that was interrupted. It has said so, or will.
            return language_pb2.RunResponse(error=str(error.details()), bail=True)
        except Exception as error:  # noqa: BLE001 - kept and raised in `run_engine`: here only gRPC would see it
            self.problem = self.problem or error
            return language_pb2.RunResponse(error=f"{type(error).__name__}: {error}")
        return language_pb2.RunResponse()

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Name no plugins: the program's providers name theirs, with versions."""
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Name no packages: the program's providers name theirs, with versions."""
        return language_pb2.GetRequiredPackagesResponse()

    def About(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Say nothing of a runtime; it is asked when something fails."""
        return language_pb2.AboutResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Say nothing of a version."""
        return plugin_pb2.PluginInfo()

    def StreamEvents(self, request_iterator: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Take the engine's events, one JSON text each."""
        for request in request_iterator:
            if self.problem is not None:
                continue  # the engine waits for its stream to be read
            try:
                self._on_event(request.event)
            except Exception as error:  # noqa: BLE001 - kept and raised in `run_engine`: here only gRPC would see it
                self.problem = error
        return empty_pb2.Empty()


@contextmanager
def serving(host: Host) -> Iterator[str]:
    """Serve a host on a port of this machine's loopback; yields `127.0.0.1:PORT`."""
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="pulumi"), options=_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    events_pb2_grpc.add_EventsServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(_STOPS_WITHIN).wait()
