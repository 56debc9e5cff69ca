"""`mlstack doctor`: the tools that mlstack drives, and the state of the project."""

import platform
import shutil
import subprocess
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from mlstack.cli.console import report, say, say_json
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.render.style import Tone
from mlstack.render.table import Cell, render_table
from mlstack.state.protocols import Backend

Status = Literal["ok", "missing", "problem", "not asked", "not needed here"]
_TONES: dict[Status, Tone] = {
    "ok": "add",
    "missing": "error",
    "problem": "error",
    "not asked": "quiet",
    "not needed here": "quiet",
}
_TIMEOUT = 20.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `needed` False: nothing of this project asks for it."""

    name: str
    status: Status
    found: str
    purpose: str
    hint: str = ""
    needed: bool = True


def doctor(
    context: typer.Context,
    install_pulumi: Annotated[
        bool,
        typer.Option("--install-pulumi", help="Fetch Pulumi's command line with Pulumi's installer, if there is none."),
    ] = False,
) -> int:
    """Check the tools that mlstack drives, and the project if there is one.

    Exit code 1 when something that is needed is missing or wrong.
    """
    from mlstack.cli.doctor_engines import check_engines
    from mlstack.cli.doctor_places import check_places
    from mlstack.cli.doctor_pulumi import check_pulumi, install

    settings = settings_of(context)
    if install_pulumi:
        install()
    project = [*_project(settings)]  # before the file is read for the engines: that makes a folder for its cache
    checks = [*_tools(), *check_engines(settings), *check_pulumi(settings), *project, *check_places(settings)]
    bad = [check for check in checks if check.needed and check.status in ("missing", "problem")]
    if settings.json:
        say_json({"format_version": "1.0", "well": not bad, "checks": checks})
        return ExitCode.ERROR if bad else ExitCode.OK
    rows = [(check.name, Cell(check.status, _TONES[check.status]), check.found, check.purpose) for check in checks]
    say(render_table(("WHAT", "STATUS", "FOUND", "WHAT IT IS FOR"), rows, style=settings.out))
    for check in bad:
        report(
            settings,
            [
                Diagnostic(
                    code=f"doctor-{check.status}",
                    summary=f"{check.name} is {check.status}"
                    if check.status == "missing"
                    else f"{check.name} is not well",
                    detail=check.found,
                    hint=check.hint,
                )
            ],
        )
    return ExitCode.ERROR if bad else ExitCode.OK


# ---------------------------------------------------------------------------------------------------- tools


def _tools() -> Iterable[Check]:
    yield Check(name="python", status="ok", found=platform.python_version(), purpose="runs mlstack")
    yield _program("git", ["git", "--version"], "commits, branches, what changed", hint="install Git from your system")
    yield _package("dvc", "versions data, models and results")
    yield _uv()


def _program(name: str, command: list[str], purpose: str, *, hint: str = "") -> Check:
    path = shutil.which(command[0])
    if path is None:
        return Check(name=name, status="missing", found="not on the PATH", purpose=purpose, hint=hint)
    try:
        done = subprocess.run([path, *command[1:]], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name=name, status="problem", found=str(error), purpose=purpose, hint=hint)
    said = (done.stdout or done.stderr).strip().partition("\n")[0]
    status: Status = "ok" if done.returncode == 0 else "problem"
    return Check(name=name, status=status, found=said, purpose=purpose, hint=hint)


def _uv() -> Check:
    purpose = "Python environments of stages and endpoints"
    if find_spec("uv") is None:
        return _program("uv", ["uv", "--version"], purpose, hint="install mlstack anew: uv comes with it")
    return _package("uv", purpose)


def _package(name: str, purpose: str) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check(name=name, status="ok", found=version(name), purpose=purpose)
    except PackageNotFoundError:
        hint = f"install mlstack anew: {name} comes with it"
        return Check(name=name, status="missing", found="not installed", purpose=purpose, hint=hint)


# ---------------------------------------------------------------------------------------------------- project


def _project(settings: Settings) -> Iterable[Check]:
    """Look at the repository and the recorded state; each fault is a row and stops nothing."""
    from mlstack.spec.load import find_file

    try:
        root = find_file(settings.directory).parent
    except MlstackError as error:
        yield failed_check("project", error, "what plan and apply work on", hint="mlstack init makes one", needed=False)
        yield _repository(settings.directory)
        return
    yield Check(name="project", status="ok", found=str(root), purpose="what plan and apply work on")
    yield _repository(root)
    yield _dvc_repository(root)
    yield _own_folder(root)
    yield _merge_driver(root)
    yield from _recorded(settings)


def failed_check(name: str, error: MlstackError, purpose: str, *, hint: str = "", needed: bool = True) -> Check:
    """Return the row of what raised this."""
    first = error.diagnostics[0]
    found = f"{first.summary}: {first.detail}" if first.detail else first.summary
    status: Status = "problem" if needed else "not needed here"
    way_out = hint or (f"{first.hint}\n  {first.command}" if first.command else first.hint)
    return Check(name=name, status=status, found=found, purpose=purpose, hint=way_out, needed=needed)


def _repository(root: Path) -> Check:
    from mlstack.gitops.facts import read_git_facts

    purpose = "the record of what was applied, and of results"
    try:
        facts = read_git_facts(root)
    except MlstackError as error:
        return failed_check("git repository", error, purpose)
    if facts is None:
        hint = "mlstack init makes one"
        return Check(name="git repository", status="missing", found="none around here", purpose=purpose, hint=hint)
    commit = f"{facts.commit[:8]} on {facts.branch or 'no branch'}" if facts.commit else "no commit yet"
    extra = f", {len(facts.dirty)} uncommitted" if facts.dirty else ""
    extra += ", shallow" if facts.shallow else ""
    return Check(name="git repository", status="ok", found=f"{commit}{extra}", purpose=purpose)


def _dvc_repository(root: Path) -> Check:
    purpose = "where data and results are kept"
    for folder in (root, *root.parents):
        if (folder / ".dvc").is_dir():
            return Check(name="dvc repository", status="ok", found=str(folder / ".dvc"), purpose=purpose)
        if (folder / ".git").exists():
            break
    hint = "mlstack init makes one"
    return Check(name="dvc repository", status="missing", found="there is no .dvc folder", purpose=purpose, hint=hint)


def _own_folder(root: Path) -> Check:
    from mlstack.spec.plain_files import read_plain
    from mlstack.state.environment_folder import OWN_FOLDER

    purpose = "mlstack's own files; Git must not see them"
    folder = root / OWN_FOLDER
    if not folder.exists():
        return Check(name=OWN_FOLDER, status="ok", found="not there yet", purpose=purpose)
    try:
        ignored = b"*" in read_plain(folder, ".gitignore").split()
    except OSError:
        ignored = False
    if ignored:
        return Check(name=OWN_FOLDER, status="ok", found="ignored by Git", purpose=purpose)
    hint = f"write a line with * into {folder / '.gitignore'}"
    return Check(name=OWN_FOLDER, status="problem", found="Git does not ignore it", purpose=purpose, hint=hint)


def _merge_driver(root: Path) -> Check:
    from mlstack.gitops.merge_driver import DRIVER, configured_driver, driver_command, merge_attributes

    name, purpose = "merge driver", "Git merges dvc.lock and the like entry by entry"
    files = [file for file, driver in merge_attributes(root).items() if driver == DRIVER]
    if not files:
        found = "not asked for in .gitattributes; `mlstack lock --resolve` works without"
        return Check(name=name, status="not needed here", found=found, purpose=purpose, needed=False)
    configured = configured_driver(root)
    if configured == driver_command():
        return Check(name=name, status="ok", found=f"for {', '.join(files)}", purpose=purpose)
    found = "asked for in .gitattributes, but not configured in this clone (mlstack init does it)"
    if configured is not None:
        found = "configured in this clone for another mlstack, or in another way (mlstack init does it anew)"
    # Without it Git merges as it always does, so this stops nothing.
    return Check(name=name, status="problem", found=found, purpose=purpose, hint="mlstack init", needed=False)


def _recorded(settings: Settings) -> Iterable[Check]:
    from mlstack.cli.project import open_spec
    from mlstack.render.human import age, counted
    from mlstack.state.environment_folder import backend_for
    from mlstack.state.environment_lock import holder
    from mlstack.state.read import open_reader

    try:
        root, spec = open_spec(settings)
    except MlstackError as error:
        yield failed_check(
            "mlstack.yaml", error, "what the system consists of", hint="mlstack validate shows every fault"
        )
        return
    found = f"{counted(len(spec.resources), 'resource')}, environment {spec.environment}"
    yield Check(name="mlstack.yaml", status="ok", found=found, purpose="what the system consists of")
    backend = backend_for(spec.state, root, spec.environment)
    purpose = "what is recorded about endpoints"
    try:
        state = open_reader(backend, project=spec.project, environment=spec.environment).state()
        said = (
            f"serial {state.serial}, {counted(len(state.resources), 'resource')}" if state else "nothing recorded yet"
        )
        yield Check(name="state", status="ok", found=said, purpose=purpose)
        yield from _conditions(backend)
    except MlstackError as error:
        yield failed_check("state", error, purpose)
    purpose = "one apply at a time"
    try:
        owner = holder(backend, environment=spec.environment)
    except MlstackError as error:
        yield failed_check("lock", error, purpose)
        return
    said = f"held by {owner.who} on {owner.host} since {age(owner.created)}, ID {owner.id}" if owner else "free"
    yield Check(name="lock", status="ok", found=said, purpose=purpose)


def _conditions(backend: Backend) -> Iterable[Check]:
    """Try what keeps two applies apart in an object store: it takes a small object there, which is removed again."""
    if "://" not in backend.location(""):
        return
    from mlstack.state.object_store import ObjectBackend

    if not isinstance(backend, ObjectBackend):
        return
    purpose = "two applies never overwrite each other"
    try:
        backend.prove_conditions()
        yield Check(name="state store", status="ok", found="honours conditions of writes", purpose=purpose)
    except MlstackError as error:
        yield failed_check("state store", error, purpose)
