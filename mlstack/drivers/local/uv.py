"""Driving uv: which command installs which lock, and what its failures mean."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say

_LOCAL = ("editable", "virtual", "directory")
_LOCAL_REQUIREMENT = re.compile(r"^\s*(-e\s|--editable\b|\.{1,2}(/|\s*$|\[))", re.MULTILINE)
_LOCAL_PYLOCK = re.compile(r"^\s*directory\s*=|^\s*\[packages\.directory\]", re.MULTILINE)
_SCRUBBED = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PROJECT", "UV_WORKING_DIRECTORY")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_DECISIVE = re.compile(
    r"^\s*(error\b|cause\b|hint\b|[\u00d7\u2570\u251c]|Caused by|Because\b|Hash mismatch)", re.IGNORECASE
)
_SHOWN_LINES = 8


class InstallOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One environment to make at `place`. `keep_open` are descriptors that uv holds as long as it runs."""

    place: Path
    lock: Path
    groups: tuple[str, ...] = ()
    python: str | None = None
    keep_open: tuple[int, ...] = ()


def install(order: InstallOrder, *, say: Say) -> tuple[str, ...]:
    """Make the environment; return the packages that lie in the project and were left out, as folders.

    They are relative to the lock's folder. Raises `MlstackError` with uv's decisive lines.
    """
    python = ("--python", order.python) if order.python else ()
    if order.lock.name == "uv.lock":
        local = local_packages(order.lock)
        left_out = [flag for name in local for flag in ("--no-install-package", name)]
        groups = [flag for group in order.groups for flag in ("--group", group)]
        sync = ["sync", "--frozen", "--no-install-project", *left_out, "--no-default-groups", *groups]
        _run([*sync, *python, "--project", str(order.lock.parent)], order, say)
        return tuple(folder for folder in local.values() if folder)
    interpreter = str(order.place / "bin" / "python")
    _run(["venv", *python, "--no-project", str(order.place)], order, say)
    flags = ["--require-hashes"] if order.lock.suffix != ".toml" and _is_hashed(order.lock) else []
    groups = [flag for group in order.groups for flag in ("--group", group)]
    _run(
        ["pip", "sync", "--python", interpreter, *flags, *groups, "--allow-empty-requirements", order.lock.name],
        order,
        say,
    )
    return ()


def local_packages(lock: Path) -> dict[str, str]:
    """Return the packages of a `uv.lock` that lie in the project: name → folder, "" for one that is no package."""
    import tomllib

    try:
        table = tomllib.loads(lock.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MlstackError(
            Diagnostic(
                code="lock-unreadable",
                summary="A lock or project file cannot be parsed",
                detail=f"{lock.name}: {error}.",
                hint="A merge may have left its marks in it; make it again with the tool that wrote it.",
            )
        ) from error
    found = {}
    for package in table.get("package", []):
        source = package.get("source", {})
        kind = next((kind for kind in _LOCAL if kind in source), None)
        if kind is not None:
            found[str(package.get("name"))] = "" if kind == "virtual" else str(source[kind])
    return found


def requirements_have_local_folders(lock: Path) -> bool:
    """Whether a requirements file or `pylock.toml` installs packages from folders of the project."""
    try:
        text = lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return (_LOCAL_PYLOCK if lock.suffix == ".toml" else _LOCAL_REQUIREMENT).search(text) is not None


def uv_environment(order: InstallOrder, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that uv runs with.

    uv trusts only its own certificates unless told otherwise: behind a company's CA nothing works without those of the
    system. The older and the newer name of that setting are given, and what the person has set is left alone.
    """
    found = {name: value for name, value in inherited.items() if name not in _SCRUBBED}
    found["UV_PROJECT_ENVIRONMENT"] = str(order.place)
    if not {"UV_SYSTEM_CERTS", "UV_NATIVE_TLS"} & found.keys():
        found |= {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    found.setdefault("UV_COMPILE_BYTECODE", "1")
    found["UV_NO_PROGRESS"] = "1"
    found["NO_COLOR"] = "1"
    return found


def find_uv() -> str:
    """Return the path of the uv that came with mlstack. Raises `MlstackError` when it is gone."""
    try:
        import uv

        return os.fspath(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise MlstackError(
            Diagnostic(
                code="uv-missing",
                summary="uv was not found",
                detail=f"It is installed together with mlstack, but: {error}.",
                hint="Install it again:",
                command="python -m pip install --force-reinstall uv",
            )
        ) from error


def _is_hashed(lock: Path) -> bool:
    """Whether a requirements file can be asked for a hash of everything; folders and commits have none."""
    text = lock.read_text(encoding="utf-8", errors="replace")
    return "--hash" in text and "git+" not in text and not _LOCAL_REQUIREMENT.search(text)


def _run(arguments: list[str], order: InstallOrder, say: Say) -> None:
    # A session of its own: the first Ctrl-C lets running steps finish.
    process = subprocess.Popen(
        [find_uv(), *arguments],
        cwd=order.lock.parent,
        env=uv_environment(order, os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=order.keep_open,
    )
    lines = []
    with process:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        for raw in process.stderr:
            line = _CREDENTIALS.sub("***@", raw.rstrip())
            if line.strip() and not line.startswith("Activate with:"):  # nobody is to activate it
                lines.append(line)
                say(line.strip())
    if process.returncode != 0:
        raise MlstackError(explain_failure(lines, order))


def explain_failure(lines: list[str], order: InstallOrder) -> Diagnostic:
    """Turn what uv said into a diagnostic with a way out."""
    first = next((index for index, line in enumerate(lines) if _DECISIVE.match(line)), max(0, len(lines) - 3))
    said = "\n".join(line.strip() for line in lines[first : first + _SHOWN_LINES])
    text = "\n".join(lines).lower()
    hint, command = next(
        ((hint, command) for words, hint, command in _WAYS_OUT if any(word in text for word in words)),
        ("Correct the lock file, or run uv there to see more.", ""),
    )
    return Diagnostic(
        code="environment-failed",
        summary="The Python environment cannot be made",
        detail=f"{order.lock.name}{f' with Python {order.python}' if order.python else ''}: {said}",
        hint=hint,
        command=command.format(python=order.python or "3.11", lock=order.lock.name),
    )


_WAYS_OUT: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("no interpreter found", "python-build-standalone", "no python at", "invalid version request"),
        "Install that Python, or name another in `python: {version: …}`. uv can fetch one:",
        "uv python install {python}",
    ),
    (
        ("hash mismatch", "hashes don't match", "missing a hash", "--require-hashes"),
        "The file that the registry has is not the one that was locked. Find out why; if it is right, lock again.",
        "",
    ),
    (
        ("certificate", "tls", "ssl"),
        "Name the company's CA bundle in SSL_CERT_FILE.",
        "",
    ),
    (
        ("not found in the package registry", "no solution found", "no matching distribution", "no version of"),
        "The registry does not have it (for this Python and system). Check index settings, or lock again:",
        "uv lock",
    ),
    (
        ("dns error", "connection refused", "request failed", "failed to fetch", "timed out", "network"),
        "The package registry cannot be reached. Check network, proxy and UV_INDEX_URL; what uv has cached needs none.",
        "",
    ),
    (
        ("no space left", "disk quota"),
        "Free some space, or name another folder in XDG_CACHE_HOME and UV_CACHE_DIR.",
        "",
    ),
)
