"""Runs that nobody has collected yet: they go on, or ended after their applier died."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlstack.spec.address import Address
from mlstack.state.environment_folder import OWN_FOLDER
from mlstack.state.identity import host_name, is_running
from mlstack.state.state import RunRecord

OPEN = ("claimed", "running")
"""The statuses of a run that was not collected. A mere claim counts: its owner can have died right after the start."""


class RunEnd(msgspec.Struct, frozen=True):
    """The part of a run's `result.json` that says how it ended; times are in seconds since the epoch."""

    exit_code: int | None
    started: float
    ended: float


def open_runs(runs: Sequence[RunRecord], *, root: Path) -> dict[Address, tuple[RunRecord, ...]]:
    """Return the runs that go on, or that ended well and wait to be collected, by stage and in the order of `runs`."""
    found: dict[Address, tuple[RunRecord, ...]] = {}
    for run in (in_tree(run, root) for run in runs if run.status in OPEN):
        if run_goes_on(run) or _ended_well(run):
            found[run.address] = (*found.get(run.address, ()), run)
    return found


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
        end = msgspec.json.decode((Path(run.folder or "") / "result.json").read_bytes(), type=RunEnd)
    except (OSError, msgspec.DecodeError):
        return None
    return end if end.started >= _seconds(run.claimed_at) else None


def _ended_well(run: RunRecord) -> bool:
    result = result_of(run)
    return result is not None and result.exit_code == 0


def _seconds(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()
