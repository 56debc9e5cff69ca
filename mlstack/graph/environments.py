"""The identity of a stage's Python environment: its minor version and the resolved packages of its groups.

Reads `uv.lock`, `pylock.toml` and `requirements.txt`; nothing is installed and nothing of the repository runs. What was
read is remembered by the digests of all files that were looked at, because parsing a large lock takes a while.
"""

from collections.abc import Mapping
from pathlib import Path
from posixpath import basename, dirname, normpath
from typing import Any

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError, did_you_mean, errors_in
from mlstack.graph.digest import Digester
from mlstack.graph.hash_cache import read_cache, write_cache_file
from mlstack.graph.packages import IDENTITY_RECIPE, Resolution, digest_packages, toml_fault, versions_of
from mlstack.graph.python_version import allows, conflict, minor_of, only_minor, running_minor, undeclared
from mlstack.graph.sources import EnvironmentIdentity
from mlstack.spec.plain_files import read_plain
from mlstack.spec.spec import Python

CACHE_FORMAT = 3
_LARGEST = 32 << 20
SYSTEM = EnvironmentIdentity(digest="system")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """An identity with what was found on the way.

    `folders` are packages that lie in the project (editable or workspace members), relative to the project folder:
    their code is looked at when imports are followed. `files` were looked at: the lock, what it includes, and what says
    which Python it is for. `identity` is None when an error is among `diagnostics`.
    """

    identity: EnvironmentIdentity | None
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


class _Remembered(msgspec.Struct, frozen=True):
    """An environment, valid while every file that was looked at has the same digest (None: still not there)."""

    files: dict[str, str | None]
    environment: Environment


class _Content(msgspec.Struct, frozen=True):
    format: int
    recipe: int
    environments: dict[str, _Remembered]


def environment_key(python: Python) -> str:
    """Return the name of an environment in `mlstack.lock`: `uv.lock[train]`, `uv.lock[train] python 3.12`."""
    groups = f"[{','.join(sorted(python.groups))}]" if python.groups else ""
    version = f" python {python.version}" if python.version else ""
    return f"{python.lock or '(no lock)'}{groups}{version}"


class EnvironmentReader:
    """Reads environments of one project. `recorded` gives the Python versions that `mlstack.lock` has, by key."""

    def __init__(
        self, digester: Digester, *, cache_folder: Path | None = None, recorded: Mapping[str, str] | None = None
    ) -> None:
        self._digester = digester
        self._file = cache_folder / "environments.msgpack" if cache_folder is not None else None
        self._recorded = recorded or {}
        self._remembered: dict[str, _Remembered] | None = None
        self._known: dict[Python, Environment] = {}
        self._changed = False

    def read(self, python: Python) -> Environment:
        """Return the environment that `python` names; every problem is in its `diagnostics`, nothing is raised."""
        if python.system:
            return Environment(identity=SYSTEM)
        if python not in self._known:
            self._known[python] = self._find(python)
        return self._known[python]

    def save(self) -> None:
        """Remember what was read. Never fails."""
        if self._changed and self._file is not None:
            content = _Content(format=CACHE_FORMAT, recipe=IDENTITY_RECIPE, environments=self._load())
            write_cache_file(self._file, msgspec.msgpack.encode(content))
            self._changed = False

    def _find(self, python: Python) -> Environment:
        key = environment_key(python)
        recorded = self._recorded.get(key)
        name = f"{key}|{recorded or ''}|{running_minor()}"
        known = self._load().get(name)
        if known is not None and all(self._digest(path) == md5 for path, md5 in known.files.items()):
            return known.environment
        reading = _Reading(self._digester, python, recorded)
        environment = reading.environment()
        self._load()[name] = _Remembered({path: self._digest(path) for path in reading.looked_at}, environment)
        self._changed = True
        return environment

    def _digest(self, path: str) -> str | None:
        try:
            digest = self._digester.digest(path)
        except MlstackError:
            return "unreadable"
        return digest.md5 if digest is not None else None

    def _load(self) -> dict[str, _Remembered]:
        if self._remembered is None:
            self._remembered = self._read_cache()
        return self._remembered

    def _read_cache(self) -> dict[str, _Remembered]:
        content = read_cache(self._file, _Content)
        if content is None or (content.format, content.recipe) != (CACHE_FORMAT, IDENTITY_RECIPE):
            return {}
        return content.environments


