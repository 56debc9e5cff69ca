"""What holds for one invocation: global options, environment, and the terminal that is there.

Commands begin with `settings = settings_of(context)`.
"""

import os
import sys
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec
import typer

from mlstack.render.style import Style, style_for

ColorChoice = Literal["auto", "always", "never"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation.

    `directory` is where to look for the project (absolute). `environment` None: the file's default. `interactive`: a
    person can be asked. `out` and `err` say how to write on standard output and standard error. `arguments` is the
    command line as it was given, for messages that repeat it.
    """

    command: str
    directory: Path
    environment: str | None = None
    json: bool = False
    color: ColorChoice = "auto"
    interactive: bool = False
    ci: bool = False
    verbose: bool = False
    stream: bool = False
    out: Style = Style()
    err: Style = Style()


class Globals(msgspec.Struct):
    """The global options as given, before or after the command; None where not given."""

    command: str = "mlstack"
    stream: bool = False
    directory: Path | None = None
    environment: str | None = None
    json: bool | None = None
    color: ColorChoice | None = None
    verbose: bool | None = None


def settings_of(context: typer.Context) -> Settings:
    """Return the settings of this invocation. Raises `MlstackError` when there is no such folder."""
    given = context.find_root().obj
    return build_settings(given if isinstance(given, Globals) else Globals())


def build_settings(given: Globals, *, environ: "os._Environ[str] | dict[str, str] | None" = None) -> Settings:
    """Combine what was given with what is there: terminal, `NO_COLOR`, `CI`."""
    variables: Any = os.environ if environ is None else environ
    ci = variables.get("CI", "").lower() not in ("", "0", "false", "no")
    color = given.color or "auto"
    try:
        directory = (given.directory or Path()).absolute()
    except FileNotFoundError:
        raise _folder_gone() from None
    if not directory.is_dir():
        raise _no_such_folder(directory)
    return Settings(
        command=given.command,
        directory=directory,
        environment=given.environment,
        json=bool(given.json),
        color=color,
        interactive=not ci and not given.json and _is_terminal(sys.stdin) and _is_terminal(sys.stderr),
        ci=ci,
        verbose=bool(given.verbose),
        stream=given.stream,
        out=style_for(sys.stdout, color=color, environ=variables),
        err=style_for(sys.stderr, color=color, environ=variables),
    )


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _folder_gone() -> Exception:
    from mlstack.diagnostics import Diagnostic, MlstackError

    return MlstackError(
        Diagnostic(
            code="folder-gone",
            summary="The current folder is not there any more",
            detail="It was removed or replaced after this shell went into it.",
            hint="Go to the folder of the project again.",
        )
    )


def _no_such_folder(directory: Path) -> Exception:
    from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError

    return MlstackError(
        Diagnostic(
            code="no-such-folder",
            summary="There is no such folder",
            detail=f"{directory} was given with --directory (or MLSTACK_DIRECTORY), but it is not a folder.",
        ),
        exit_code=ExitCode.USAGE,
    )
