"""Endpoints on this machine: one model server each, which stays when the command has ended.

`status` and `plan` say when one is down, and `apply` brings it back. What the servers live in is their housing:
processes here, containers in `mlstack.drivers.docker.endpoints`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlstack.diagnostics import Diagnostic, MlstackError, Severity, raise_errors
from mlstack.drivers.base import Absent, NotChecked, Observation, Present, Say, StepContext
from mlstack.drivers.local.endpoint_attributes import attributes_of, check_models
from mlstack.drivers.local.endpoint_housing import Housing, Job, facts_of, name_of, recorded_server
from mlstack.drivers.local.endpoint_process import Health, ask_ready, connectable, machine_identity
from mlstack.drivers.local.endpoint_processes import FindPython, Processes, locked_python
from mlstack.drivers.local.endpoint_server import Running, endpoint_folder, is_ready, remove_others
from mlstack.drivers.local.endpoint_start import digest_of, make_server
from mlstack.drivers.stacks import UNIT
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Endpoint, Pool, Resource
from mlstack.state.environment_folder import OWN_FOLDER, ensure_own_folder
from mlstack.state.identity import host_name, now_iso
from mlstack.state.state import Record

LOOPBACK = "127.0.0.1"
_NOT_OF_SERVERS = ("replicas", "port", "target")


class LocalEndpoints:
    """The driver of endpoints whose pool has `target: local`."""

    name = "local-endpoint"

    target = "local"
    folder = "endpoints"
    """Below mlstack's own folder: where the folders of its servers are."""

    def __init__(
        self,
        *,
        find_python: FindPython = locked_python,
        start_timeout: float = 300.0,
        stop_grace: float = 35.0,
        patience: float = 10.0,
        root: Path | None = None,
    ) -> None:
        self._find_python = find_python
        self._start_timeout = start_timeout
        self._stop_grace = stop_grace
        self._patience = patience
        self._root = root if root is not None else Path.cwd()

    # ------------------------------------------------------------------------------- what containers do differently

    def housing(self, known: Mapping[str, Any]) -> Housing:
        """Return what the servers live in, given the attributes of an endpoint."""
        del known
        return Processes(self._find_python)

    def listens_on(self, endpoint: Endpoint, graph: ResourceGraph) -> str:
        """Return the address that the server is to listen on."""
        return str(_pool(endpoint, graph).settings.get("host", LOOPBACK))

    def own_attributes(self, endpoint: Endpoint, graph: ResourceGraph) -> dict[str, Any]:
        """Return the attributes that only this kind of housing has; a server is replaced when one of them changes."""
        del endpoint, graph
        return {}

    # ------------------------------------------------------------------------------------------------ planning

    def check(self, endpoint: Endpoint, graph: ResourceGraph | None = None) -> Sequence[Diagnostic]:
        """Say what this version cannot do for an endpoint on this machine, and what has no effect here."""
        found = [] if graph is None else list(check_models(endpoint, graph, where="on this machine"))
        if endpoint.replicas.min > 1:
            found.append(
                Diagnostic(
                    code="replicas-on-one-machine",
                    summary="Only one replica runs on this machine",
                    detail=f"{endpoint.address} asks for at least {endpoint.replicas.min}; here one process serves it.",
                    severity=Severity.WARNING,
                    address=endpoint.address,
                )
            )
        host = self.listens_on(endpoint, graph) if graph is not None else LOOPBACK
        if not _is_loopback(host):
            found.append(_open_to_others(endpoint, host))
        return found

    def desired(
        self, resource: Resource, graph: ResourceGraph, versions: Mapping[Address, str | None]
    ) -> dict[str, Any]:
        """Return the attributes that the endpoint should have; a model's version of None is known after apply."""
        endpoint = _as_endpoint(resource)
        found: dict[str, Any] = {
            **attributes_of(endpoint, graph, versions, root=self._root),
            "listen": self.listens_on(endpoint, graph),
            "target": self.target,
            **self.own_attributes(endpoint, graph),
        }
        if endpoint.port is not None:
            found["port"] = endpoint.port
        return found

    def read(self, resource: Resource | None, record: Record | None) -> Observation:  # noqa: ARG002
        """Ask the recorded server whether it is ready; one that does not answer is waited for, it may only be busy."""
        if record is None:
            return Absent(reason="never made")
        known = record.attributes
        if known.get("machine") != machine_identity():
            return NotChecked(reason=f"it runs on {known.get('host', 'another machine')}, not here")
        current = recorded_server(known)
        if current is None:
            return Absent(reason="its record is of another version of mlstack")
        health = ask_ready(connectable(current.host), current.port, timeout=self._patience)
        problem = _judge(health, current, record)
        if health is None or not current.is_who_answered(health):
            gone = self.housing(known).why_gone(current)
            if gone:
                return Absent(reason=gone)
        observed = {"ready": problem is None, "url": current.url, "bound_port": current.port}
        return Present(attributes=observed if problem is None else observed | {"reason": problem})

    # ------------------------------------------------------------------------------------------------ carrying out

    def apply(self, change: Change, context: StepContext) -> Record:
        """Start a server for what the file says, let it take the old one's place, and return its record.

        The old server answers until the new one does; if the new one does not start, the old one stays. Raises
        `MlstackError`.
        """
        endpoint = _as_endpoint(context.resource)
        raise_errors(self.check(endpoint, context.graph))
        for record in (context.record, context.foreign):
            if record is not None and UNIT not in record.attributes:  # what is in a stack is on no machine
                _check_is_here(record)  # else a second server would start, and nobody would know of the first
        versions: dict[Address, str | None] = {Address(name): found for name, found in context.versions.items()}
        attributes = self.desired(endpoint, context.graph, versions)
        wanted = digest_of(self._of_server(attributes))
        folder = self._folder(context, endpoint.address)
        housing = self.housing(attributes)
        current = _living(context.record, housing)
        try:
            strays = _ready_strays(folder, current, housing, patience=self._patience)
            running = None
            if change.action is not Action.REPLACE:
                running = self._find(current, strays, wanted, endpoint.port)
            if running is None:
                # What a killed apply has left behind must not hold the port, or take it over later; but if it is what
                # serves now, it is what is replaced.
                current = current or next(iter(strays), None)
                self._stop_others(folder, None, housing, keep=current, say=context.say)
                job = Job(
                    endpoint=endpoint,
                    context=context,
                    attributes=attributes,
                    digest=wanted,
                    folder=folder,
                    current=current,
                    foreign=recorded_server(context.foreign.attributes) if context.foreign is not None else None,
                    start_timeout=self._start_timeout,
                    stop_grace=self._stop_grace,
                    patience=self._patience,
                )
                running = make_server(job, housing)
            elif current is None or running.folder != current.folder:
                context.say(f"{name_of(running)} of an earlier apply serves this already")
            housing.settle(running)
            self._stop_others(folder, current, housing, keep=running, say=context.say)
            remove_others(folder, keep=[running.folder])
        except OSError as error:
            raise MlstackError(_disk(error, folder, endpoint.address)) from error
        return self._record(endpoint, attributes, running, context.record)

    def _record(
        self, endpoint: Endpoint, attributes: dict[str, Any], running: Running, before: Record | None
    ) -> Record:
        known = before.attributes if before is not None else {}
        started = known.get("started") if known.get("instance") == running.instance else None
        found = {"machine": machine_identity(), "host": host_name(), "started": started or now_iso()}
        return Record(address=endpoint.address, driver=self.name, attributes=attributes | found | facts_of(running))

    def delete(self, record: Record, context: StepContext) -> None:
        """End the server and remove its folder; what is gone already succeeds. Raises `MlstackError`."""
        known = record.attributes
        _check_is_here(record)
        folder = Path(str(known.get("folder", ""))).parent
        if folder.parts[-4:-2] != (OWN_FOLDER, self.folder):  # an edited record must not name what is to be removed
            folder = self._folder(context, record.address)
        housing = self.housing(known)
        self._stop_others(folder, _living(record, housing), housing, keep=None, say=context.say)
        try:
            from mlstack.drivers.local.endpoint_content import remove_tree

            remove_tree(folder)
        except OSError as error:
            raise MlstackError(_disk(error, folder, record.address)) from error

    # ------------------------------------------------------------------------------------------------ parts

    def _find(
        self, current: Running | None, strays: Sequence[Running], wanted: str, port: int | None
    ) -> Running | None:
        """Return a server that already serves what is wanted."""
        for running in (current, *strays):
            if running is None or running.digest != wanted or port not in {None, running.port}:
                continue
            if running is not current or is_ready(running, patience=self._patience):
                return running
        return None

    def _stop_others(
        self, folder: Path, current: Running | None, housing: Housing, *, keep: Running | None, say: Say
    ) -> None:
        """End the server of the record, and those that a killed apply has left behind."""
        if current is not None and (keep is None or current.folder != keep.folder):
            if keep is not None and (current.host, current.port) == (keep.host, keep.port):
                # It has handed over and ends by itself when what it was asked is answered.
                say("the server before answers what it was asked, and ends")
                housing.wait_gone(current, seconds=self._stop_grace)
            if any(_is_same(found, current) for found in housing.below(current.folder.parent)):
                housing.stop(current, grace=self._stop_grace, say=say)  # and not whatever an edited record names
        for found in housing.below(folder):
            if keep is None or found.folder != keep.folder:
                housing.stop(found, grace=self._stop_grace, say=say)

    def _of_server(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a running server depends on: a change of anything else is only recorded."""
        variants = {
            name: {key: value for key, value in variant.items() if key != "weight"}
            for name, variant in attributes["variants"].items()
        }
        kept = {name: value for name, value in attributes.items() if name not in _NOT_OF_SERVERS}
        return {**kept, "variants": variants}

    def _folder(self, context: StepContext, address: Address) -> Path:
        own = ensure_own_folder(context.root)
        return endpoint_folder(own, self.folder, context.graph.spec.environment, address).resolve()


def _living(record: Record | None, housing: Housing) -> Running | None:
    """Return the recorded server if it is still there."""
    found = recorded_server(record.attributes) if record is not None else None
    return found if found is not None and housing.lives(found) else None


def _is_same(one: Running, other: Running) -> bool:
    return (one.pid, one.container) == (other.pid, other.container)


def _ready_strays(folder: Path, current: Running | None, housing: Housing, *, patience: float) -> list[Running]:
    """Return the servers below an endpoint's folder that are ready and not recorded: of an apply that was killed."""
    found = [running for running in housing.below(folder) if current is None or running.folder != current.folder]
    return [running for running in found if is_ready(running, patience=patience)]


def _judge(health: Health | None, current: Running, record: Record) -> str | None:
    """Say what is wrong with a server if it is there; None when it is ready."""
    if health is None:
        return f"{name_of(current)} does not answer on port {current.port}"
    if not current.is_who_answered(health):
        return f"port {current.port} is answered by {f'process {health.pid}' if health.pid else 'another program'}"
    if health.status != 200:
        return f"{name_of(current)} says that it is not ready"
    versions = {str(variant.get("version")) for variant in record.attributes.get("variants", {}).values()}
    if health.version not in versions:
        return f"it serves version {health.version}, which is not the recorded one"
    return None


def _check_is_here(record: Record) -> None:
    if record.attributes.get("machine") != machine_identity():
        raise MlstackError(
            Diagnostic(
                code="endpoint-elsewhere",
                summary="The endpoint runs on another machine",
                detail=f"{record.address} runs on {record.attributes.get('host')} and can only be changed there.",
                hint="Run the command on that machine.",
                address=record.address,
            )
        )


def _pool(endpoint: Endpoint, graph: ResourceGraph) -> Pool:
    pool = graph.resources[endpoint.pool]
    assert isinstance(pool, Pool)  # noqa: S101 - the loader has resolved the reference
    return pool


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _open_to_others(endpoint: Endpoint, host: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-open-to-others",
        summary="The endpoint can be reached from other machines",
        detail=f"{endpoint.address} would listen on {host}. It asks nobody who he is: whoever reaches it can use it.",
        hint="Leave `host` out of the target, so that only this machine reaches it, or put a proxy before it.",
        severity=Severity.WARNING,
        address=endpoint.address,
    )


def _as_endpoint(resource: Resource | None) -> Endpoint:
    if not isinstance(resource, Endpoint):
        raise TypeError(f"the driver of endpoints was handed {type(resource).__name__}")
    return resource


def _disk(error: OSError, folder: Path, address: Address) -> Diagnostic:
    return Diagnostic(
        code="endpoint-folder",
        summary="The endpoint's folder cannot be written",
        detail=f"{error.filename or folder}: {error.strerror or error}.",
        hint="Free some space or correct the rights, and apply again; what served before still does.",
        address=address,
    )
