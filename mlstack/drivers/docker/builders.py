"""What could build an image here: BuildKit behind `docker buildx`, a BuildKit daemon, or Docker's classic builder."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mlstack.drivers.docker.engine import connect, engine_error, engine_host

CLASSIC = "classic"
_ANSWERS_WITHIN = 20.0
_REWRITES_SINCE = (0, 13)
"""The first BuildKit that gives files in layers the time that it is told (`rewrite-timestamp`)."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)")


class Builder(msgspec.Struct, frozen=True, kw_only=True):
    """One builder. `name` is buildx' word for it, `address` that of a BuildKit daemon.

    `in_engine`: what it builds lies in the Docker engine at once, and is pushed from there. `reproducible`: two builds
    give one digest. `version` is BuildKit's, or the engine's.
    """

    kind: Literal["buildx", "buildctl", "classic"]
    host: str | None
    version: str = ""
    name: str = ""
    address: str = ""
    driver: str = ""
    in_engine: bool = False
    reproducible: bool = False

    def __str__(self) -> str:
        match self.kind:
            case "buildx":
                said = f"docker buildx, builder {self.name} ({self.driver}{_with('BuildKit', self.version)})"
            case "buildctl":
                said = f"BuildKit{_with('', self.version).lstrip(',')} at {self.address}"
            case _:
                said = f"the classic builder of Docker {self.version}".rstrip()
        return said if self.reproducible else f"{said}, whose digests are not reproducible"


class NoBuilder(Exception):  # noqa: N818 - it is an answer, not a fault
    """There is none; says in a few words what is missing."""


def find_builder(settings: Mapping[str, Any]) -> Builder:
    """Return what would build with these settings of a pool. Raises `NoBuilder`; nothing is made or started.

    `builder` there is a BuildKit address, the name of a buildx builder, or "classic". Without it: BUILDKIT_HOST, then
    buildx, then the engine's classic builder.
    """
    host = engine_host(dict(settings))
    wanted = str(settings.get("builder") or "")
    if "://" in wanted:
        return _daemon(wanted, host)
    if wanted == CLASSIC:
        return _classic(host)
    if not wanted and os.environ.get("BUILDKIT_HOST") and shutil.which("buildctl"):
        return _daemon(os.environ["BUILDKIT_HOST"], host)
    found = _buildx(wanted, host)
    if isinstance(found, Builder):
        return found
    if wanted:
        raise NoBuilder(found)
    try:
        return _classic(host)
    except NoBuilder as error:
        raise NoBuilder(f"{error}; {found}") from error


def buildx_environment(host: str | None) -> dict[str, str]:
    """Return the variables that `docker buildx` runs with."""
    return {**os.environ, **({"DOCKER_HOST": host} if host else {}), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


def _daemon(address: str, host: str | None) -> Builder:
    if shutil.which("buildctl") is None:
        raise NoBuilder(f"`buildctl`, which speaks to the BuildKit daemon at {address}, is not installed")
    done = _run(["buildctl", "--addr", address, "--timeout", "5", "debug", "info"], dict(os.environ))
    if isinstance(done, str):
        raise NoBuilder(f"the BuildKit daemon at {address} does not answer: {done}")
    version = _field(done.stdout, "BuildKit").rpartition(" ")[2]
    return Builder(
        kind="buildctl", host=host, address=address, version=version, reproducible=_rewrites(version, unknown=True)
    )


def _buildx(name: str, host: str | None) -> Builder | str:
    if shutil.which("docker") is None:
        return "the program `docker` is not installed"
    environment = buildx_environment(host)
    if isinstance(_run(["docker", "buildx", "version"], environment), str):
        return "`docker buildx` is not installed"
    done = _run(["docker", "buildx", "inspect", *([name] if name else [])], environment)
    if isinstance(done, str):
        return f"docker buildx{f', builder {name}' if name else ''}: {done}"
    problem, driver = _field(done.stdout, "Error"), _field(done.stdout, "Driver")
    if problem:
        return f"docker buildx: {problem}"
    version = _field(done.stdout, "BuildKit version") or _field(done.stdout, "Buildkit")
    in_engine = driver == "docker"
    return Builder(
        kind="buildx",
        host=host,
        name=_field(done.stdout, "Name"),
        driver=driver,
        version=version,
        in_engine=in_engine,
        reproducible=not in_engine and _rewrites(version, unknown=True),
    )


def _classic(host: str | None) -> Builder:
    from docker.errors import DockerException

    try:
        client = connect(host, timeout=_ANSWERS_WITHIN)
        try:
            version = str(client.version().get("Version", ""))
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise NoBuilder(engine_error(error)) from error
    return Builder(kind="classic", host=host, version=version, in_engine=True)


def _run(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str] | str":
    """Run a question to its end; return what is wrong in a line."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWERS_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_ANSWERS_WITHIN:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return done
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ").removeprefix("error: ") if lines else f"exit code {done.returncode}"


def _field(text: str, name: str) -> str:
    found = re.search(rf"^\s*{re.escape(name)}:[ \t]*(\S.*)$", text, re.MULTILINE)
    return found[1].strip() if found is not None else ""


def _rewrites(version: str, *, unknown: bool) -> bool:
    found = _VERSION.search(version)
    return (int(found[1]), int(found[2])) >= _REWRITES_SINCE if found is not None else unknown


def _with(word: str, version: str) -> str:
    return f", {word} {version}".replace("  ", " ") if version else ""
