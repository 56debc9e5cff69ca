"""Bad luck while the state is written to an object store: SIGKILL at every write, before its answer is heard.

Real processes, moto's S3. Run as a script, this file is the process from which each victim is forked; requests of
obstore are wrapped in the victim, so the product has no code for this.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlstack.state.object_store import ObjectBackend
from mlstack.state.read import open_reader
from mlstack.state.runs import read_runs
from mlstack.state.state import State
from mlstack.state.store import WritableState, open_store
from tests.s3 import S3Server, s3_server
from tests.unit.state.test_state_crash import ENDED, SERIES, START, claim, do, end_run, state_after

WRITES = ("put", "delete")


def open_at(url: str) -> WritableState:
    return open_store(ObjectBackend(url), project="p", environment="e")


def read_at(url: str) -> State:
    """Return what is recorded, without its lineage (which is random)."""
    import msgspec

    state = open_reader(ObjectBackend(url), project="p", environment="e").state()
    return START if state is None else msgspec.structs.replace(state, lineage="")


def _victim(url: str, at: int, acknowledgements: int) -> None:
    import obstore

    count = 0

    def mortal(request: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            try:
                return request(*arguments, **named)
            finally:  # what the store refused, too
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in WRITES:
        setattr(obstore, name, mortal(getattr(obstore, name)))
    store = open_at(url)
    for operation in SERIES:
        do(store, operation)
        os.write(acknowledgements, b".")


def _kill_everywhere(url: str) -> None:
    """Fork a process for each write, kill it there, and say how many operations each had acknowledged."""
    acknowledged: list[int] = []
    while True:
        at = len(acknowledged) + 1
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _victim(f"{url}/{at}", at, writer)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            count = len(pipe.read())
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the series fails without a kill"
            break
        acknowledged.append(count)
    print(json.dumps(acknowledged))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        server.bucket("states")
        yield server


def test_after_a_kill_at_any_write_all_is_there_and_the_rest_can_be_done(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.state.test_state_object_crash", "s3://states/killed"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed = [(f"s3://states/killed/{at}", count) for at, count in enumerate(json.loads(done.stdout), start=1)]
    assert len(killed) >= 25
    for place, (url, acknowledged) in enumerate(killed):
        assert read_at(url) in (state_after(acknowledged), state_after(acknowledged + 1)), url
        claimed = read_runs(ObjectBackend(url))
        assert len(claimed) == 1 or acknowledged <= SERIES.index(claim)
        assert claimed == (ENDED,) or acknowledged <= SERIES.index(end_run)
        if place % 3:  # doing the rest takes its time: every third will do
            continue
        store = open_at(url)
        for operation in SERIES[acknowledged:]:
            do(store, operation)
        assert read_at(url) == state_after(len(SERIES)), url
        assert len(store.history()) == 1
        assert store.runs() == (ENDED,)


if __name__ == "__main__":
    _kill_everywhere(sys.argv[1])
