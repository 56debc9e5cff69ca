"""The only error boundary: whatever ends a command becomes text (or JSON) and an exit code here."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import typer

from mlstack.cli.commands import BY_NAME
from mlstack.cli.settings import Globals, Settings, build_settings
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError, did_you_mean

BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended: 128 + 13."""

_FAULTS_OF_THE_MACHINE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENAMETOOLONG,
}
"""What the system answers when its disk, its limits or its permissions are at fault, not mlstack."""

UsageError: Any = typer.BadParameter.__base__
"""click's usage error, from wherever this version of typer keeps click."""


def guarded(given: Globals, command: Callable[[], Any]) -> int:
    """Run `command` and return its exit code, whatever happens in it. Usage errors are left to `main`."""
    try:
        result = command()
    except (typer.Exit, typer.Abort, UsageError):
        raise
    except MlstackError as error:
        return _report(given, error)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)  # noqa: T201 - the boundary
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()
    except Exception as error:  # noqa: BLE001 - the boundary: everything else is a bug of mlstack
        if isinstance(error, OSError) and error.errno in _FAULTS_OF_THE_MACHINE:
            return _report(given, MlstackError(_refused(error)))
        return _report_bug(given, error)
    return result if isinstance(result, int) else ExitCode.OK


def report_usage(error: Exception, arguments: Sequence[str]) -> int:
    """Report what the parser of the command line refused; return the exit code."""
    given = Globals(json=True if "--json" in arguments else None)
    if isinstance(error, MlstackError):
        return _report(given, error)
    if isinstance(error, typer.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, OSError) and error.errno in _FAULTS_OF_THE_MACHINE:
        return report_unwritten(error)
    if not isinstance(error, UsageError):
        return _report_bug(given, error)
    context = error.ctx
    path = context.command_path if context is not None else "mlstack"
    names = [name for param in context.command.get_params(context) for name in param.opts] if context else []
    option = getattr(error, "option_name", "")
    return _report(
        given,
        MlstackError(
            Diagnostic(
                code="usage",
                summary="The command line is not understood",
                detail=_sentence(error, option),
                hint=did_you_mean(option, names) if option else "",
                command=f"{path} --help",
            ),
            exit_code=ExitCode.USAGE,
        ),
    )


def unknown_command(name: str) -> MlstackError:
    """Return the error for a command that does not exist."""
    return MlstackError(
        Diagnostic(
            code="unknown-command",
            summary="There is no such command",
            detail=f'mlstack has no command "{name}".',
            hint=did_you_mean(name, BY_NAME),
            command="mlstack --help",
        ),
        exit_code=ExitCode.USAGE,
    )


def leave_broken_pipe() -> int:
    """Whoever read our output has left (`| head`): end quietly."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return BROKEN_PIPE


def report_unwritten(error: OSError) -> int:
    """Report that standard output did not take what was written to it (a full disk); return the exit code."""
    code = _report(Globals(json=False), MlstackError(_refused(error)))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device; what is still buffered has nowhere to go
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return code


def _sentence(error: Any, option: str) -> str:
    text = f"There is no option {option}." if option and "such option" in error.message else error.format_message()
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _report(given: Globals, error: MlstackError) -> int:
    from mlstack.cli.console import report

    settings = _settings(given)
    try:
        report(settings, error.diagnostics)
    except BrokenPipeError:
        leave_broken_pipe()
    except OSError:  # standard output, where `--json` goes, is what failed
        with suppress(OSError):
            report(msgspec.structs.replace(settings, json=False), error.diagnostics)
    return error.exit_code


def _settings(given: Globals) -> Settings:
    try:
        return build_settings(given)
    except MlstackError:
        return Settings(command=given.command, directory=Path(), json=bool(given.json), stream=given.stream)


def _refused(error: OSError) -> Diagnostic:
    """Say what the system refused where no room of mlstack had expected it: no bug, and nothing that a retry loses."""
    place = error.filename if isinstance(error.filename, str) else ""
    reason = error.strerror or str(error)
    return Diagnostic(
        code="refused-by-system",
        summary="The system refused what mlstack needs",
        detail=f"{place}: {reason}." if place else f"{reason}.",
        hint="Check permissions, free space and limits, then run the same command again: what is done is recorded.",
    )


def _report_bug(given: Globals, error: Exception) -> int:
    from mlstack.cli.bug import write_bug_report

    log = write_bug_report(given, error)
    kind = type(error).__name__
    return _report(
        given,
        MlstackError(
            Diagnostic(
                code="bug",
                summary="mlstack failed in a way that it should not",
                detail=f"{kind}: {error}\n" + (f"What happened in full is in {log}" if log else "").strip(),
                hint="this is a bug in mlstack; please report it with that file, once you see nothing secret in it",
            ),
            exit_code=ExitCode.BUG,
        ),
    )
