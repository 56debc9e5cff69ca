"""Making the server that an endpoint should have, and letting it take the place of the one before."""

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from mlstack import __version__
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.local.endpoint_housing import Housing, Job, Start, name_of
from mlstack.drivers.local.endpoint_process import is_port_taken
from mlstack.drivers.local.endpoint_server import (
    Launch,
    Running,
    ServerFailedError,
    candidate_ports,
    is_ready,
    next_folder,
    port_in_use,
)
from mlstack.spec.address import Address, short_name
from mlstack.spec.spec import Model, Variant

_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


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


def make_server(job: Job, housing: Housing) -> Running:
    """Start the server, on the socket of the one in place if there is one there. Raises `MlstackError`."""
    before, context = job.current or job.foreign, job.context
    host, port = str(job.attributes["listen"]), job.endpoint.port
    same_place = before is not None and before.host == host and port in {None, before.port}
    if port is not None and not same_place and is_port_taken(host, port):
        raise MlstackError(port_in_use(job.endpoint.address, host, port))
    variables = _secrets(job)
    model = _model(job)
    start = housing.prepare(job, model)
    successor = before is not None and same_place and is_ready(before, patience=job.patience)
    if same_place and before is not None and not successor:
        context.say(f"{name_of(before)} is not ready; ending it")
        _end(job, housing, before, grace=3.0)
    try:
        return _launch(job, model, start, variables, before=before if successor else None)
    except ServerFailedError as error:
        if error.code != "take-over" or before is None:
            raise
        # A server of another version of mlstack, or one that is stuck: it has to go first.
        context.say("the server in place does not hand over; ending it first")
        _end(job, housing, before, grace=job.stop_grace)
        return _launch(job, model, start, variables, before=None)


def _end(job: Job, housing: Housing, before: Running, *, grace: float) -> None:
    if job.current is not None:
        housing.stop(before, grace=grace, say=job.context.say)
    else:
        job.context.end_foreign()


def _launch(job: Job, model: Model, start: Start, variables: Mapping[str, str], *, before: Running | None) -> Running:
    from mlstack.drivers.local.endpoint_content import remove_tree

    folder = next_folder(job.folder)
    try:
        settings = _settings(job, model, folder)
        environment = {**job.endpoint.env, **variables}
        launch = Launch(
            address=job.endpoint.address,
            folder=folder,
            env=environment,
            timeout=job.start_timeout,
            say=job.context.say,
            stop=job.context.stop,
            before=before,
            secrets=tuple(variables.values()),
        )
        job.context.say(f"starting the model server for {settings['model']['name']}")
        return start(launch, settings)
    except BaseException:  # whatever stopped it: nothing half-made stays behind
        remove_tree(folder)
        raise


def _settings(job: Job, model: Model, folder: Path) -> dict[str, Any]:
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
    record = context.record or context.foreign
    kept = record.attributes.get("bound_port") if record is not None else None
    return {
        "endpoint": endpoint.address,
        "instance": uuid4().hex,
        "digest": job.digest,
        "host": job.attributes["listen"],
        "port": endpoint.port,
        "candidates": candidate_ports(seed=str(job.folder), kept=kept),
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
