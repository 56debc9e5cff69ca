"""Making the server that an endpoint should have, and letting it take the place of the one before."""

import os
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from mlstack import __version__
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say, StepContext
from mlstack.drivers.local.endpoint_overlay import ensure_overlay
from mlstack.drivers.local.endpoint_process import is_port_taken, stop_process
from mlstack.drivers.local.endpoint_server import (
    Launch,
    Running,
    ServerFailedError,
    candidate_ports,
    is_ready,
    next_folder,
    port_in_use,
    start_server,
)
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.address import Address, short_name
from mlstack.spec.spec import Endpoint, Model, Variant

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
INHERITED_PREFIXES = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "SSL_CERT_", "DYLD_")
"""What a server gets of the environment of the command: it outlives the command, so not whatever is in a shell."""

_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")

FindPython = Callable[[Endpoint, Model, EnvironmentIdentity, Path, Say], tuple[Path, dict[str, str]]]
"""Returns the interpreter of an endpoint's environment, made if need be, and the variables that select it."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One server to be made. `current` is the one in place, if its process lives; times are in seconds.

    `patience` is how long a server may take to say that it is ready before it counts as stuck.
    """

    endpoint: Endpoint
    context: StepContext
    attributes: dict[str, Any]
    digest: str
    folder: Path
    current: Running | None
    find_python: FindPython
    start_timeout: float
    stop_grace: float
    patience: float

    @property
    def variant(self) -> tuple[str, Variant]:
        """The one variant that is served."""
        return next(iter(self.endpoint.variants.items()))


def locked_python(
    endpoint: Endpoint, model: Model, identity: EnvironmentIdentity, root: Path, say: Say
) -> tuple[Path, dict[str, str]]:
    """Return the interpreter that the file names for this endpoint. Raises `MlstackError`."""
    from mlstack.drivers.local.environments import ensure_environment, python_variables

    found = ensure_environment(endpoint.python, identity, root=root, directory=model.directory, say=say)
    variables = python_variables(
        endpoint.python,
        identity,
        root=root,
        directory=model.directory,
        search_path=os.environ.get("PATH", ""),
    )
    return found / "python", variables or {}


def variant_version(variant: Variant, versions: Mapping[Address, str | None]) -> str | None:
    """Return the hash of a variant's model; None if it is known only after apply.

    A pinned one (`models.x@REV`) is looked up under that word, unless REV is the hash itself.
    """
    if variant.version is None:
        return versions.get(variant.model)
    if _HASH.fullmatch(variant.version):
        return variant.version
    return versions.get(Address(f"{variant.model}@{variant.version}"))


def digest_of(value: Any) -> str:
    """Return a short digest of plain data."""
    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def make_server(job: Job) -> Running:
    """Start the server, on the socket of the one in place if there is one there. Raises `MlstackError`."""
    current, context = job.current, job.context
    host, port = str(job.attributes["listen"]), job.endpoint.port
    same_place = current is not None and current.host == host and port in {None, current.port}
    if port is not None and not same_place and is_port_taken(host, port):
        raise MlstackError(port_in_use(job.endpoint.address, host, port))
    variables = _secrets(job)
    model = _model(job)
    identity = context.graph.environments.get(job.endpoint.address, EnvironmentIdentity(digest="system"))
    python, selecting = job.find_python(job.endpoint, model, identity, context.root, context.say)
    overlay = ensure_overlay(python, say=context.say)
    environment = _inherited() | selecting | job.endpoint.env | variables
    successor = current is not None and same_place and is_ready(current, patience=job.patience)
    if same_place and current is not None and not successor:
        context.say(f"process {current.pid} is not ready; ending it")
        stop_process(current.pid, current.birth, grace=3.0, say=context.say)
    try:
        return _launch(job, model, (python, overlay), environment, take_over=current if successor else None)
    except ServerFailedError as error:
        if error.code != "take-over" or current is None:
            raise
        # A server of another version of mlstack, or one that is stuck: it has to go first.
        context.say("the server in place does not hand over; ending it first")
        stop_process(current.pid, current.birth, grace=job.stop_grace, say=context.say)
        return _launch(job, model, (python, overlay), environment, take_over=None)


def _launch(
    job: Job,
    model: Model,
    interpreter: tuple[Path, Path],
    environment: Mapping[str, str],
    *,
    take_over: Running | None,
) -> Running:
    from mlstack.drivers.local.endpoint_content import remove_tree

    folder = next_folder(job.folder)
    try:
        settings = _settings(job, model, folder, take_over)
        launch = Launch(
            address=job.endpoint.address,
            folder=folder,
            python=interpreter[0],
            overlay=interpreter[1],
            env=environment,
            timeout=job.start_timeout,
            say=job.context.say,
            stop=job.context.stop,
            secrets=tuple(environment[name] for name in sorted(job.endpoint.secrets)),
        )
        job.context.say(f"starting the model server for {settings['model']['name']}")
        return start_server(launch, settings)
    except BaseException:  # whatever stopped it: nothing half-made stays behind
        remove_tree(folder)
        raise


def _settings(job: Job, model: Model, folder: Path, take_over: Running | None) -> dict[str, Any]:
    """Bring what is served into the server's folder, and return what the server is told."""
    from mlstack.drivers.local.endpoint_content import bring_code, bring_model, code_paths

    context, endpoint = job.context, job.endpoint
    name, _ = job.variant
    version = job.attributes["variants"][name]["version"]
    if version is None:
        raise MlstackError(
            Diagnostic(
                code="model-version-unknown",
                summary="The model has no version yet",
                detail=f"Nothing has recorded which version of {model.address} there is.",
                hint="Run the stage that makes it.",
                command=f"mlstack apply --target {model.stage}",
                address=endpoint.address,
            )
        )
    place = bring_model(version, out=model.out, root=context.root, into=folder / "model", address=endpoint.address)
    paths: list[str] = []
    if model.code is not None:
        files = context.graph.model_code.get(model.address, ())
        bring_code(files, root=context.root, into=folder / "code", address=endpoint.address)
        paths = [f"code/{path}" for path in code_paths(model.directory, folder / "code")]
    known = context.record.attributes if context.record is not None else {}
    return {
        "endpoint": endpoint.address,
        "digest": job.digest,
        "host": job.attributes["listen"],
        "port": endpoint.port,
        "candidates": candidate_ports(seed=str(job.folder), kept=known.get("bound_port")),
        "take_over": str(take_over.folder) if take_over is not None else None,
        "server_version": __version__,
        "secrets": sorted(endpoint.secrets),
        "model": {
            "name": short_name(model.address),
            "path": str(place.relative_to(folder)),
            "md5": version,
            "framework": model.framework,
            "code": model.code,
            "code_paths": paths,
        },
    }


def _model(job: Job) -> Model:
    found = job.context.graph.resources.get(job.variant[1].model)
    if not isinstance(found, Model):
        raise TypeError(f"{job.variant[1].model} is no model of this graph")
    return found


def _secrets(job: Job) -> dict[str, str]:
    if not job.endpoint.secrets:
        return {}
    from mlstack.drivers.secrets import resolve_secrets

    values = resolve_secrets(
        job.endpoint.secrets, address=job.endpoint.address, root=job.context.root, environment=os.environ
    )
    return values.reveal()


def _inherited() -> dict[str, str]:
    found = {
        name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    return found | {"PYTHONUNBUFFERED": "1"}
