"""Building with the builder that Docker's engine had before BuildKit, through Docker's SDK.

It knows neither secrets nor mounts, and gives every layer the time of its making: two builds have two digests. What
would have to be kept out of its layers and its history is therefore not given to it.
"""

import tarfile
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO, Any

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.docker.build_context import EPOCH, Staged, staged
from mlstack.drivers.docker.build_network import BuildNetwork
from mlstack.drivers.docker.build_order import BuildOrder, Built
from mlstack.drivers.docker.build_problems import build_failed, build_stopped
from mlstack.drivers.docker.builders import Builder
from mlstack.drivers.docker.engine import connect, engine_error, engine_errors, engine_unreachable
from mlstack.drivers.docker.engine_images import find_image
from mlstack.graph.graph import ImagePlan

_LONGEST = 1800.0
_OWN_DOCKERFILE = ".mlstack.Dockerfile"


def why_not_classic(plan: ImagePlan, network: BuildNetwork, builder: Builder) -> Diagnostic | None:
    """Say why this image cannot be built by the classic builder: it would need secrets."""
    if builder.kind != "classic" or not plan.texts:  # without ours there is nothing that asks an index
        return None
    if network.ca is None and not network.index_has_login:
        return None
    what = f"the certificates in {network.ca}" if network.ca is not None else "the login of the package index"
    return Diagnostic(
        code="classic-builder-secrets",
        summary="Docker's classic builder cannot keep a secret",
        detail=f"{builder} would write {what} into its layers.",
        hint="Install buildx, or name a BuildKit daemon in BUILDKIT_HOST or as `builder` of the pool's target "
        "(`targets: {docker: {builder: …}}`). If the build needs neither, say `ca_bundle: false` there.",
        command="docker buildx version",
        address=plan.address,
    )


def build_with_engine(order: BuildOrder) -> Built:
    """Build one image in the engine. Raises `MlstackError` with the decisive lines."""
    refused = why_not_classic(order.plan, order.network, order.builder)
    if refused is not None:
        raise MlstackError(refused)
    try:
        client = connect(order.builder.host, timeout=_LONGEST)
    except engine_errors() as error:
        raise MlstackError(engine_unreachable(order.builder.host, error, address=order.plan.address)) from error
    lines: list[str] = []
    try:
        with staged(order.plan, root=order.root, classic=True) as place, _packed(place) as archive:
            for line in _build(client, archive, order):
                lines.append(line)
                order.say(line)
                if order.stop.is_set():
                    raise MlstackError(build_stopped(order))
        found = find_image(client, order.plan.reference)
    except engine_errors() as error:
        raise MlstackError(build_failed(order, [*lines, f"error: {engine_error(error)}"])) from error
    finally:
        client.close()
    if found is None:
        raise MlstackError(build_failed(order, lines))
    return Built(image_id=found)


def _build(client: Any, archive: IO[bytes], order: BuildOrder) -> Iterator[str]:
    arguments = {**order.plan.args, "SOURCE_DATE_EPOCH": str(EPOCH)}
    if order.network.index is not None and order.plan.texts:
        arguments["INDEX_URL"] = order.network.index
    answer = client.api.build(
        fileobj=archive,
        custom_context=True,
        dockerfile=_OWN_DOCKERFILE,
        tag=order.plan.reference,
        buildargs=arguments,
        labels=order.plan.labels,
        nocache=order.fresh,
        rm=True,
        forcerm=True,
        decode=True,
    )
    lines: list[str] = []
    problem = ""
    for said in answer:  # to its end, also after an error: else the connection stays open
        problem = order.network.hide(str(said["error"])) if "error" in said else problem
        text = said.get("stream") or said.get("status") or ""
        for line in str(text).splitlines():
            if line.strip():
                lines.append(order.network.hide(line.strip()))
                yield lines[-1]
    if problem:
        raise MlstackError(build_failed(order, [*lines, f"error: {problem}"]))


def _packed(place: Staged) -> IO[bytes]:
    """Return the context as an archive: the engine takes nothing else."""
    archive = TemporaryFile(prefix="mlstack-context-")  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for path in sorted(place.context.rglob("*")):
            packed.add(path, arcname=path.relative_to(place.context).as_posix(), recursive=False, filter=_owned)
        packed.add(place.dockerfile, arcname=_OWN_DOCKERFILE, filter=_owned)
    archive.seek(0)
    return archive


def _owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH
    return entry
