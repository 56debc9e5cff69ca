"""Endpoints on this machine: one model server each, a process that stays when the command has ended.

Nothing restarts a server that has ended; `status` and `plan` say that it is down, and `apply` brings it back.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlstack.diagnostics import Diagnostic, MlstackError, Severity, raise_errors
from mlstack.drivers.base import Absent, NotChecked, Observation, Present, Say, StepContext
from mlstack.drivers.local.endpoint_overlay import server_digest
from mlstack.drivers.local.endpoint_process import (
    Health,
    ask_ready,
    birth_of,
    connectable,
    is_same_process,
    machine_identity,
    servers_below,
    stop_process,
    wait_until,
)
from mlstack.drivers.local.endpoint_server import Running, find_running, is_ready, remove_others
from mlstack.drivers.local.endpoint_start import FindPython, Job, digest_of, locked_python, make_server, variant_version
from mlstack.graph.change import Action, Change
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address, slug
from mlstack.spec.spec import Endpoint, Model, Pool, Resource, Variant
from mlstack.state.environment_folder import OWN_FOLDER, ensure_own_folder
from mlstack.state.identity import host_name, now_iso
from mlstack.state.state import Record

FRAMEWORKS = ("sklearn", "python")
LOOPBACK = "127.0.0.1"


class LocalEndpoints:
    """The driver of endpoints whose pool has `target: local`."""

    name = "local-endpoint"

    def __init__(
        self,
        *,
        find_python: FindPython = locked_python,
        start_timeout: float = 60.0,
        stop_grace: float = 35.0,
        patience: float = 5.0,
    ) -> None:
        self._find_python = find_python
        self._start_timeout = start_timeout
        self._stop_grace = stop_grace
        self._patience = patience

    # ------------------------------------------------------------------------------------------------ planning

    def check(self, endpoint: Endpoint, graph: ResourceGraph | None = None) -> Sequence[Diagnostic]:
        """Say what this version cannot do for an endpoint on this machine, and what has no effect here."""
        found = []
        if len(endpoint.variants) > 1:
            found.append(
                Diagnostic(
                    code="traffic-split-unsupported",
                    summary="Several variants need a traffic split",
                    detail=f"{endpoint.address} has {len(endpoint.variants)} variants; it needs a traffic split, which "
                    "this version cannot do on this machine.",
                    hint="Give it one `model`, or make an endpoint of its own for each variant.",
                    address=endpoint.address,
                )
            )
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
        host = _listens_on(endpoint, graph) if graph is not None else LOOPBACK
        if not _is_loopback(host):
            found.append(_open_to_others(endpoint, host))
        models = [graph.resources.get(variant.model) for variant in endpoint.variants.values()] if graph else []
        found += [
            Diagnostic(
                code="framework-unsupported",
                summary="This version cannot serve that framework",
                detail=f'{model.address} has the framework "{model.framework}"; known are {", ".join(FRAMEWORKS)}.',
                hint="Serve it with `framework: python` and a class of your own with `load` and `predict`.",
                address=model.address,
            )
            for model in models
            if isinstance(model, Model) and model.framework not in FRAMEWORKS
        ]
        return found

    def desired(
        self, resource: Resource, graph: ResourceGraph, versions: Mapping[Address, str | None]
    ) -> dict[str, Any]:
        """Return the attributes that the endpoint should have; a model's version of None is known after apply."""
        endpoint = _as_endpoint(resource)
        identity = graph.environments.get(endpoint.address)
        found: dict[str, Any] = {
            "variants": {
                name: _describe_variant(variant, graph, versions) for name, variant in endpoint.variants.items()
            },
            "python": identity.digest if identity is not None else "system",
            "replicas": {"min": endpoint.replicas.min, "max": endpoint.replicas.max},
            "env": {name: digest_of(value) for name, value in endpoint.env.items()} | dict.fromkeys(endpoint.computed),
            "secrets": {name: secret.uri for name, secret in endpoint.secrets.items()},
            "listen": _listens_on(endpoint, graph),
            "server": server_digest(),
        }
        if endpoint.port is not None:
            found["port"] = endpoint.port
        return found

    def read(self, resource: Resource | None, record: Record | None) -> Observation:  # noqa: ARG002
        """Ask the recorded server whether it is ready, within about a second."""
        if record is None:
            return Absent(reason="never made")
        known = record.attributes
        if known.get("machine") != machine_identity():
            return NotChecked(reason=f"it runs on {known.get('host', 'another machine')}, not here")
        current = _recorded(record)
        if current is None:
            return Absent(reason=f"process {known.get('pid')} is gone")
        health = ask_ready(connectable(current.host), current.port)
        problem = _judge(health, current, record)
        observed = {"ready": problem is None, "pid": current.pid, "url": current.url, "bound_port": current.port}
        return Present(attributes=observed if problem is None else observed | {"reason": problem})

    # ------------------------------------------------------------------------------------------------ carrying out

    def apply(self, change: Change, context: StepContext) -> Record:
        """Start a server for what the file says, let it take the old one's place, and return its record.

        The old server answers until the new one does; if the new one does not start, the old one stays. Raises
        `MlstackError`.
        """
        endpoint = _as_endpoint(context.resource)
        raise_errors(self.check(endpoint, context.graph))
        if context.record is not None:
            _check_is_here(context.record)  # else a second server would start, and nobody would know of the first
        versions: dict[Address, str | None] = {Address(name): found for name, found in context.versions.items()}
        attributes = self.desired(endpoint, context.graph, versions)
        wanted = digest_of(_of_process(attributes))
        current = _recorded(context.record) if context.record is not None else None
        folder = _folder(context, endpoint.address)
        try:
            strays = _ready_strays(folder, current)
            running = None
            if change.action is not Action.REPLACE:
                running = self._find(current, strays, wanted, endpoint.port)
            if running is None:
                # What a killed apply has left behind must not hold the port, or take it over later; but if it is what
                # serves now, it is what is replaced.
                current = current or next(iter(strays), None)
                self._stop_others(folder, None, keep=current, say=context.say)
                job = Job(
                    endpoint=endpoint,
                    context=context,
                    attributes=attributes,
                    digest=wanted,
                    folder=folder,
                    current=current,
                    find_python=self._find_python,
                    start_timeout=self._start_timeout,
                    stop_grace=self._stop_grace,
                    patience=self._patience,
                )
                running = make_server(job)
            elif current is None or running.pid != current.pid:
                context.say(f"process {running.pid} of an earlier apply serves this already")
            self._stop_others(folder, current, keep=running, say=context.say)
            remove_others(folder, keep=[running.folder])
        except OSError as error:
            raise MlstackError(_disk(error, folder, endpoint.address)) from error
        return self._record(endpoint, attributes, running, wanted, context.record)

    def _record(
        self, endpoint: Endpoint, attributes: dict[str, Any], running: Running, digest: str, before: Record | None
    ) -> Record:
        known = before.attributes if before is not None else {}
        started = known.get("started") if known.get("birth") == running.birth else None
        found = {
            "machine": machine_identity(),
            "host": host_name(),
            "pid": running.pid,
            "birth": running.birth,
            "started": started or now_iso(),
            "bound_port": running.port,
            "url": running.url,
            "folder": str(running.folder),
            "process": digest,
        }
        return Record(address=endpoint.address, driver=self.name, attributes=attributes | found)

    def delete(self, record: Record, context: StepContext) -> None:
        """End the server and remove its folder; what is gone already succeeds. Raises `MlstackError`."""
        known = record.attributes
        _check_is_here(record)
        folder = Path(str(known.get("folder", ""))).parent
        if folder.parts[-4:-2] != (OWN_FOLDER, "endpoints"):  # an edited record must not name what is to be removed
            folder = _folder(context, record.address)
        self._stop_others(folder, _recorded(record), keep=None, say=context.say)
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

    def _stop_others(self, folder: Path, current: Running | None, *, keep: Running | None, say: Say) -> None:
        """End the server of the record, and those that a killed apply has left behind."""
        if current is not None and (keep is None or current.pid != keep.pid):
            if keep is not None and (current.host, current.port) == (keep.host, keep.port):
                # It has handed over and ends by itself when what it was asked is answered.
                say("the server before answers what it was asked, and ends")
                wait_until(lambda: not is_same_process(current.pid, current.birth), seconds=self._stop_grace)
            if current.pid in servers_below(current.folder.parent):  # and not whatever an edited record names
                stop_process(current.pid, current.birth, grace=self._stop_grace, say=say)
        for pid in servers_below(folder):
            birth = birth_of(pid)
            if birth is not None and (keep is None or pid != keep.pid):
                stop_process(pid, birth, grace=self._stop_grace, say=say)


