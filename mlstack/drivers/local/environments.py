"""Locked Python environments: made once per identity by uv, shared between projects and processes of this machine.

An environment lies in `$XDG_CACHE_HOME/mlstack/envs/<digest[:16]>/`. It counts as complete when its marker file is
there, which is written last, and its interpreter still exists; anything else is made again. The lock beside it is held
by uv itself too, so that a killed mlstack does not let a second uv write into the same folder.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.local.shared_cache import shared_cache
from mlstack.drivers.local.uv import InstallOrder, install, requirements_have_local_folders
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.spec import Python, Stage

MARKER = "mlstack-environment.json"
SYSTEM = "system"
_CALLS_PYTHON = re.compile(r"(^|[\s;&|(])python(\s|$)")


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete environment is.

    `folders` are packages that lie in the project, relative to the lock's folder: they are not installed, since their
    code belongs to a checkout and not to all of them, but found by PYTHONPATH.
    """

    digest: str
    python: str | None
    folders: tuple[str, ...] = ()
    format: int = 1


def ensure_environment(python: Python, identity: EnvironmentIdentity, *, root: Path, directory: str, say: Say) -> Path:
    """Return the `bin` folder of an environment, which is made if it is not there yet.

    `root` is the project folder; `directory` is where the stage runs, tried for the lock if `root` has none there.
    Raises `MlstackError` when it cannot be made.
    """
    if python.system or identity.digest == SYSTEM:
        return _system_python()
    lock = _lock_file(python, root=root, directory=directory)
    place = _place(lock, identity)
    if _complete(place, identity) is None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _alone(place, say) as held:
                if _complete(place, identity) is None:
                    _make(
                        InstallOrder(
                            place=place,
                            lock=lock,
                            groups=python.groups,
                            python=python.version or identity.python,
                            keep_open=(held,),
                        ),
                        identity,
                        say,
                    )
        except OSError as error:
            raise MlstackError(_unwritable(place, error)) from error
    return place / "bin"


def python_variables(
    python: Python, identity: EnvironmentIdentity, *, root: Path, directory: str, search_path: str
) -> dict[str, str] | None:
    """Return the variables that select an environment that is there; None for the Python of the PATH.

    `search_path` is the PATH that it is put in front of.
    """
    if python.system or identity.digest == SYSTEM:
        return None
    lock = _lock_file(python, root=root, directory=directory)
    place = _place(lock, identity)
    marker = _complete(place, identity)
    found = {
        "PATH": f"{place / 'bin'}{os.pathsep}{search_path}" if search_path else str(place / "bin"),
        "VIRTUAL_ENV": str(place),
        "PYTHONNOUSERSITE": "1",
    }
    folders = [lock.parent / folder for folder in marker.folders] if marker is not None else []
    if folders:
        paths = [folder / "src" if (folder / "src").is_dir() else folder for folder in folders]
        found["PYTHONPATH"] = os.pathsep.join(str(path.resolve()) for path in paths)
    return found


def environments_folder(variables: Mapping[str, str] | None = None) -> Path:
    """Return where environments are kept."""
    return shared_cache(variables) / "envs"


def check_system_python(stage: Stage) -> Diagnostic | None:
    """Say when a stage calls the `python` of the PATH and there is none."""
    if not stage.python.system or not _CALLS_PYTHON.search(stage.cmd) or shutil.which("python") is not None:
        return None
    return _no_system_python(stage.address)


def _system_python() -> Path:
    found = shutil.which("python")
    if found is None:
        raise MlstackError(_no_system_python(None))
    return Path(found).parent


def _no_system_python(address: str | None) -> Diagnostic:
    other = shutil.which("python3")
    return Diagnostic(
        code="no-system-python",
        summary="There is no `python` on the PATH",
        detail="It is wanted by `python: system`."
        + (f" There is {other}, which commands that say `python` do not find." if other else ""),
        hint="Say python3 in the command, activate the environment that has `python`, or name a lock file.",
        address=address,
    )


