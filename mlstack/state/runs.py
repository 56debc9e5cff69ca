"""Runs of stages as claimed records: two appliers never run one thing twice, and a killed one's run is found again."""

from typing import Final

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.address import Address, slug
from mlstack.state import formats
from mlstack.state.formats import RUNS, Damage, RunFile
from mlstack.state.identity import host_name, is_running
from mlstack.state.protocols import Backend
from mlstack.state.state import RunRecord

ENDED: Final = frozenset({"done", "failed", "cancelled"})
"""The statuses of a run that is over."""


class RunCancelledError(MlstackError):
    """A run was to go on that somebody has cancelled meanwhile."""


def run_key(address: Address, fingerprint: str) -> str:
    """Return the key of the claim on one run."""
    return f"{RUNS}{slug(address)}/{fingerprint}.json"


def claim(backend: Backend, run: RunRecord) -> RunRecord | None:
    """Claim a run. None: it is ours now. Otherwise the record of whoever has it, or had it and is done."""
    key, data = run_key(run.address, run.fingerprint), formats.encode(RunFile(record=run))
    while backend.create(key, data) is None:
        if (found := _read(backend, key)) is not None:
            return found[0]
    return None


def take_over(backend: Backend, old: RunRecord, new: RunRecord) -> bool:
    """Replace the record `old` by `new`. False, with nothing written, when it is not `old` any more."""
    key = run_key(old.address, old.fingerprint)
    found = _read(backend, key)
    if found is None or found[0] != old:
        return False
    return backend.replace(key, formats.encode(RunFile(record=new)), tag=found[1]) is not None


def update_run(backend: Backend, run: RunRecord) -> None:
    """Write the new status of a run that this process has claimed.

    Raises `MlstackError` when the claim belongs to somebody else by now, and `RunCancelledError` when it was cancelled
    and is to go on. A record that somebody removed is made again; whoever writes it at the same time comes first.
    """
    key, data = run_key(run.address, run.fingerprint), formats.encode(RunFile(record=run))
    written = None
    while written is None:
        found = _read(backend, key)
        if found is None:
            written = backend.create(key, data)
        elif _claimant(found[0]) != _claimant(run):
            raise MlstackError(_taken(run, found[0]))
        elif found[0].status == "cancelled" and run.status not in ENDED:
            raise RunCancelledError(_cancelled(run))
        else:
            written = backend.replace(key, data, tag=found[1])


def read_run(backend: Backend, address: Address, fingerprint: str) -> RunRecord | None:
    """Return the record of one run; None when it was never claimed. One request, whatever the number of runs."""
    found = _read(backend, run_key(address, fingerprint))
    return None if found is None else found[0]


def read_runs(backend: Backend, address: Address | None = None) -> tuple[RunRecord, ...]:
    """Return the records of one stage or of all, newest first. Raises `MlstackError` for one that cannot be read."""
    keys = backend.keys(RUNS if address is None else f"{RUNS}{slug(address)}/")
    found = zip(keys, backend.get_all(keys), strict=True)
    records = [_decode(backend, key, read)[0] for key, read in found if read is not None]
    return tuple(sorted(records, key=lambda run: (run.claimed_at, run.address, run.fingerprint), reverse=True))


def prune_runs(backend: Backend, *, keep: int) -> tuple[RunRecord, ...]:
    """Remove records of ended runs beyond the `keep` newest of each stage, and return them.

    They carry no result (`dvc.lock` does): what is lost is the way to their logs.
    """
    kept: dict[Address, int] = {}
    removed = []
    for run in read_runs(backend):
        if run.status not in ENDED:
            continue
        kept[run.address] = kept.get(run.address, 0) + 1
        if kept[run.address] > keep:
            key = run_key(run.address, run.fingerprint)
            backend.delete(key, tag=_tag_of(backend, key, run))
            removed.append(run)
    return tuple(removed)


def is_alive(run: RunRecord) -> bool | None:
    """Tell whether the process of a run (before it has one: of its claimant) is there. None: on another host."""
    if run.host != host_name():
        return None
    if run.pid is not None and run.started is not None:
        return is_running(run.pid, run.started)
    return is_running(run.owner_pid, run.owner_started)


def _claimant(run: RunRecord) -> tuple[str, int, float, str]:
    return run.host, run.owner_pid, run.owner_started, run.apply_id


def _read(backend: Backend, key: str) -> tuple[RunRecord, str] | None:
    found = backend.get(key)
    return None if found is None else _decode(backend, key, found)


def _decode(backend: Backend, key: str, found: tuple[bytes, str]) -> tuple[RunRecord, str]:
    content = formats.decode(found[0], RunFile)
    if isinstance(content, Damage):
        hint = "If no run of this stage is going on, remove that file: the stage then counts as not running."
        raise MlstackError(formats.damage_diagnostic(content, "run", backend.location(key), hint=hint))
    return content.record, found[1]


def _tag_of(backend: Backend, key: str, run: RunRecord) -> str:
    """Return the tag of the record if it is still `run`, else one that fits nothing."""
    found = _read(backend, key)
    return found[1] if found is not None and found[0] == run else "gone"


def _cancelled(run: RunRecord) -> Diagnostic:
    return Diagnostic(
        code="run-cancelled",
        summary="The run was cancelled",
        detail=f"Somebody has cancelled run {run.fingerprint[:12]} of {run.address} when it was about to go on.",
        hint="Apply again to run it.",
        command="mlstack apply",
        address=run.address,
    )


def _taken(run: RunRecord, holder: RunRecord) -> Diagnostic:
    by = f"process {holder.owner_pid} on {holder.host} (apply {holder.apply_id})"
    return Diagnostic(
        code="run-claimed-elsewhere",
        summary="The run belongs to another process by now",
        detail=f"This process had claimed run {run.fingerprint[:12]} of {run.address}; the claim now belongs to {by}.",
        hint="Run `mlstack status` to see who runs it; `mlstack apply` follows that run.",
        address=run.address,
    )
