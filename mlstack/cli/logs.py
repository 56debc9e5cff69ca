"""`mlstack logs`: what a stage's run or an endpoint's server wrote."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli import options
from mlstack.cli.addresses import one_address
from mlstack.cli.console import note, say_json_line
from mlstack.cli.project import open_spec
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.render.human import counted
from mlstack.render.program_output import ProgramOutput
from mlstack.spec.address import Address, Kind, kind_of, slug
from mlstack.spec.spec import Spec
from mlstack.state.environment_folder import OWN_FOLDER

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over, or Ctrl-C.")]
Run = Annotated[
    str | None, typer.Option("--run", metavar="FINGERPRINT", help="A run by the first letters of its fingerprint.")
]
Attempt = Annotated[int | None, typer.Option("--attempt", metavar="N", min=1, help="An earlier attempt of the run.")]
Lines = Annotated[int | None, typer.Option("--lines", "-n", metavar="N", min=0, help="Begin with the last N lines.")]


def logs(
    context: typer.Context,
    address: options.AddressArgument,
    follow: Follow = False,
    run: Run = None,
    attempt: Attempt = None,
    lines: Lines = None,
) -> int:
    """Show what the newest run of a stage, or the server of an endpoint, wrote.

    Secrets were masked when it was written. On a terminal, what could steer it is shown as escapes; a pipe gets every
    byte. With --json each line is an object of its own.
    """
    settings = settings_of(context)
    root, spec = open_spec(settings)
    where = one_address(address, spec.resources, kinds=(Kind.STAGE, Kind.ENDPOINT))
    match kind_of(where):
        case Kind.STAGE:
            elsewhere = _run_elsewhere(root, spec, where, run=run, follow=follow) if attempt is None else None
            if elsewhere is not None:
                chunks = elsewhere if lines is None or follow else _last_lines(elsewhere, lines)
            else:
                chunks = _stage_log(root, where, follow=follow, run=run, attempt=attempt, lines=lines)
        case Kind.ENDPOINT:
            away = _log_elsewhere(root, spec, where, follow=follow, lines=lines)
            chunks = away if away is not None else _server_log(root, spec, where, follow=follow, lines=lines)
        case kind:
            raise MlstackError(_no_log(where, f"{kind.value} do not write logs; stages and endpoints do."))
    if settings.json:
        for line in _whole_lines(chunks):
            say_json_line({"address": where, "line": line.decode("utf-8", "replace").rstrip("\n")})
    else:
        _show(chunks, terminal=settings.out.terminal, color=settings.out.color)
    return ExitCode.OK


def _show(chunks: Iterable[bytes], *, terminal: bool, color: bool) -> None:
    if not terminal:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    output = ProgramOutput(color=color)
    try:
        for chunk in chunks:
            sys.stdout.write(output.feed(chunk))
            sys.stdout.flush()
    finally:
        sys.stdout.write(output.finish())


def _run_elsewhere(
    root: Path, spec: Spec, address: Address, *, run: str | None, follow: bool
) -> Iterable[bytes] | None:
    """Return the log of the newest run (or the named one) if that is elsewhere and has left nothing here yet."""
    from mlstack.drivers.elsewhere import SupportsRemoteRun
    from mlstack.drivers.open_runs import OPEN
    from mlstack.drivers.registry import make_driver
    from mlstack.state.environment_folder import backend_for
    from mlstack.state.runs import read_runs

    runs = read_runs(backend_for(spec.state, root, spec.environment), address)
    chosen = next((each for each in runs if run is None or each.fingerprint.startswith(run)), None)
    if chosen is None or chosen.remote is None:
        return None
    if chosen.status not in OPEN and (_runs_folder(root, address) / chosen.fingerprint[:16]).is_dir():
        return None
    driver = make_driver(Kind.STAGE, chosen.remote.target, root=root)
    assert isinstance(driver, SupportsRemoteRun)  # noqa: S101 - it has written the record
    return driver.log(chosen, follow=follow)


def _runs_folder(root: Path, address: Address) -> Path:
    return root / OWN_FOLDER / "runs" / slug(address)


def _stage_log(
    root: Path, address: Address, *, follow: bool, run: str | None, attempt: int | None, lines: int | None
) -> Iterable[bytes]:
    from mlstack.drivers.local.logs import attempts, follow_log, read_log

    folder = _run_folder(root, address, run)
    known = attempts(folder)
    earlier = [number for number in known if number is not None]
    number = attempt if attempt in earlier else None
    if attempt is not None and number is None and attempt != len(known):
        raise MlstackError(_no_log(address, f"this run has {counted(len(known), 'attempt')}."))
    if follow and number is None:
        return follow_log(folder, lines=lines)
    found = read_log(folder, number=number)
    return found if lines is None else _last_lines(found, lines)


def _run_folder(root: Path, address: Address, run: str | None) -> Path:
    """Return the folder of the newest run, or of the one whose fingerprint begins with `run`."""
    runs = _runs_folder(root, address)
    folders = [folder for folder in runs.iterdir() if folder.is_dir()] if runs.is_dir() else []
    chosen = [f for f in folders if run is None or f.name.startswith(run[:16]) or run.startswith(f.name)]
    if not chosen:
        detail = "it has not run on this machine yet." if not folders else f"no run of it begins with {run!r}."
        raise MlstackError(_no_log(address, detail))
    if run is None and len(chosen) > 1:
        note(f"{address} has {counted(len(chosen), 'run')} on this machine; this is the newest.")
    return max(chosen, key=_began)


def _began(folder: Path) -> float:
    try:
        return max((path.stat().st_mtime for path in folder.glob("log*.txt")), default=folder.stat().st_mtime)
    except OSError:
        return 0.0


def _log_elsewhere(
    root: Path, spec: Spec, address: Address, *, follow: bool, lines: int | None
) -> Iterable[bytes] | None:
    """Return what the servers of an endpoint write that is not on this machine; None for one that is."""
    from mlstack.drivers.base import SupportsAccess
    from mlstack.drivers.registry import driver_named, seen_from_here
    from mlstack.state.environment_folder import backend_for
    from mlstack.state.read import open_reader

    backend = backend_for(spec.state, root, spec.environment)
    reader = open_reader(backend, project=spec.project, environment=spec.environment)
    state = seen_from_here(reader.state(), spec, root=root)
    record = state.resources.get(address) if state is not None else None
    driver = driver_named(record.driver, root=root) if record is not None else None
    return driver.log(record, follow=follow, lines=lines) if record and isinstance(driver, SupportsAccess) else None


def _server_log(root: Path, spec: Spec, address: Address, *, follow: bool, lines: int | None) -> Iterable[bytes]:
    from mlstack.drivers.local.endpoint_server import FOLDERS, LOG, endpoint_folder

    folders = [endpoint_folder(root / OWN_FOLDER, kind, spec.environment, address) for kind in FOLDERS]
    files = [file for folder in folders for file in folder.glob(f"[0-9]*/{LOG}")]
    if not files:
        raise MlstackError(_no_log(address, "its server has not run on this machine."))
    newest = max(files, key=lambda file: file.parent.stat().st_ctime)
    begun = _last_lines(_chunks(newest), lines) if lines is not None else _chunks(newest)
    return _growing(newest, begun) if follow else begun


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(65536):
            yield chunk


def _growing(file: Path, begun: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is there and then what is added, until somebody interrupts."""
    position = file.stat().st_size
    yield from begun
    while True:
        with file.open("rb") as stream:
            if file.stat().st_size < position:  # it was begun anew
                position = 0
            stream.seek(position)
            while chunk := stream.read(65536):
                position += len(chunk)
                yield chunk
        time.sleep(0.2)


def _last_lines(chunks: Iterable[bytes], lines: int) -> Iterator[bytes]:
    from collections import deque

    yield from deque(_whole_lines(chunks), maxlen=lines)


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their ends, each as soon as it is whole; at the end also one that is not."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _no_log(address: Address, why: str) -> Diagnostic:
    return Diagnostic(code="no-log", summary="There is no log", detail=f"{address}: {why}", address=address)
