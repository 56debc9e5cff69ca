"""What a run elsewhere leaves on this machine once it is collected: the same files as a run of this machine."""

from pathlib import Path

import msgspec

from mlstack.drivers.local.run_folder import MACHINE, ORDER, RESULT, SavedOrder, SavedResult
from mlstack.drivers.remote_run.remote import open_remote
from mlstack.drivers.remote_run.results import read_log, read_remote_run
from mlstack.runner.order import Remote
from mlstack.spec.spec import Stage
from mlstack.state.state import RunRecord


def keep_traces(stage: Stage, run: RunRecord, folder: Path, *, resources: dict[str, float], image: str) -> None:
    """Write log, order, result and machine of a successful run into its folder here. Raises `MlstackError`."""
    assert run.remote is not None  # noqa: S101 - runs elsewhere have one
    store = open_remote(Remote(url=run.remote.store, config=run.remote.config))
    end = read_remote_run(store, run.remote.prefix).result
    if end is None:
        return
    log, _ = read_log(store, run.remote.prefix, end.name)
    order = SavedOrder(
        address=stage.address,
        fingerprint=run.fingerprint,
        attempt=end.attempt,
        host=end.machine.get("host", ""),
        mark="",
        cmd=stage.cmd,
        directory=stage.directory,
        started_at=end.started,
        grace=0.0,
        resources=resources,
        secrets=tuple(sorted(stage.secrets)),
        image=image,
    )
    result = SavedResult(
        exit_code=0,
        started=end.started,
        ended=end.ended,
        seconds=end.phases.get("run", 0.0),
        max_rss=end.max_rss,
        log_bytes=len(log),
        log_lost=end.log_lost,
    )
    machine = {  # read by `provenance/record.py`
        "system": end.machine.get("system", ""),
        "architecture": end.machine.get("processor", ""),
        "cores": float(end.machine.get("cores", 0)),
        "host": end.machine.get("MLSTACK_NODE") or end.machine.get("host", ""),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_bytes(log)
    for name, content in ((ORDER, order), (RESULT, result), (MACHINE, machine)):
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
