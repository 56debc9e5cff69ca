"""A command, or a shell for a person, in the surroundings of a stage on this machine."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError

_LEFT_TO_THE_COMMAND = (signal.SIGINT, signal.SIGQUIT)
_HANDED_ON = (signal.SIGTERM, signal.SIGHUP)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command runs: its folder and all of its variables. `label` says in a prompt where one is."""

    folder: Path
    environment: Mapping[str, str]
    label: str


def run_inside(place: Surroundings, command: Sequence[str]) -> int:
    """Run a command on this terminal, and return its exit code; 128 and the signal's number if one ended it.

    Raises `MlstackError` when it cannot be started.
    """
    with _signals_for_it() as child:
        try:
            process = subprocess.Popen([*command], cwd=place.folder, env=dict(place.environment))
        except OSError as error:
            raise MlstackError(_not_started(command[0], error, place.folder)) from error
        child.append(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_for_it() -> "Iterator[list[subprocess.Popen[bytes]]]":
    """Leave Ctrl-C to the command, which the terminal sends it too; hand on what is sent to us alone."""
    child: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        for process in child:
            process.send_signal(number)

    def leave(_number: int, _frame: FrameType | None) -> None:
        """Do nothing; unlike SIG_IGN this is not inherited by the command."""

    before = {number: signal.signal(number, leave) for number in _LEFT_TO_THE_COMMAND}
    before |= {number: signal.signal(number, hand_on) for number in _HANDED_ON}
    try:
        yield child
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interactive_shell(place: Surroundings, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command of the person's own shell, and the variables that it needs beside those of `place`.

    Its start-up files are read as ever; afterwards the PATH is put back, which they often change, and the prompt says
    where one is. `scratch` takes a start-up file.
    """
    shell = os.environ.get("SHELL") or "/bin/sh"
    path, label = shlex.quote(place.environment.get("PATH", os.defpath)), f"({place.label}) "
    match Path(shell).name:
        case "bash":
            start = scratch / "bashrc"
            start.write_text(
                f'[ -f ~/.bashrc ] && . ~/.bashrc\nexport PATH={path}\nPS1={shlex.quote(label)}"$PS1"\n',
                encoding="utf-8",
            )
            return [shell, "--rcfile", str(start), "-i"], {}
        case "zsh":
            home = shlex.quote(os.environ.get("ZDOTDIR") or str(Path.home()))
            (scratch / ".zshrc").write_text(
                f"ZDOTDIR={home}\n[ -f {home}/.zshrc ] && . {home}/.zshrc\nexport PATH={path}\n"
                f'PROMPT={shlex.quote(label)}"$PROMPT"\n',
                encoding="utf-8",
            )
            return [shell, "-i"], {"ZDOTDIR": str(scratch)}
        case "fish":
            folders = place.environment.get("PATH", os.defpath).split(os.pathsep)
            lines = (
                f"set -gx PATH {shlex.join(folders)}",
                "functions -c fish_prompt mlstack_prompt",
                f"function fish_prompt; echo -n {shlex.quote(label)}; mlstack_prompt; end",
            )
            return [shell, "-i", "-C", "; ".join(lines)], {}
    return [shell, "-i"], {"PS1": f"{label}$ "}


def _not_started(command: str, error: OSError, folder: Path) -> Diagnostic:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and folder.is_dir():
        reason = "there is no such command on the PATH of this environment"
    return Diagnostic(
        code="command-not-started",
        summary="The command cannot be started",
        detail=f"{command}: {reason}.",
    )
