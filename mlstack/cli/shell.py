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
from mlstack.cli.project import open_project
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.shell_notebook import LOOPBACK, NOTEBOOKS, no_notebook, notebook_options
from mlstack.cli.shell_place import Inside, Opened, find_inside, order_inside, secrets_inside
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.local.shell import Surroundings, interactive_shell, run_inside
from mlstack.drivers.registry import pool_of
from mlstack.render.escape import plain
from mlstack.spec.address import Address

_NOT_STARTED = 127

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ADDR] [-- CMD...]", help="A stage, and a command after `--`.", autocompletion=complete_address
    ),
]
Commit = Annotated[
    str | None, typer.Option("--commit", metavar="C", help="As of this commit, in a checkout of its own.")
]
Failed = Annotated[
    bool, typer.Option("--failed", help="Where the newest run of the stage failed, in a cluster that keeps its pod.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", metavar="PORT", min=1, max=65535, help="Serve a notebook there, on this machine only."),
]


def shell(
    context: typer.Context, words: Words = None, commit: Commit = None, port: Port = None, failed: Failed = False
) -> int:
    """Open a shell in the environment of a stage: its Python, variables, secrets and folder. Records nothing.

    `mlstack shell train -- python -V` runs one command and exits with its code. Without ADDR: the environment that all
    stages have. With --commit: that commit's environment, with its data restored, beside your working tree.
    """
    settings = settings_of(context)
    command: Sequence[str] = context.meta.get("mlstack.after_dashes", ())
    before = (words or [])[: len(words or []) - len(command)]
    if len(before) > 1 or (port is not None and command):
        raise _usage(before, command)
    if failed and before:
        from mlstack.cli.shell_failed import shell_where_it_failed

        return shell_where_it_failed(settings, before[0])
    with _opened(settings, commit, before) as opened:
        inside = find_inside(opened, before)
        match target := pool_of(inside.stage, opened.project.graph).target:
            case "local":
                return _in_a_process(settings, opened, inside, command, port=port)
            case "docker":
                from mlstack.cli.shell_docker import shell_in_container

                return shell_in_container(settings, opened, inside, command, port=port)
        raise MlstackError(_not_here(inside.stage.address, target))


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


def _in_a_process(
    settings: Settings, opened: Opened, inside: Inside, command: Sequence[str], *, port: int | None
) -> int:
    order, secrets = order_inside(opened, inside), secrets_inside(opened, inside)
    place = Surroundings(
        folder=order.root / order.stage.directory,
        environment={**order.environment, **secrets.reveal()},
        label=inside.label,
    )
    with TemporaryDirectory(prefix="mlstack-shell-") as scratch:
        more: Mapping[str, str] = {}
        if port is not None:
            command = _notebook(place, port)
        elif not command:
            command, more = _shell(settings, place, Path(scratch))
        try:
            return run_inside(msgspec.structs.replace(place, environment={**place.environment, **more}), command)
        except MlstackError as error:
            report(settings, error.diagnostics)
            return _NOT_STARTED


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
    for name in NOTEBOOKS:
        program = which(name, path=where)
        if program is not None:
            return (program, *notebook_options(LOOPBACK, port))
    raise MlstackError(no_notebook(place.label))


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
