"""Real runs for the tests: a project folder, and orders in it."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from mlstack.drivers.base import RunOrder, RunResult
from mlstack.drivers.local.machine import Machine
from mlstack.drivers.local.stages import LocalStages
from mlstack.spec.address import Address
from mlstack.spec.spec import Checkpoint, Pool, SecretRef, Stage, Timeout
from mlstack.state.state import RunRecord

POOL = Pool(address=Address("compute.local"))
FINGERPRINT = "0123456789abcdef" * 4


class Runs:
    """Orders, starts and follows runs of one-line stages below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self.stop = Event()
        self.secrets: dict[str, str] = {}
        self.stages = self.another_mlstack()

    def another_mlstack(self) -> LocalStages:
        return LocalStages(machine=Machine(cores=2, memory=2**33), secrets_from=self.secrets)

    def order(
        self,
        cmd: str,
        *,
        name: str = "train",
        env: dict[str, str] | None = None,
        timeout: Timeout | None = None,
        checkpoint: Checkpoint | None = None,
        fingerprint: str = FINGERPRINT,
        directory: str = ".",
    ) -> RunOrder:
        address = Address(f"stages.{name}")
        stage = Stage(
            address=address,
            cmd=cmd,
            pool=POOL.address,
            directory=directory,
            timeout=timeout or Timeout(),
            checkpoint=checkpoint,
            secrets={key: SecretRef(f"env://{key}") for key in self.secrets},
        )
        return RunOrder(
            stage=stage,
            pool=POOL,
            fingerprint=fingerprint,
            folder=self.root / ".mlstack" / "runs" / address / fingerprint[:16],
            root=self.root,
            resources={"cpu": 1.0},
            environment={"PATH": os.environ["PATH"], "PYTHON": sys.executable} | (env or {}),
        )

    def start(self, order: RunOrder) -> RunRecord:
        pid, started = self.stages.start(order)
        return record(order, pid, started)

    def wait(self, order: RunOrder, run: RunRecord, *, by: LocalStages | None = None) -> RunResult:
        return (by or self.stages).wait(order, run, say=self.said.append, stop=self.stop)

    def run(self, order: RunOrder) -> RunResult:
        return self.wait(order, self.start(order))


def record(order: RunOrder, pid: int, started: float) -> RunRecord:
    return RunRecord(
        address=order.stage.address,
        fingerprint=order.fingerprint,
        status="running",
        host=os.uname().nodename,
        owner_pid=os.getpid(),
        owner_started=0.0,
        apply_id="a",
        claimed_at="2026-01-01T00:00:00.000Z",
        pid=pid,
        started=started,
        folder=str(order.folder),
        attempt=order.attempt,
    )


def log_of(order: RunOrder) -> bytes:
    file = order.folder / "log.txt"
    return file.read_bytes() if file.exists() else b""


def eventually(holds: Callable[[], bool], *, within: float = 120.0) -> None:
    """Wait until something of another process shows; fail when it does not."""
    until = time.monotonic() + within
    while not holds():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def is_there(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
