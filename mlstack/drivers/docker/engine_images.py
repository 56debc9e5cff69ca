"""Images in a Docker engine: looking, laying in, pushing and pulling."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlstack.diagnostics import MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.docker.build_problems import build_failed, image_not_had, push_failed
from mlstack.drivers.docker.engine import connect, engine_error, engine_errors, engine_unreachable

if TYPE_CHECKING:
    from docker import DockerClient

    from mlstack.drivers.docker.build_order import BuildOrder

_LONGEST = 1800.0
"""Seconds that an engine may take for one answer while it loads, pushes or pulls."""


def find_image(client: "DockerClient", reference: str) -> str | None:
    """Return the ID of an image that the engine has, by ID, tag or digest."""
    from docker.errors import ImageNotFound

    try:
        return str(client.api.inspect_image(reference)["Id"])
    except ImageNotFound:
        return None


def have_image(client: "DockerClient", reference: str, *, say: Say) -> None:
    """Make sure that the engine has an image: one that is named by digest, and lacking, is pulled.

    Raises `MlstackError` when it cannot be had.
    """
    try:
        if find_image(client, reference) is not None:
            return
        if "@" not in reference:
            raise MlstackError(image_not_had(reference, "it was built here, is in no registry, and is gone"))
        say(f"pulling {reference}")
        repository, _, digest = reference.partition("@")
        for line in client.api.pull(repository, tag=digest, stream=True, decode=True):
            if "error" in line:
                raise MlstackError(image_not_had(reference, str(line["error"])))
    except engine_errors() as error:
        raise MlstackError(image_not_had(reference, engine_error(error))) from error


def load_archive(archive: Path, order: "BuildOrder") -> str:
    """Lay an archive of one image into the engine under its name; return its ID. Raises `MlstackError`."""
    try:
        client = connect(order.builder.host, timeout=_LONGEST)
    except engine_errors() as error:
        raise MlstackError(engine_unreachable(order.builder.host, error, address=order.plan.address)) from error
    try:
        with archive.open("rb") as file:
            said = list(client.api.load_image(file))
        found = find_image(client, order.plan.reference)
    except engine_errors() as error:
        raise MlstackError(build_failed(order, [engine_error(error)])) from error
    finally:
        client.close()
    if found is None:
        raise MlstackError(build_failed(order, [str(line.get("error") or line) for line in said]))
    return found


def push_image(client: "DockerClient", order: "BuildOrder") -> str:
    """Push an image from the engine under its name; return the registry's digest. Raises `MlstackError`."""
    digest = None
    try:
        for line in client.api.push(order.plan.name, tag=order.plan.tag, stream=True, decode=True):
            _tell(line, order)
            if "error" in line:
                raise MlstackError(push_failed(order, order.network.hide(str(line["error"]))))
            digest = line.get("aux", {}).get("Digest") or digest
    except engine_errors() as error:
        raise MlstackError(push_failed(order, engine_error(error))) from error
    if digest is None:
        raise MlstackError(push_failed(order, "the engine said no digest"))
    return str(digest)


def _tell(line: Mapping[str, Any], order: "BuildOrder") -> None:
    if "status" in line and not line.get("progressDetail"):
        order.say(order.network.hide(f"push: {line.get('id', '')} {line['status']}".replace("  ", " ")))
