"""One call of Pulumi's command line: started apart from the terminal, and ended in order when it is to stop."""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event as StopFlag
from threading import Thread

import msgspec

from mlstack.drivers.stacks import Stop

_LOOKS = 0.1  # seconds between two looks whether to stop
_FIRST_GRACE = 60.0  # seconds that steps in flight have to end and be written down after the first signal
_LAST_GRACE = 10.0  # seconds that the engine has after the second one
_READ_WITHIN = 60.0  # seconds for which its last words are read; for ever would it be where somebody keeps its pipes


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended: what it wrote, and whether it was asked to stop."""

    code: int
    output: str
    errors: str
    stopped: bool = False

    @property
    def said(self) -> str:
        """What it wrote for people, errors first."""
        return "\n".join(text for text in (self.errors.strip(), self.output.strip()) if text)


def call(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    stop: StopFlag | None = None,
    on_start: Callable[[int], None] = lambda _: None,
) -> Ended:
    """Run a command to its end. Raises OSError when it cannot be started.

    It has a session of its own: Ctrl-C in the terminal reaches only mlstack, which decides. With `stop` set the engine
    is interrupted: it starts nothing more, and writes down what was in flight. Should it not end then, it is
    interrupted again, and killed with its plugins in the end; what is left the next update repairs.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    read: dict[str, bytes] = {}
    readers = [Thread(target=_read, args=(process, name, read), daemon=True) for name in ("stdout", "stderr")]
    has_ended = False
    try:
        for reader in readers:
            reader.start()
        on_start(process.pid)
        while process.poll() is None and not (stop is not None and stop.is_set()):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOKS)
        has_ended = process.poll() is not None
    finally:
        if not has_ended:
            _end(process, _grace_of(stop))
    for reader in readers:
        reader.join(_READ_WITHIN)
    texts = {name: read.get(name, b"").decode("utf-8", "replace") for name in ("stdout", "stderr")}
    return Ended(code=process.returncode, output=texts["stdout"], errors=texts["stderr"], stopped=not has_ended)


def _read(process: "subprocess.Popen[bytes]", name: str, into: dict[str, bytes]) -> None:
    pipe = process.stdout if name == "stdout" else process.stderr
    assert pipe is not None  # noqa: S101 - both are pipes
    with pipe:
        into[name] = pipe.read()


def _grace_of(stop: StopFlag | None) -> float:
    return stop.grace if isinstance(stop, Stop) and stop.grace is not None else _FIRST_GRACE


def _end(process: "subprocess.Popen[bytes]", grace: float) -> None:
    for seconds in (grace, min(grace, _LAST_GRACE)):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    kill_with_plugins(process.pid)
    process.wait()


def kill_with_plugins(pid: int) -> None:
    """Kill an engine and its plugins, which have process groups of their own; whoever is gone already is fine."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        engine = psutil.Process(pid)
        everybody = [*engine.children(recursive=True), engine]
        for each in everybody:
            with suppress(psutil.NoSuchProcess):
                each.kill()
