# ruff: noqa: N802 - the names of methods are the protocol's
"""A provider for Pulumi's real engine whose world is a folder: each resource is a JSON file named after its `name`.

Tests look at the folder, change files behind the engine's back, and tell the provider by `.orders/NAME.json` what shall
happen to a resource: `{"fail": "create"}`, `{"unreadable": true}`, `{"slow": 600}` (seconds; the end of that order ends
it, too), `{"until_cancelled": true}`. It speaks the provider protocol with Pulumi's own stubs, and nothing in the
product knows of it. Inputs: `name` (the ID), `kind` (a change replaces), and any other. `.calls` has one line for each
call that changed something.
"""

import json
import os
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(struct)
    return found


def to_struct(values: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())


class Filed(provider_pb2_grpc.ResourceProviderServicer):
    """What the engine calls."""

    def __init__(self) -> None:
        self.folder = Path()
        self.cancelled = threading.Event()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="1.0.0")

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema='{"name": "filed", "version": "1.0.0"}')

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return _diff(to_dict(request.olds), to_dict(request.news), replacing="folder")

    def Configure(self, request: Any, context: Any) -> Any:
        self.folder = Path(to_dict(request.args).get("folder", "."))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request: Any, context: Any) -> Any:
        news = to_dict(request.news)
        if not news.get("name"):
            failure = provider_pb2.CheckFailure(property="name", reason="a file needs a name")
            return provider_pb2.CheckResponse(inputs=request.news, failures=[failure])
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        return _diff(to_dict(request.old_inputs), to_dict(request.news), replacing="kind")

    def Create(self, request: Any, context: Any) -> Any:
        inputs = to_dict(request.properties)
        name = inputs["name"]
        if request.preview:
            return provider_pb2.CreateResponse(id="", properties=to_struct(inputs | {"made": _UNKNOWN}))
        self._obey("create", name, context)
        if (self.folder / f"{name}.json").exists():
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} exists already")
        self._write(name, inputs)
        with (self.folder / ".created").open("a") as log:  # calls are noted before: one that is killed makes nothing
            log.write(f"{name}\n")
        return provider_pb2.CreateResponse(id=name, properties=to_struct(self._outputs(name)))

    def Read(self, request: Any, context: Any) -> Any:
        order = self._order(request.id)
        if order.get("unreadable"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "the world cannot be reached")
        if not (self.folder / f"{request.id}.json").exists():
            return provider_pb2.ReadResponse(id="")
        outputs = self._outputs(request.id)
        inputs = {key: value for key, value in outputs.items() if key != "made"}
        return provider_pb2.ReadResponse(id=request.id, properties=to_struct(outputs), inputs=to_struct(inputs))

    def Update(self, request: Any, context: Any) -> Any:
        inputs = to_dict(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=to_struct(inputs | {"made": _UNKNOWN}))
        self._obey("update", request.id, context)
        self._write(request.id, inputs)
        return provider_pb2.UpdateResponse(properties=to_struct(self._outputs(request.id)))

    def Delete(self, request: Any, context: Any) -> Any:
        self._obey("delete", request.id, context)
        (self.folder / f"{request.id}.json").unlink(missing_ok=True)
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        self.cancelled.set()
        return empty_pb2.Empty()

    def _obey(self, call: str, name: str, context: Any) -> None:
        with (self.folder / ".calls").open("a") as log:
            log.write(f"{call} {name}\n")
        order = self._order(name)
        until = time.monotonic() + float(order.get("slow", 0))
        while time.monotonic() < until and "slow" in self._order(name):  # the test may have it go on
            time.sleep(0.02)
        if "until_cancelled" in order:
            self.cancelled.wait(600)
        if order.get("fail") in (call, "all"):
            context.abort(grpc.StatusCode.UNKNOWN, f"the order says that {call} of {name} fails")

    def _order(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / ".orders" / f"{name}.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def _write(self, name: str, inputs: dict[str, Any]) -> None:
        path = self.folder / f"{name}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(inputs, indent=1, sort_keys=True))
        temporary.replace(path)

    def _outputs(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found | {"made": str(path)}


def _diff(olds: dict[str, Any], news: dict[str, Any], *, replacing: str) -> Any:
    found = {}
    for key in sorted(olds.keys() | news.keys()):
        if olds.get(key) != news.get(key):
            kind = "ADD" if key not in olds else "DELETE" if key not in news else "UPDATE"
            kind += "_REPLACE" if key == replacing else ""
            found[key] = provider_pb2.PropertyDiff(kind=provider_pb2.PropertyDiff.Kind.Value(kind), inputDiff=True)
    changes = provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(
        changes=changes,
        diffs=list(found),
        replaces=[key for key in found if key == replacing],
        detailedDiff=found,
        hasDetailedDiff=True,
        deleteBeforeReplace=True,
    )


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Filed(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    parent = os.getppid()
    while os.getppid() == parent:  # a killed engine takes it along
        time.sleep(0.02)
    os._exit(0)  # with whatever is in flight, as if it had been killed itself


if __name__ == "__main__":
    main()
