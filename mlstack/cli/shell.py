"""`mlstack shell`: a command, a shell or a notebook in exactly the environment of a stage, now or at a commit."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer

from mlstack.cli.addresses import one_address
from mlstack.cli.complete import complete_address
from mlstack.cli.console import note, report
from mlstack.cli.project import Project, open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.local.shell import Surroundings, interactive_shell, run_inside
from mlstack.drivers.registry import pool_of
from mlstack.render.escape import plain
from mlstack.spec.address import Address
from mlstack.spec.spec import Stage

_NOT_STARTED = 127
_LOOPBACK = "127.0.0.1"
_NOTEBOOKS = ("jupyter-lab", "jupyter-notebook")

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ADDR] [-- CMD...]", help="A stage, and a command after `--`.", autocompletion=complete_address
    ),
]
Commit = Annotated[
    str | None, typer.Option("--commit", metavar="C", help="As of this commit, in a checkout of its own.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", metavar="PORT", min=1, max=65535, help="Serve a notebook there, on this machine only."),
]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The project that the shell is in. `root` is the working tree: secrets in files are found there."""

    project: Project
    root: Path
    at: str = ""


def shell(context: typer.Context, words: Words = None, commit: Commit = None, port: Port = None) -> int:
    """Open a shell in the environment of a stage: its Python, variables, secrets and folder. Records nothing.

    `mlstack shell train -- python -V` runs one command and exits with its code. Without ADDR: the environment that all
    stages have. With --commit: that commit's environment, with its data restored, beside your working tree.
    """
    settings = settings_of(context)
    command: Sequence[str] = context.meta.get("mlstack.after_dashes", ())
    before = (words or [])[: len(words or []) - len(command)]
    if len(before) > 1 or (port is not None and command):
        raise _usage(before, command)
    with _opened(settings, commit, before) as opened, TemporaryDirectory(prefix="mlstack-shell-") as scratch:
        place = _surroundings(opened, before)
        if port is not None:
            command = _notebook(place, port)
        more: Mapping[str, str] = {}
        if not command:
            command, more = _shell(settings, place, Path(scratch))
        try:
            return run_inside(msgspec.structs.replace(place, environment={**place.environment, **more}), command)
        except MlstackError as error:
            report(settings, error.diagnostics)
            return _NOT_STARTED


@contextmanager
def _opened(settings: Settings, commit: str | None, words: Sequence[str]) -> Iterator[Opened]:
    if commit is None:
        project = open_project(settings)
        yield Opened(project=project, root=project.root)
        return
    from mlstack.cli.at_commit import project_at, restore_all
    from mlstack.spec.load import find_file

    with project_at(settings, commit) as found:
        addresses = [one_address(word, found.project.graph.stages) for word in words] or None
        restore_all(found, addresses)
        note(f"In a checkout of {plain(found.described)}, which is removed at the end.")
        yield Opened(project=found.project, root=find_file(settings.directory).parent, at=f"@{found.commit[:8]}")


def _surroundings(opened: Opened, words: Sequence[str]) -> Surroundings:
    graph, root = opened.project.graph, opened.project.root
    if words:
        stage = _stage(opened, one_address(words[0], graph.stages))
        return Surroundings(
            folder=root / stage.directory,
            environment=_environment(opened, stage),
            label=f"{stage.address}{opened.at}",
        )
    stage = _any_stage(opened)
    whole = _environment(opened, msgspec.structs.replace(stage, env={}, secrets={}))
    of_the_stage = {name for name in whole if name.startswith("MLSTACK_")} - {"MLSTACK_PROJECT", "MLSTACK_ENVIRONMENT"}
    return Surroundings(
        folder=root,
        environment={name: value for name, value in whole.items() if name not in of_the_stage},
        label=f"{graph.spec.project}{opened.at}",
    )


def _stage(opened: Opened, address: Address) -> Stage:
    stage = opened.project.graph.resources[address]
    assert isinstance(stage, Stage)  # noqa: S101 - found among the stages
    return stage