def _recorded(record: Record) -> Running | None:
    """Return the recorded server if its process is still there."""
    known = record.attributes
    try:
        found = Running(
            pid=int(known["pid"]),
            birth=str(known["birth"]),
            folder=Path(str(known["folder"])),
            host=str(known["listen"]),
            port=int(known["bound_port"]),
            digest=str(known.get("process", "")),
        )
    except (KeyError, TypeError, ValueError):  # a record of another version of mlstack
        return None
    return found if is_same_process(found.pid, found.birth) else None


def _ready_strays(folder: Path, current: Running | None) -> list[Running]:
    """Return the servers below an endpoint's folder that are ready and not recorded: of an apply that was killed."""
    pids = sorted(servers_below(folder).items())
    found = [find_running(place, pid=pid) for pid, place in pids if current is None or pid != current.pid]
    return [running for running in found if running is not None]


def _judge(health: Health | None, current: Running, record: Record) -> str | None:
    """Say what is wrong with a server that lives; None when it is ready."""
    if health is None:
        return f"process {current.pid} does not answer on port {current.port}"
    if health.pid != current.pid:
        return f"port {current.port} is answered by {f'process {health.pid}' if health.pid else 'another program'}"
    if health.status != 200:
        return f"process {current.pid} says that it is not ready"
    versions = {str(variant.get("version")) for variant in record.attributes.get("variants", {}).values()}
    if health.version not in versions:
        return f"it serves version {health.version}, which is not the recorded one"
    return None


