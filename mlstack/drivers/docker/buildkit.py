"""Building with BuildKit: by `docker buildx`, or `buildctl` and a daemon's address."""

import json
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlstack.diagnostics import MlstackError
from mlstack.drivers.docker.build_context import EPOCH, Staged, staged
from mlstack.drivers.docker.build_order import BuildOrder, Built
from mlstack.drivers.docker.build_problems import build_failed, build_stopped
from mlstack.drivers.docker.builders import buildx_environment
from mlstack.drivers.docker.engine_images import load_archive

INDEX_VARIABLE = "MLSTACK_BUILD_INDEX"
_LINES_KEPT = 200
_LOOKS = 0.5
_GRACE = 10.0
_NOISE = re.compile(r"^#\d+\s+(?:sha256:\S+|\.\.\.|DONE.*|CACHED|transferring .*|resolve .*|extracting .*)\s*$")
_NUMBER = re.compile(r"^#\d+\s+(?:\d+\.\d+\s+)?")


def build_with_buildkit(order: BuildOrder) -> Built:
    """Build one image, and push it or lay it into the engine. Raises `MlstackError` with the decisive lines."""
    with staged(order.plan, root=order.root, classic=False) as place:
        result = place.folder / "result.json"
        archive = place.folder / "image.tar"
        command = _command(order, place, archive=archive, result=result)
        _carry_out(command, order)
        try:
            metadata = json.loads(result.read_bytes())
        except (OSError, ValueError) as error:
            raise MlstackError(build_failed(order, [f"the builder left no result: {error}"])) from error
        image_id = metadata.get("containerimage.config.digest")
        if order.push and not order.builder.in_engine:
            return Built(image_id=image_id, digest=metadata.get("containerimage.digest"))
        if order.builder.in_engine:
            return Built(image_id=image_id or metadata.get("containerimage.digest"))
        order.say("laying it into the Docker engine")
        return Built(image_id=load_archive(archive, order))


def _command(order: BuildOrder, place: Staged, *, archive: Path, result: Path) -> list[str]:
    arguments = {**order.plan.args, "SOURCE_DATE_EPOCH": str(EPOCH)}
    if order.builder.kind == "buildx":
        words = ["docker", "buildx", "build", "--builder", order.builder.name, "--progress=plain", "--provenance=false"]
        words += ["--sbom=false", f"--platform={order.plan.platform}", f"--file={place.dockerfile}"]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        words += [f"--label={name}={value}" for name, value in order.plan.labels.items()]
        last = [str(place.context)]
    else:
        words = ["buildctl", "--addr", order.builder.address, "build", "--progress=plain", "--frontend=dockerfile.v0"]
        words += [f"--local=context={place.context}", f"--local=dockerfile={place.dockerfile.parent}"]
        words += [f"--opt=filename={place.dockerfile.name}", f"--opt=platform={order.plan.platform}"]
        words += [f"--opt=build-arg:{name}={value}" for name, value in arguments.items()]
        words += [f"--opt=label:{name}={value}" for name, value in order.plan.labels.items()]
        last = []
    if order.fresh:
        words.append("--no-cache")
    if order.network.ca is not None:
        words.append(f"--secret=id=ca,src={order.network.ca}")
    if order.network.index is not None:
        words.append(f"--secret=id=index,env={INDEX_VARIABLE}")
    return [*words, f"--metadata-file={result}", *_output(order, archive), *last]


def _output(order: BuildOrder, archive: Path) -> list[str]:
    """Return where the image goes. A builder inside of the engine knows no times, and pushes by the engine."""
    reference = order.plan.reference
    if order.builder.in_engine:
        return ["--load", f"--tag={reference}"]
    times = ",rewrite-timestamp=true" if order.builder.reproducible else ""
    if order.push:
        return [f"--output=type=image,name={reference},push=true,oci-mediatypes=true{times}"]
    return [f"--output=type=docker,name={reference},dest={archive}{times}"]


def _carry_out(command: list[str], order: BuildOrder) -> None:
    environment = buildx_environment(order.builder.host)
    if order.network.index is not None:
        environment[INDEX_VARIABLE] = order.network.index
    try:
        # A session of its own: the first Ctrl-C lets running steps finish.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise MlstackError(build_failed(order, [f"{command[0]}: {error.strerror or error}"])) from error
    lines: list[str] = []
    has_ended = False
    try:
        for line in _lines(process, order):
            lines.append(line)
            del lines[:-_LINES_KEPT]
            if not _NOISE.match(line) and (shown := _NUMBER.sub("", line).strip()):
                order.say(shown)
        has_ended = not order.stop.is_set()
    finally:
        _end(process, ask=not has_ended)
    if order.stop.is_set():
        raise MlstackError(build_stopped(order))
    if process.returncode != 0:
        raise MlstackError(build_failed(order, lines))


def _lines(process: "subprocess.Popen[bytes]", order: BuildOrder) -> Iterator[str]:
    """Yield what the builder says, without logins, until it ends or is to stop."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    os.set_blocking(process.stdout.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not order.stop.is_set():
            if not selector.select(_LOOKS):
                continue
            chunk = process.stdout.read()
            if chunk == b"":
                break
            *whole, rest = (rest + (chunk or b"")).split(b"\n")
            for line in whole:
                yield order.network.hide(line.decode("utf-8", "replace").rstrip())
    if rest:
        yield order.network.hide(rest.decode("utf-8", "replace").rstrip())


def _end(process: "subprocess.Popen[bytes]", *, ask: bool) -> None:
    """Wait for the builder's end; `ask` it to, if nobody reads what it says any more, and see to it."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with process:
        process.stdout.close()
        for number in (signal.SIGTERM, signal.SIGKILL) if ask else (0, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
                return
