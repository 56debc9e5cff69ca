"""The entry point of `mlstack`."""

import sys
from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from mlstack.cli.frame import build_app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    command = get_command(build_app())
    try:
        result: Any = command.main(args=given, prog_name="mlstack", standalone_mode=False)
    except SystemExit as left:  # completion scripts end the process themselves
        result = left.code
    except Exception as error:  # noqa: BLE001 - the boundary: what is not a usage error is reported as a bug
        from mlstack.cli.boundary import report_usage

        result = report_usage(error, given)
    return _flushed(result if isinstance(result, int) else 0)


def _flushed(code: int) -> int:
    if sys.stdout is None or sys.stdout.closed:  # started with standard output closed
        return int(code)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        from mlstack.cli.boundary import leave_broken_pipe

        return leave_broken_pipe()
    except OSError as error:
        from mlstack.cli.boundary import report_unwritten

        return report_unwritten(error)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
