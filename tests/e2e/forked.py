"""Runs commands of mlstack in forks of one process that has everything imported: 20 ms each, instead of 200.

Started as a program of its own by `Forked`: what a test runner has in its threads must not be forked.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove"}
LIMIT = 600  # seconds after which a command hangs


class Forked:
    """The other process, seen from a test."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.forked"],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def mlstack(self, folder: Path, *arguments: str, kill_at: int | None = None) -> tuple[int, str]:
        """Run a command in a folder; return its exit code (negative: the signal that ended it) and all it said.

        With `kill_at` it is killed when it has changed so many names of files, just before the next one: what counts
        is written under another name first.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), kill_at, *arguments]) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        return code, said


def _serve() -> None:
    import mlstack.cli.apply
    import mlstack.cli.main
    import mlstack.cli.plan
    import mlstack.cli.status  # noqa: F401 - what takes time is loaded once

    for line in sys.stdin:
        print(json.dumps(_fork(*json.loads(line))), flush=True)


def _fork(folder: str, kill_at: int | None, *arguments: str) -> tuple[int, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_a_command(folder, arguments, writing, kill_at)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        text = said.read().decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def _be_a_command(folder: str, arguments: Sequence[str], output: int, kill_at: int | None) -> None:
    from mlstack.cli.main import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(folder)
    signal.alarm(LIMIT)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if kill_at is not None:
        _die_before_change(kill_at)
    code = main(list(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_before_change(number: int) -> None:
    """Have this process killed before the change that comes after so many: Python tells of each."""
    left = number

    def on_event(event: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(on_event)


if __name__ == "__main__":
    _serve()