class _Reading:
    """One reading of one lock. `looked_at` are the files whose content decided, also those that are not there."""

    def __init__(self, digester: Digester, python: Python, recorded: str | None) -> None:
        self.looked_at: set[str] = set()
        self._digester = digester
        self._root = digester.root
        self._python = python
        self._recorded = recorded
        self._problems: list[Diagnostic] = []

    def environment(self) -> Environment:
        python = self._python
        resolution = self._resolve(normpath(python.lock)) if python.lock is not None else Resolution()
        self._problems += resolution.diagnostics
        minor = self._minor(resolution.requires_python)
        errors = errors_in(self._problems)
        if errors:
            return Environment(identity=None, diagnostics=errors)
        folder = dirname(normpath(python.lock or ""))
        folders = (normpath(f"{folder}/{each}" if folder else each) for each in resolution.folders)
        identity = EnvironmentIdentity(
            digest=digest_packages(minor, resolution.packages),
            python=minor,
            packages=versions_of(resolution.packages),
            lock=python.lock,
            groups=tuple(sorted(python.groups)),
        )
        return Environment(
            identity=identity,
            folders=tuple(sorted(each for each in folders if not each.startswith(("../", "/")))),
            files=tuple(sorted(each for each in self.looked_at if not each.startswith(("../", "/")))),
            diagnostics=tuple(self._problems),
        )

    def _resolve(self, lock: str) -> Resolution:
        name = basename(lock)
        text = self._text(lock)
        if self._problems:
            return Resolution()
        if text is None:
            return Resolution(diagnostics=(self._missing(lock),))
        if name.startswith("pylock") and name.endswith(".toml"):
            from mlstack.graph.pylock import resolve_pylock

            table = self._toml(lock, text)
            if table is None:
                return Resolution()
            return resolve_pylock(table, file=lock, groups=self._python.groups, text=text)
        if name.endswith(".lock"):
            from mlstack.graph.uv_lock import resolve_uv_lock

            table = self._toml(lock, text)
            if table is None:
                return Resolution()
            resolution = resolve_uv_lock(table, file=lock, groups=self._python.groups, text=text)
            if not resolution.diagnostics:
                self._check_freshness(lock, table)
            return resolution
        if self._python.groups:
            self._problems.append(_groups_need_lock(lock, self._python.groups))
        from mlstack.graph.requirements import resolve_requirements

        return resolve_requirements(lock, self._text)

    def _check_freshness(self, lock: str, table: dict[str, Any]) -> None:
        from mlstack.graph.lock_freshness import check_freshness

        project_file = self._beside("pyproject.toml")
        text = self._text(project_file)
        project = self._toml(project_file, text) if text is not None else None
        if project is not None:
            problem = check_freshness(table, project, file=lock, project_file=project_file, groups=self._python.groups)
            self._problems += [problem] if problem is not None else []

    def _minor(self, requires: str) -> str:
        """Return the minor version: declared, pinned beside the lock, the only one allowed, recorded, or running."""
        declared = minor_of(self._python.version) if self._python.version else None
        if declared is None:
            pin = self._text(self._beside(".python-version"))
            lines = [line.strip() for line in (pin or "").splitlines() if line.strip() and not line.startswith("#")]
            declared = minor_of(lines[0]) if lines else None
        requires = requires or self._requires_python()
        if declared is not None:
            if not allows(requires, declared):
                self._problems.append(conflict(self._python.lock or "the project", declared, requires))
            return declared
        only = only_minor(requires) if requires else None
        if only is not None:
            return only
        if self._recorded is not None and allows(requires, self._recorded):
            return self._recorded
        self._problems.append(undeclared(self._python.lock or "the file", running_minor()))
        return running_minor()

    def _requires_python(self) -> str:
        """Return what the project says where the lock does not (a compiled requirements.txt)."""
        file = self._beside("pyproject.toml")
        text = self._text(file)
        table = self._toml(file, text) if text is not None else None
        project = table.get("project", {}) if table is not None else {}
        return str(project.get("requires-python", "")) if isinstance(project, dict) else ""

    def _beside(self, name: str) -> str:
        folder = dirname(normpath(self._python.lock or ""))
        return f"{folder}/{name}" if folder else name

    def _text(self, path: str) -> str | None:
        self.looked_at.add(path)
        if path.startswith(("../", "/")):
            return None
        try:
            digest = self._digester.digest(path)
        except MlstackError as error:  # a link out of the project: its lines must not end up in a message
            self._problems += error.diagnostics
            return ""
        if digest is None or digest.is_folder:
            return None
        try:
            return read_plain(self._root, path, most=_LARGEST).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self._problems.append(_unreadable(path, str(reason)))
            return ""

    def _toml(self, path: str, text: str) -> dict[str, Any] | None:
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self._problems.append(toml_fault(path, error))
            return None
        except (ValueError, RecursionError):
            self._problems.append(_unreadable(path, "it is nested too deeply, or holds a number that is too long"))
            return None

    def _missing(self, lock: str) -> Diagnostic:
        folder = self._root / dirname(lock)
        names = ("uv.lock", "pylock.toml", "requirements.txt")
        others = [name for name in names if (folder / name).is_file()] if folder.is_dir() else []
        command = _MAKING.get(basename(lock), "uv pip compile requirements.in --generate-hashes --output-file " + lock)
        near = did_you_mean(basename(lock), others) or (f"There is {', '.join(others)}." if others else "")
        return Diagnostic(
            code="missing-lock",
            summary="A lock file does not exist",
            detail=f"{lock}: there is no such file in the project.",
            hint=f"{near} Make it and commit it:".strip(),
            command=command,
        )


_MAKING = {
    "uv.lock": "uv lock",
    "pylock.toml": "uv export --format pylock.toml --output-file pylock.toml",
}


def _groups_need_lock(lock: str, groups: tuple[str, ...]) -> Diagnostic:
    return Diagnostic(
        code="groups-need-lock",
        summary="A requirements file has no dependency groups",
        detail=f"groups {', '.join(groups)} are asked for, and {lock} holds one flat list.",
        hint="Leave out `groups`, or use uv.lock or pylock.toml.",
    )


def _unreadable(path: str, reason: str) -> Diagnostic:
    return Diagnostic(
        code="unreadable-file",
        summary="A file or folder cannot be read",
        detail=f"{path}: {reason}.",
        hint="Make it readable for this user.",
    )