def _describe_variant(variant: Variant, graph: ResourceGraph, versions: Mapping[Address, str | None]) -> dict[str, Any]:
    model = graph.resources.get(variant.model)
    found: dict[str, Any] = {
        "model": variant.model,
        "version": variant_version(variant, versions),
        "framework": model.framework if isinstance(model, Model) else "",
        "weight": variant.weight,
    }
    if isinstance(model, Model) and model.code is not None:
        found["class"] = model.code
        files = graph.model_code.get(variant.model, ())
        found["code"] = digest_of([[file.path, file.digest.md5] for file in files])
    return found


def _of_process(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a running server depends on: a change of anything else is only recorded."""
    variants = {
        name: {key: value for key, value in variant.items() if key != "weight"}
        for name, variant in attributes["variants"].items()
    }
    kept = ("python", "env", "secrets", "listen", "server")
    return {"variants": variants, **{name: attributes[name] for name in kept}}


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


def _listens_on(endpoint: Endpoint, graph: ResourceGraph) -> str:
    pool = graph.resources.get(endpoint.pool)
    return str(pool.settings.get("host", LOOPBACK)) if isinstance(pool, Pool) else LOOPBACK


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


def _folder(context: StepContext, address: Address) -> Path:
    environment = quote(context.graph.spec.environment, safe="").replace(".", "%2E")
    return (ensure_own_folder(context.root) / "endpoints" / environment / slug(address)).resolve()


def _disk(error: OSError, folder: Path, address: Address) -> Diagnostic:
    return Diagnostic(
        code="endpoint-folder",
        summary="The endpoint's folder cannot be written",
        detail=f"{error.filename or folder}: {error.strerror or error}.",
        hint="Free some space or correct the rights, and apply again; what served before still does.",
        address=address,
    )
