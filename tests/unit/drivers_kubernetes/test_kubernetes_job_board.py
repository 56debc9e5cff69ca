"""Many that follow Jobs of one namespace share what is read of it."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event
from typing import Any, cast

import pytest

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.job_board import EVERY, JobBoard

MANY = 20
PATIENCE = 60.0


class Cluster:
    """Counts how often its Jobs are listed; the first listing of pods waits until it is let go on."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = Event(), Event()
        self.problem: MlstackError | None = None
        self.listed = 0

    def listing(self, kind: str, _namespace: str, *, labels: str) -> list[dict[str, Any]]:
        assert labels
        if kind == "Pod":
            self.begun.set()
            assert self.may_go_on.wait(PATIENCE)
            return []
        self.listed += 1
        if self.problem is not None:
            raise self.problem
        return [{"metadata": {"name": "train"}, "as of": self.listed}]


class Clock:
    """Time that passes with each question, and not fast enough for anything to grow old."""

    def __init__(self) -> None:
        self._questions = count(1)
        self._last = 0
        self._awaited: int | None = None
        self.all_asked = Event()

    def wait_for(self, questions: int) -> None:
        """Set `all_asked` after this many more."""
        self._awaited = self._last + questions

    def __call__(self) -> float:
        number = self._last = next(self._questions)
        if self._awaited is not None and number >= self._awaited:
            self.all_asked.set()
        return number * EVERY / 1000


def _asked_at_once(cluster: Cluster) -> list[Any]:
    """One begins to read; while it does, many others ask for what is fresh. What all of them got."""
    clock = Clock()
    board = JobBoard(cast("Kube", cluster), "ml", clock=clock)

    def ask(_number: int) -> Any:
        try:
            job, _ = board.look("train", fresh=True)
        except MlstackError as error:
            return error
        return job

    with ThreadPoolExecutor(MANY + 1) as threads:
        first = threads.submit(ask, 0)
        assert cluster.begun.wait(PATIENCE)
        clock.wait_for(MANY)
        others = [threads.submit(ask, number) for number in range(MANY)]
        assert clock.all_asked.wait(PATIENCE)
        cluster.may_go_on.set()
        return [each.result(PATIENCE) for each in (first, *others)]


def test_many_who_ask_for_what_is_fresh_share_one_reading() -> None:
    cluster = Cluster()

    first, *others = _asked_at_once(cluster)

    assert first["as of"] == 1
    assert [each["as of"] for each in others] == [2] * MANY, "what was read before they asked is not fresh"


def test_many_share_that_the_cluster_does_not_answer() -> None:
    cluster = Cluster()
    cluster.problem = MlstackError(Diagnostic(code="kubernetes-unreachable", summary="Not there", detail="Refused."))

    found = _asked_at_once(cluster)

    assert found == [cluster.problem] * (MANY + 1)
    assert cluster.listed == 2


def test_what_was_read_is_read_again_after_a_while_or_for_who_wants_it_fresh() -> None:
    cluster = Cluster()
    cluster.may_go_on.set()
    now = [0.0]
    board = JobBoard(cast("Kube", cluster), "ml", clock=lambda: now[0])

    def look(*, fresh: bool = False) -> int:
        job, pods = board.look("train", fresh=fresh)
        assert job is not None
        assert not pods
        return int(job["as of"])

    assert look() == 1
    assert look() == 1
    now[0] += EVERY / 2
    assert look() == 1
    assert look(fresh=True) == 2
    now[0] += EVERY
    assert look() == 3


@pytest.mark.parametrize("fresh", [True, False])
def test_a_cluster_that_answers_again_is_asked(fresh: bool) -> None:
    cluster = Cluster()
    cluster.may_go_on.set()
    cluster.problem = MlstackError(Diagnostic(code="kubernetes-unreachable", summary="Not there", detail="Refused."))
    now = [0.0]
    board = JobBoard(cast("Kube", cluster), "ml", clock=lambda: now[0])
    with pytest.raises(MlstackError):
        board.look("train")

    cluster.problem = None
    now[0] += EVERY

    assert board.look("train", fresh=fresh) == ({"metadata": {"name": "train"}, "as of": 2}, [])
