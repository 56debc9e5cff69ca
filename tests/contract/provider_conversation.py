"""Conversations with a plugin for Pulumi's engine, played from data: what the engine asks, what has to be answered.

A file of `pulumi_provider/` is one conversation. Its steps are calls of the provider protocol, and what others do to
the cluster meanwhile. As the engine does, the player remembers the last checked inputs and what is recorded of the
resource, and hands them to the next call. An answer may hold more than the file says; see `unlike`.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf import empty_pb2, json_format
from pulumi.runtime.proto import engine_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from tests.engines.pulumi_kubernetes.values import UNKNOWN, Secret, decode, encode

Data = dict[str, Any]

FORBIDDEN_TO_WAIT = 300.0
"""Seconds for one call; those of the files are answered in less than ten, on a machine that is not busy."""


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    about: str
    steps: list[Data]


def cases(folder: Path) -> list[Case]:
    """All conversations of a folder, by name."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        found.append(Case(path.stem, written["about"], written["steps"]))
    return found


class Plugin:
    """A running plugin, configured for a cluster."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.calls = provider_pb2_grpc.ResourceProviderStub(channel)

    def configure(self, settings: dict[str, str]) -> None:
        variables = {f"kubernetes:config:{key}": value for key, value in settings.items()}
        request = provider_pb2.ConfigureRequest(variables=variables, acceptSecrets=True, acceptResources=True)
        self.calls.Configure(request, timeout=FORBIDDEN_TO_WAIT)

    def cancel(self) -> None:
        """Ask it to end what it is waiting for, as the engine does on Ctrl-C."""
        self.calls.Cancel(empty_pb2.Empty(), timeout=FORBIDDEN_TO_WAIT)


@contextmanager
def running(program: Path) -> Iterator[Plugin]:
    """Start a plugin as the engine does, and end it."""
    engine = grpc.server(futures.ThreadPoolExecutor(8))
    quiet = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: empty_pb2.Empty(),
        request_deserializer=engine_pb2.LogRequest.FromString,
        response_serializer=empty_pb2.Empty.SerializeToString,
    )
    engine.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pulumirpc.Engine", {"Log": quiet}),))
    address = f"127.0.0.1:{engine.add_insecure_port('127.0.0.1:0')}"
    engine.start()
    with subprocess.Popen([program, address], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
                yield Plugin(channel)
        finally:
            process.kill()
            engine.stop(None)


@dataclass
class Player:
    """Plays one conversation, about one resource."""

    plugin: Plugin
    words: dict[str, str]
    """What stands for `$NAME` in a file."""
    checked: Data = field(default_factory=dict)
    recorded: Data = field(default_factory=dict)
    state: Data = field(default_factory=dict)
    identifier: str = ""
    type: str = ""

    @property
    def urn(self) -> str:
        return f"urn:pulumi:dev::contract::{self.type}::it"

    def ask(self, method: str, given: Data) -> Data:
        """Make one call and return its answer as plain data: of a failure, what it says."""
        if method == "Check":
            version = given["apiVersion"]
            self.type = f"kubernetes:{version if '/' in version else 'core/' + version}:{given['kind']}"
        try:
            return getattr(self, f"_{method.lower()}")(given)  # type: ignore[no-any-return]
        except grpc.RpcError as error:
            return self._failed(error, recorded=not given.get("preview"))

    def _check(self, given: Data) -> Data:
        request = provider_pb2.CheckRequest(urn=self.urn, olds=encode(self.recorded), news=encode(meant(given)))
        answer = self.plugin.calls.Check(request, timeout=FORBIDDEN_TO_WAIT)
        self.checked = decode(answer.inputs)
        return {"inputs": shown(self.checked), "failures": [each.reason for each in answer.failures]}

    def _diff(self, given: Data) -> Data:
        request = provider_pb2.DiffRequest(
            id=self.identifier, urn=self.urn, olds=encode(self.state), news=encode(self.checked),
            old_inputs=encode(self.recorded), ignoreChanges=given.get("ignore", []),
        )  # fmt: skip
        answer = json_format.MessageToDict(self.plugin.calls.Diff(request, timeout=FORBIDDEN_TO_WAIT))
        paths = answer.get("detailedDiff", {})
        return {
            "changes": answer.get("changes"),
            "diff": sorted(f"{each.get('kind', 'ADD')} {path}" for path, each in paths.items()),
            "replaces": sorted(answer.get("replaces", [])),
            "deleteBeforeReplace": answer.get("deleteBeforeReplace", False),
        }

    def _create(self, given: Data) -> Data:
        preview = bool(given.get("preview"))
        request = provider_pb2.CreateRequest(urn=self.urn, properties=encode(self.checked), preview=preview)
        answer = self.plugin.calls.Create(request, timeout=FORBIDDEN_TO_WAIT)
        if not preview:
            self.identifier, self.state, self.recorded = answer.id, decode(answer.properties), self.checked
        return {"id": answer.id, "properties": shown(decode(answer.properties))}

    def _update(self, given: Data) -> Data:
        preview = bool(given.get("preview"))
        request = provider_pb2.UpdateRequest(
            id=self.identifier, urn=self.urn, olds=encode(self.state), news=encode(self.checked),
            old_inputs=encode(self.recorded), preview=preview, ignoreChanges=given.get("ignore", []),
        )  # fmt: skip
        answer = self.plugin.calls.Update(request, timeout=FORBIDDEN_TO_WAIT)
        if not preview:
            self.state, self.recorded = decode(answer.properties), self.checked
        return {"properties": shown(decode(answer.properties))}

    def _read(self, given: Data) -> Data:
        self.identifier = given.get("id", self.identifier)
        self.type = given.get("type", self.type)
        request = provider_pb2.ReadRequest(
            id=self.identifier, urn=self.urn, properties=encode(self.state), inputs=encode(self.recorded)
        )
        answer = self.plugin.calls.Read(request, timeout=FORBIDDEN_TO_WAIT)
        if answer.id:
            self.state, self.recorded = decode(answer.properties), decode(answer.inputs)
        return {"id": answer.id, "properties": shown(decode(answer.properties)), "inputs": shown(decode(answer.inputs))}

    def _delete(self, given: Data) -> Data:
        request = provider_pb2.DeleteRequest(
            id=self.identifier, urn=self.urn, properties=encode(self.state), timeout=given.get("timeout", 0.0)
        )
        self.plugin.calls.Delete(request, timeout=FORBIDDEN_TO_WAIT)
        return {}

    def note(self, identifier: str) -> None:
        """Record what was checked as if it had been made, as mlstack does with what it takes in."""
        self.identifier, self.state, self.recorded = identifier, self.checked, self.checked

    def _failed(self, error: Any, *, recorded: bool) -> Data:
        failed: Data = {"error": error.details(), "code": error.code().name}
        for key, value in error.trailing_metadata() or ():
            if key != "grpc-status-details-bin":
                continue
            for detail in status_pb2.Status.FromString(value).details:
                partial = provider_pb2.ErrorResourceInitFailed()
                if detail.Unpack(partial):
                    failed |= {"id": partial.id, "reasons": list(partial.reasons)}
                    failed["properties"] = shown(decode(partial.properties))
                    if recorded:
                        self.identifier, self.state = partial.id, decode(partial.properties)
                        self.recorded = decode(partial.inputs) if partial.HasField("inputs") else self.checked
        return failed

    def put_in(self, given: Any) -> Any:
        """A step with its words replaced."""
        if isinstance(given, str):
            for word, meant in self.words.items():
                given = given.replace(f"${word}", meant)
            return given
        if isinstance(given, dict):
            return {self.put_in(key): self.put_in(value) for key, value in given.items()}
        return [self.put_in(each) for each in given] if isinstance(given, list) else given


UNKNOWN_WORD, SECRET_KEY = "$UNKNOWN", "$secret"
"""How files write a value that is known after apply; `{$secret: value}` is one that Pulumi keeps encrypted."""


def meant(written: Any) -> Any:
    """The value that a file writes."""
    if isinstance(written, dict):
        if written.keys() == {SECRET_KEY}:
            return Secret(meant(written[SECRET_KEY]))
        return {key: meant(value) for key, value in written.items()}
    if isinstance(written, list):
        return [meant(each) for each in written]
    return UNKNOWN if written == UNKNOWN_WORD else written


def shown(value: Any) -> Any:
    """A value as a file writes it."""
    if isinstance(value, Secret):
        return {SECRET_KEY: shown(value.value)}
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(each) for each in value]
    return UNKNOWN_WORD if value is UNKNOWN else value


@contextmanager
def meanwhile(act: Any) -> Iterator[None]:
    """Do something beside a call; what goes wrong with it comes up here."""
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - handed over to the thread of the test
            wrong.append(error)

    beside = threading.Thread(target=run)
    beside.start()
    try:
        yield
    finally:
        beside.join()
        if wrong:
            raise wrong[0]


def unlike(expected: Any, found: Any, path: str = "") -> list[str]:
    """What an answer lacks: maps may hold more, lists may not; `~` begins a regular expression; null: nothing there."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [each for key, value in expected.items() for each in unlike(value, found.get(key), f"{path}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            each for index, value in enumerate(expected) for each in unlike(value, found[index], f"{path}[{index}]")
        ]
    if isinstance(expected, str) and expected.startswith("~") and isinstance(found, str):
        return [] if re.search(expected[1:], found, re.DOTALL) else [f"{path}: {found!r} does not match {expected}"]
    return [] if expected == found else [f"{path}: {found!r} is not {expected!r}"]