def _lock_file(python: Python, *, root: Path, directory: str) -> Path:
    name = python.lock or "uv.lock"
    for lock in (root / name, root / directory / name):
        if lock.is_file():
            return lock
    raise MlstackError(
        Diagnostic(
            code="missing-lock",
            summary="A lock file does not exist",
            detail=f"{name}: there is no such file in the project.",
            hint="Make it and commit it, for example:",
            command="uv lock",
        )
    )


def _place(lock: Path, identity: EnvironmentIdentity) -> Path:
    name = identity.digest[:16]
    if lock.name != "uv.lock" and requirements_have_local_folders(lock):
        # These install code of this very checkout, so no other checkout may share it.
        from hashlib import sha256

        name += "-" + sha256(os.fsencode(lock.resolve())).hexdigest()[:8]
    return environments_folder() / name


def _complete(place: Path, identity: EnvironmentIdentity) -> Marker | None:
    """Return the marker of an environment that can be used."""
    try:
        marker = decoding.decode((place / MARKER).read_bytes(), Marker)
    except (OSError, msgspec.DecodeError):
        return None
    is_there = (place / "bin" / "python").exists()  # follows the link: gone with an uninstalled interpreter
    return marker if is_there and marker.digest == identity.digest else None


@contextmanager
def _alone(place: Path, say: Say) -> Iterator[int]:
    """Hold the lock of one environment."""
    import fcntl

    descriptor = os.open(place.with_name(place.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another mlstack that makes the Python environment")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make(order: InstallOrder, identity: EnvironmentIdentity, say: Say) -> None:
    place = order.place
    if place.exists():
        say("the Python environment is incomplete or its interpreter is gone; it is made again")
        shutil.rmtree(place)
    say(f"making the Python environment of {order.lock.name}")
    folders = install(order, say=say)
    problem = misfit(installed_packages(place), identity)
    if problem is not None:
        shutil.rmtree(place, ignore_errors=True)
        raise MlstackError(problem)
    os.sync()  # the marker must not outlive a power cut that the packages do not
    _write_marker(place, Marker(digest=identity.digest, python=identity.python, folders=folders))


def _write_marker(place: Path, marker: Marker) -> None:
    draft = place / (MARKER + ".draft")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(marker))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place / MARKER)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def installed_packages(place: Path) -> dict[str, str]:
    """Return name → version of what is installed, read from the names of the metadata folders."""
    found = {}
    for folder in place.glob("lib*/python*/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        found[_normal(name)] = version
    return found


def misfit(installed: Mapping[str, str], identity: EnvironmentIdentity) -> Diagnostic | None:
    """Say what was installed that the identity does not have.

    A package of the identity that is missing is no misfit: markers leave it out on this machine.
    """
    wrong = []
    for name, version in sorted(installed.items()):
        expected = identity.packages.get(name)
        if expected is None:
            wrong.append(f"{name} {version}, which the lock does not have")
        elif _is_version(expected) and version not in {_normal_version(each) for each in expected.split(", ")}:
            wrong.append(f"{name} {version} instead of {expected}")
    if not wrong:
        return None
    return Diagnostic(
        code="environment-misfit",
        summary="The Python environment is not what the lock says",
        detail=f"Installed: {'; '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}.",
        hint="The lock changed meanwhile, or names packages by links whose content changed. Plan again.",
        command="mlstack plan",
    )


def _is_version(text: str) -> bool:
    return all(part[:1].isdigit() for part in text.split(", "))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _normal_version(text: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(text))
    except InvalidVersion:
        return text


def _unwritable(place: Path, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="environment-unwritable",
        summary="The Python environment cannot be written",
        detail=f"{error.filename or place}: {error.strerror}.",
        hint="Free some space, or name a folder that can be written in XDG_CACHE_HOME.",
    )


__all__: list[Any] = [
    "MARKER",
    "check_system_python",
    "ensure_environment",
    "environments_folder",
    "installed_packages",
    "misfit",
    "python_variables",
]