def _any_stage(opened: Opened) -> Stage:
    """Return a stage whose environment all of them have. Raises `MlstackError` when there are several environments."""
    graph = opened.project.graph
    found: dict[tuple[str, str], Address] = {}
    for address in graph.stages:
        identity = graph.environments.get(address)
        target = pool_of(_stage(opened, address), graph).target
        found.setdefault((target, identity.digest if identity is not None else ""), address)
    if len(found) != 1:
        listed = ", ".join(found.values())
        raise MlstackError(
            Diagnostic(
                code="which-environment",
                summary="It is not said in which environment",
                detail=f"The stages have {len(found)} environments; one of each: {listed}."
                if found
                else "The project has no stages.",
                hint="Name a stage, as in:" if found else "",
                command=f"mlstack shell {next(iter(found.values()))}" if found else "",
            )
        )
    return _stage(opened, next(iter(found.values())))


def _environment(opened: Opened, stage: Stage) -> dict[str, str]:
    """Return all variables of the stage, as a run of it would get them. Its Python environment is made if need be."""
    from mlstack.drivers.hands import LocalHands
    from mlstack.drivers.secrets import resolve_secrets

    graph, root = opened.project.graph, opened.project.root
    target = pool_of(stage, graph).target
    if target != "local":
        raise MlstackError(_not_here(stage.address, target))
    hands = LocalHands(graph, root=root, recording=False, publishing=False)
    order = hands.order(stage, "shell", attempt=1, extra={}, say=lambda line: note(plain(line)))
    secrets = resolve_secrets(stage.secrets, address=stage.address, root=opened.root, environment=os.environ)
    return {**order.environment, **secrets.reveal()}


def _shell(settings: Settings, place: Surroundings, scratch: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the command of a shell: for a person on a terminal, or one that reads commands from standard input."""
    if not settings.interactive:
        return (os.environ.get("SHELL") or "/bin/sh",), {}
    note(f"In the environment of {plain(place.label)}. `exit` or Ctrl-D leaves it.")
    return interactive_shell(place, scratch)


def _notebook(place: Surroundings, port: int) -> tuple[str, ...]:
    """Return the command of a notebook server. It asks for its own token, and listens on this machine only."""
    from shutil import which

    programs = place.environment.get("VIRTUAL_ENV")
    where = str(Path(programs) / "bin") if programs else place.environment.get("PATH")
    for name in _NOTEBOOKS:
        program = which(name, path=where)
        if program is not None:
            return (program, f"--ip={_LOOPBACK}", f"--port={port}", "--ServerApp.port_retries=0", "--no-browser")
    raise MlstackError(
        Diagnostic(
            code="no-notebook",
            summary="There is no notebook server in this environment",
            detail=f"Neither {' nor '.join(_NOTEBOOKS)} is in the environment of {place.label}.",
            hint="Add it to a group of your lock file, and name that group under `python` of a stage of its own. "
            "Packages are part of what a result is computed from: in the environment of other stages it would make "
            "these run again.",
            command="uv add --group notebook jupyterlab",
        )
    )


def _not_here(address: Address, target: str) -> Diagnostic:
    return Diagnostic(
        code="shell-not-here",
        summary="There is no shell in this place",
        detail=f"{address} runs on target {target}; this version opens shells on this machine only.",
        hint="In an environment of the file whose pool has `target: local` it has the same packages:",
        command=f"mlstack shell {address} --environment NAME",
    )


def _usage(before: Sequence[str], command: Sequence[str]) -> MlstackError:
    detail = "--port starts a notebook; it takes no command." if command else f"More than one word: {' '.join(before)}."
    hint = "" if command else "A command follows after two dashes:"
    example = f"mlstack shell {before[0]} -- {' '.join(before[1:])}" if len(before) > 1 else ""
    return MlstackError(
        Diagnostic(
            code="usage", summary="The command line is not understood", detail=detail, hint=hint, command=example
        ),
        exit_code=ExitCode.USAGE,
    )
