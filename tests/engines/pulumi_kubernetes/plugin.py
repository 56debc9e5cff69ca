# ruff: noqa: N802 - the methods are named as the protocol names them
"""The plugin's process: speaks Pulumi's provider protocol on a port of its own, which it prints."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import empty_pb2

from tests.engines.pulumi_kubernetes import settings
from tests.engines.pulumi_kubernetes.install import VERSION
from tests.engines.pulumi_kubernetes.protocol import engine_pb2, plugin_pb2, provider_pb2, status_pb2
from tests.engines.pulumi_kubernetes.provider import PartialError, Provider, RefusedError
from tests.engines.pulumi_kubernetes.values import decode, encode

THREADS = 512
"""More than the engine ever has calls open: each waits in a thread of its own."""

UNLIMITED = [("grpc.max_receive_message_length", 400 << 20), ("grpc.max_send_message_length", 400 << 20)]


class Service:
    """The methods of `pulumirpc.ResourceProvider` that a real provider has, too; the engine gets by without others."""

    def __init__(self, engine: str) -> None:
        self._engine = grpc.insecure_channel(engine, options=UNLIMITED) if engine else None
        self._provider: Provider | None = None
        self._stopped = threading.Event()

    @property
    def provider(self) -> Provider:
        if self._provider is None:
            raise RefusedError("the provider was asked before it was configured")
        return self._provider

    def _warn(self, urn: str, message: str) -> None:
        if self._engine is None:
            return
        log = self._engine.unary_unary(
            "/pulumirpc.Engine/Log",
            request_serializer=engine_pb2.LogRequest.SerializeToString,
            response_deserializer=empty_pb2.Empty.FromString,
        )
        log(engine_pb2.LogRequest(severity=engine_pb2.WARNING, message=message, urn=urn))

    # --------------------------------------------------------------------------------------------- configuration

    def CheckConfig(self, request: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any) -> Any:
        changed, replaces = settings.diff_config(decode(request.olds), decode(request.news))
        some = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=some, diffs=changed, replaces=replaces)

    def Configure(self, request: Any) -> Any:
        self._provider = Provider(settings.configure(dict(request.variables)), self._warn)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def GetPluginInfo(self, _request: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def Attach(self, request: Any) -> Any:
        self._engine = grpc.insecure_channel(request.address, options=UNLIMITED)
        return empty_pb2.Empty()

    def Cancel(self, _request: Any) -> Any:
        if self._provider is not None:
            self._provider.cancelled.set()
        return empty_pb2.Empty()

    # ------------------------------------------------------------------------------------------------- resources

    def Check(self, request: Any) -> Any:
        proposed = None
        if request.HasField("autonaming"):
            modes = provider_pb2.CheckRequest.AutonamingOptions
            proposed = "" if request.autonaming.mode == modes.DISABLE else request.autonaming.proposed_name
        old, new = decode(request.olds), decode(request.news)
        checked = self.provider.check(request.urn, old, new, seed=request.randomSeed, proposed=proposed)
        return provider_pb2.CheckResponse(inputs=encode(checked))

    def Diff(self, request: Any) -> Any:
        found, delete_first = self.provider.diff(decode(request.olds), decode(request.news))
        found = {path: each for path, each in found.items() if not _ignored(path, request.ignoreChanges)}
        kinds = provider_pb2.PropertyDiff.Kind
        replaces = [
            path
            for path, (kind, _) in found.items()
            if kind.endswith("_REPLACE") or (path, kind) == ("metadata", "DELETE")
        ]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and delete_first,
            detailedDiff={
                path: provider_pb2.PropertyDiff(kind=kinds.Value(kind), inputDiff=gone)
                for path, (kind, gone) in found.items()
            },
            hasDetailedDiff=True,
        )

    def Create(self, request: Any) -> Any:
        properties = decode(request.properties)
        made, state = self.provider.create(request.urn, properties, preview=request.preview, timeout=request.timeout)
        return provider_pb2.CreateResponse(id=made, properties=encode(state))

    def Read(self, request: Any) -> Any:
        state, old = decode(request.properties), decode(request.inputs)
        identifier, state, inputs = self.provider.read(request.urn, request.id, state, old)
        if not identifier:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=identifier, properties=encode(state), inputs=encode(inputs))

    def Update(self, request: Any) -> Any:
        state = self.provider.update(
            request.urn,
            decode(request.olds),
            decode(request.news),
            preview=request.preview,
            ignored=list(request.ignoreChanges),
            timeout=request.timeout,
        )
        return provider_pb2.UpdateResponse(properties=encode(state))

    def Delete(self, request: Any) -> Any:
        self.provider.delete(request.urn, request.id, decode(request.properties), timeout=request.timeout)
        return empty_pb2.Empty()


def _ignored(path: str, ignored: Any) -> bool:
    return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in ignored)


# ------------------------------------------------------------------------------------------------------ the server

_METHODS: dict[str, Any] = {
    "CheckConfig": provider_pb2.CheckRequest,
    "DiffConfig": provider_pb2.DiffRequest,
    "Configure": provider_pb2.ConfigureRequest,
    "GetPluginInfo": empty_pb2.Empty,
    "Attach": plugin_pb2.PluginAttach,
    "Cancel": empty_pb2.Empty,
    "Check": provider_pb2.CheckRequest,
    "Diff": provider_pb2.DiffRequest,
    "Create": provider_pb2.CreateRequest,
    "Read": provider_pb2.ReadRequest,
    "Update": provider_pb2.UpdateRequest,
    "Delete": provider_pb2.DeleteRequest,
}


def _handler(method: Callable[[Any], Any], request: Any) -> grpc.RpcMethodHandler:
    def handle(asked: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(asked)
        except PartialError as error:
            _fail_partially(context, error)
        except RefusedError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
    )


def _fail_partially(context: grpc.ServicerContext, error: PartialError) -> None:
    """Fail with what is live as a detail of the error, which is how the engine gets to record it."""
    detail = provider_pb2.ErrorResourceInitFailed(
        id=error.identifier, properties=encode(error.state), reasons=error.reasons
    )
    if error.inputs is not None:
        detail.inputs.CopyFrom(encode(error.inputs))
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
    status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, str(error))


def serve(engine: str) -> None:
    """Answer the engine's calls until it ends this process, or is gone itself: killed, it ends nothing."""
    parent = os.getppid()
    service = Service(engine)
    server = grpc.server(ThreadPoolExecutor(THREADS), options=UNLIMITED)
    handlers = {name: _handler(getattr(service, name), request) for name, request in _METHODS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pulumirpc.ResourceProvider", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while server.wait_for_termination(timeout=1.0) and os.getppid() == parent:
        pass
    os._exit(0)  # calls that still wait for something would hold the process


def main() -> None:
    """Run as the engine's plugin: the only argument is the engine's address."""
    serve(sys.argv[1] if len(sys.argv) > 1 else "")
