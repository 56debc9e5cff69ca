"""The model server's own packages, kept apart from every Python environment of the user's.

Pinned with hashes in `mlstack/serving/requirements.txt`, installed once into
`$XDG_CACHE_HOME/mlstack/serve/<digest>-<python>/`. If mlstack's own environment holds exactly the pinned versions (the
extra `serve`), they are copied from there and no registry is asked.
"""

import os
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.local.shared_cache import digest_of_program, made_once, shared_cache

if TYPE_CHECKING:
    from importlib.metadata import Distribution

SERVING = Path(__file__).resolve().parents[2] / "serving"
REQUIREMENTS = SERVING / "requirements.txt"
OLDEST = (3, 10)
"""The oldest Python that the server runs on."""


@cache
def server_digest() -> str:
    """Return a short digest of the server and its pinned packages: when it changes, endpoints are replaced."""
    return digest_of_program(SERVING, REQUIREMENTS)


def ensure_overlay(python: Path, *, say: Say) -> Path:
    """Return the folder of the server's packages for this interpreter, made if it is missing.

    Raises `MlstackError` when the interpreter does not run or is too old, or when the packages cannot be had.
    """
    version = python_version(python)
    name = f"{sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}-{version[0]}.{version[1]}"

    def fill(folder: Path) -> None:
        if not copy_own(folder, version):
            say("installing the model server's packages (once)")
            _install(folder, python)

    return made_once(shared_cache() / "serve" / name, fill, problem=_problem)


def python_version(python: Path) -> tuple[int, int]:
    """Return the version of an interpreter, as (3, 11). Raises `MlstackError` when it does not run or is too old."""
    import subprocess

    command = [str(python), "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        major, minor = (int(word) for word in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise MlstackError(
            Diagnostic(
                code="python-not-usable",
                summary="The endpoint's Python does not run",
                detail=f"{python}: {error}",
                hint="Name another Python, or let mlstack make the environment again.",
            )
        ) from error
    if (major, minor) < OLDEST:
        raise MlstackError(
            Diagnostic(
                code="python-too-old",
                summary="The endpoint's Python is too old for the model server",
                detail=f"{python} is Python {major}.{minor}; the server runs on {OLDEST[0]}.{OLDEST[1]} and newer.",
                hint="Give the endpoint (or the project) a newer `python`.",
            )
        )
    return major, minor


def pinned(version: tuple[int, int], requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """Return the pinned packages for a Python version of this platform, name → version."""
    from packaging.requirements import Requirement

    found = {}
    marks = {"python_version": f"{version[0]}.{version[1]}", "python_full_version": f"{version[0]}.{version[1]}.0"}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if "==" not in line or line.startswith((" ", "#")):
            continue
        requirement = Requirement(line.removesuffix("\\").strip())
        if requirement.marker is None or requirement.marker.evaluate(dict(marks)):
            found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def copy_own(target: Path, version: tuple[int, int], requirements: Path = REQUIREMENTS) -> bool:
    """Copy the pinned packages from mlstack's own environment if all of them are there in the pinned versions."""
    import shutil
    from importlib.metadata import PackageNotFoundError, distribution

    own: list[Distribution] = []
    for name, wanted in pinned(version, requirements).items():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            return False
        if found.version != wanted or found.files is None:
            return False
        own.append(found)
    for source, relative in _files(own):
        place = target / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    return True


def _files(distributions: "list[Distribution]") -> Iterator[tuple[Path, Path]]:
    """Yield the importable files of distributions: no scripts, no compiled files of this interpreter."""
    for found in distributions:
        for path in found.files or ():
            if path.suffix != ".pyc" and ".." not in path.parts:
                yield Path(str(path.locate())), Path(path)


def _install(target: Path, python: Path) -> None:
    import subprocess

    from mlstack.drivers.local.uv import InstallOrder, find_uv, uv_environment

    command = [find_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--link-mode", "copy"]
    command += ["--python", str(python), "--target", str(target), "--requirement", str(REQUIREMENTS)]
    order = InstallOrder(place=target, lock=REQUIREMENTS)
    env = uv_environment(order, os.environ)
    done = subprocess.run(command, cwd=target, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise MlstackError(_problem("\n".join(lines[-5:])))


def _problem(detail: str) -> Diagnostic:
    return Diagnostic(
        code="server-packages",
        summary="The model server's packages cannot be had",
        detail=detail,
        hint="They are fetched once from the package registry that uv is set up for. Without one, install mlstack with "
        "its extra `serve`.",
        command='pip install "mlstack[serve]"',
    )
