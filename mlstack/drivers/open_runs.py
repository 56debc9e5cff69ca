"""Runs that nobody has collected yet: they go on, or ended after their applier died."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOutcome
from mlstack.spec.address import Address, Kind
from mlstack.state.environment_folder import OWN_FOLDER
from mlstack.state.identity import host_name, is_running
from mlstack.state.state import RemoteHandle, RunRecord

_TOGETHER = 16
OPEN = ("claimed", "running")
"""The statuses of a run that was not collected. A mere claim counts: its owner can have died right after the start."""


class RunEnd(msgspec.Struct, frozen=True):
    """The part of a run's `result.json` that says how it ended; times are in seconds since the epoch."""

    exit_code: int | None
    started: float
    ended: float


def open_runs(
    runs: Sequence[RunRecord], *, root: Path, outcomes: Mapping[tuple[Address, str], RunOutcome] | None = None
) -> dict[Address, tuple[RunRecord, ...]]:
    """Return the runs that go on, or that ended well and wait to be collected, by stage and in the order of `runs`.

    `outcomes` is what runs elsewhere said (`outcomes_of`); without it they are taken for going on.
    """
    found: dict[Address, tuple[RunRecord, ...]] = {}
    for run in (in_tree(run, root) for run in runs if run.status in OPEN):
        if run.remote is None:
            is_open = run_goes_on(run) or _ended_well(run)
        else:
            said = outcomes[run.address, run.fingerprint] if outcomes is not None else RunOutcome(goes_on=True)
            is_open = said.goes_on or said.ended_well
        if is_open:
            found[run.address] = (*found.get(run.address, ()), run)
    return found


def outcomes_of(
    runs: Sequence[RunRecord], *, root: Path, unanswered: list[Diagnostic] | None = None
) -> dict[tuple[Address, str], RunOutcome]:
    """Ask the uncollected runs elsewhere, where they are, how far they are: by address and fingerprint.

    One that cannot be asked is never taken for gone: why not is added to `unanswered`; without, raises `MlstackError`.
    """
    asked = [(run, run.remote) for run in runs if run.status in OPEN and run.remote is not None]
    if not asked:
        return {}
    from concurrent.futures import ThreadPoolExecutor

    from mlstack.drivers.registry import make_driver

    drivers = {target: make_driver(Kind.STAGE, target, root=root) for target in {handle.target for _, handle in asked}}

    def ask(one: tuple[RunRecord, RemoteHandle]) -> RunOutcome:
        try:
            found: RunOutcome = drivers[one[1].target].outcome(one[0])
        except MlstackError as error:
            if unanswered is None:
                raise
            unanswered.extend(error.diagnostics)
            return RunOutcome(goes_on=True, phase="not checked", said=error.brief)
        return found

    with ThreadPoolExecutor(max_workers=min(_TOGETHER, len(asked))) as pool:
        said = [*pool.map(ask, asked)]
    return {(run.address, run.fingerprint): each for (run, _), each in zip(asked, said, strict=True)}


def target_of(run: RunRecord) -> str:
    """Return what carries out a run, also of a stage that is not declared any more."""
    if run.remote is not None:
        return run.remote.target
    from mlstack.drivers.local.run_folder import read_order

    saved = read_order(Path(run.folder)) if run.folder is not None else None
    return "docker" if saved is not None and saved.container else "local"


def in_tree(run: RunRecord, root: Path) -> RunRecord:
    """Return the record with the folder that its run has in this working tree.

    What the record says of it is not believed: who can write the state could have us write and end processes anywhere.
    """
    from mlstack.drivers.local.run_folder import folder_of

    folder = folder_of(root / OWN_FOLDER / "runs", run.address, run.fingerprint)
    return msgspec.structs.replace(run, folder=str(folder))


def run_goes_on(run: RunRecord) -> bool:
    """Whether somebody on this machine carries out this run."""
    if run.host != host_name() or run.folder is None:
        return False
    from mlstack.drivers.local.run_folder import running_pid

    return running_pid(Path(run.folder)) is not None


def is_owner_alive(run: RunRecord) -> bool:
    """Whether the mlstack that claimed this run is still there. On another host that is not known: no."""
    return run.host == host_name() and is_running(run.owner_pid, run.owner_started)


def result_of(run: RunRecord) -> RunEnd | None:
    """Read how this run ended: None while it has not, and for a result that is older than the claim."""
    try:
        end = decoding.decode((Path(run.folder or "") / "result.json").read_bytes(), RunEnd)
    except (OSError, msgspec.DecodeError):
        return None
    return end if end.started >= _seconds(run.claimed_at) else None


def _ended_well(run: RunRecord) -> bool:
    result = result_of(run)
    return result is not None and result.exit_code == 0


def _seconds(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()
