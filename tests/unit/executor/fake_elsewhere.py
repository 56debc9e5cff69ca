"""A place that is not this machine, for tests of the executor: attempts end as they are told to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import RunOutcome, RunResult, Say
from mlstack.drivers.elsewhere import RemoteOrder, RemoteResult
from mlstack.executor.work import Work
from mlstack.graph.graph import EntryKey, Hashed, LockEntry, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Stage
from mlstack.state.state import RemoteHandle, RunRecord
from tests.scenarios.fake_world import FakeHands

GOOD = RunResult(exit_code=0)


class Elsewhere:
    """A place where attempts end as they are told to; None: it is still going on when we leave."""

    name = "elsewhere"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: list[RunResult | None] = []
        self.submitted: list[tuple[Address, int, bool]] = []
        self.refuses = False
        self.loses_answers = False
        self.on_wait: Callable[[RunRecord], None] = lambda _run: None
        self._done: set[str] = set()

    def check(self, stage: Stage, pool: Pool) -> Sequence[Diagnostic]:
        del stage, pool
        return ()

    def handle_of(self, order: RemoteOrder) -> RemoteHandle:
        place = {"job": f"{order.stage.address}-{order.attempt}"}
        prefix = f"{fingerprint(order.key)}{order.again}/"
        return RemoteHandle(target=self.name, place=place, store=str(self.folder), prefix=prefix)

    def next_attempt(self, order: RemoteOrder) -> int:
        return 1 + max((number for address, number, _ in self.submitted if address == order.stage.address), default=0)

    def missing_inputs(self, order: RemoteOrder) -> Mapping[str, FileDigest]:
        del order
        return {}

    def submit(self, order: RemoteOrder, handle: RemoteHandle, *, say: Say) -> None:
        del handle, say
        if self.refuses:
            raise MlstackError(Diagnostic(code="no", summary="No"))
        self.submitted.append((order.stage.address, order.attempt, order.off_spot))
        if self.loses_answers:
            raise MlstackError(Diagnostic(code="cut", summary="The connection was cut"))

    def wait(self, stage: Stage, run: RunRecord, *, say: Say, is_left: Callable[[], bool]) -> RunResult | None:
        del stage, say, is_left
        self.on_wait(run)
        end = self.ends.pop(0) if self.ends else GOOD
        if end is not None and end.cause is None and run.remote is not None:
            self._done.add(run.remote.prefix)
        return end

    def log(self, run: RunRecord, *, follow: bool) -> Iterator[bytes]:
        del run, follow
        yield b""

    def outcome(self, run: RunRecord) -> RunOutcome:
        return RunOutcome(goes_on=any(address == run.address for address, _, _ in self.submitted))

    def result(self, handle: RemoteHandle, key: EntryKey) -> RemoteResult | None:
        if handle.prefix not in self._done:
            return None
        digest = FileDigest(md5=fingerprint(key)[:32], size=1)
        return RemoteResult(
            entry=LockEntry(key=key, outs=tuple(Hashed(path=path, digest=digest) for path in key.out_paths))
        )

    def cancel(self, run: RunRecord, *, grace: float) -> None:
        del run, grace


def run_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Have everything run there; whoever claimed a run before is gone."""
    place = Elsewhere(folder)

    def order(hands: FakeHands, stage: Stage, key: EntryKey, *, image: str, runner: str, again: str) -> RemoteOrder:
        return RemoteOrder(
            stage=stage,
            pool=Pool(address=stage.pool),
            graph=hands.graph,
            key=key,
            root=hands.root,
            image=image,
            runner=runner,
            resources={},
            again=again,
        )

    monkeypatch.setattr(FakeHands, "remote_runner", lambda _hands, _stage: place)
    monkeypatch.setattr(FakeHands, "remote_runner_of", lambda _hands, run: place if run.remote else None)
    monkeypatch.setattr(FakeHands, "remote_order", order)
    for name in ("image_of", "runner_image_of"):
        monkeypatch.setattr(Work, name, lambda _work, _address: "image@sha256:1")
    monkeypatch.setattr("mlstack.executor.claims.is_owner_alive", lambda _run: False)
    return place
