"""An update that is killed, at many moments: the next one finds what is there and makes what is missing, once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from mlstack.diagnostics import MlstackError
from mlstack.drivers.local.endpoint_process import wait_until
from mlstack.drivers.pulumi import repair
from mlstack.drivers.pulumi.versions import note_begin
from tests.engines.pulumi_filed.one_up import ten_units
from tests.engines.pulumi_filed.world import STACK, World

_REPOSITORY = Path(__file__).parents[2]
_PATIENCE = 240.0


@contextmanager
def _updating(world: World) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.engines.pulumi_filed.one_up", str(world.root.parent)]
    process = subprocess.Popen(
        [*command, world.environ["MLSTACK_PULUMI"]], cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        _kill(process.pid)
        with process:
            pass


def _kill(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        everybody = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for each in everybody:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _wait_for_lines(process: "subprocess.Popen[str]", number: int) -> None:
    assert process.stdout is not None
    for _ in range(number):
        process.stdout.readline()


def _engine_of(process: "subprocess.Popen[str]") -> psutil.Process:
    return next(each for each in psutil.Process(process.pid).children() if "pulumi" in each.name())


def _is_whole(world: World) -> None:
    """Everything is there, was made once, and nothing is left to do."""
    units = ten_units(world)
    world.made(units)
    assert len(world.there()) == 30
    made = world.created()
    assert sorted(made) == sorted(set(made)), "something was made twice"
    assert all(not reading.parts and not reading.drifted for reading in world.preview(units).values())
    assert b"pending_operations" not in (world.record() or b"")


@pytest.mark.parametrize("lines", [1, 4, 13, 29, 47])
def test_mlstack_and_engine_are_killed_together(filed_world: World, lines: int) -> None:
    with _updating(filed_world) as process:
        _wait_for_lines(process, lines)
        _kill(process.pid)

    _is_whole(filed_world)


def test_the_engine_alone_is_killed(filed_world: World) -> None:
    filed_world.order("e3-service", slow=600)
    with _updating(filed_world) as process:
        _wait_for_lines(process, 9)
        engine = _engine_of(process)
        plugins = engine.children(recursive=True)
        engine.kill()
        process.wait(_PATIENCE)
        psutil.wait_procs(plugins, _PATIENCE)
    filed_world.order("e3-service")
    missing = {part.inputs["name"] for unit in ten_units(filed_world) for part in unit.objects} - set(
        filed_world.there()
    )

    readings = filed_world.preview(ten_units(filed_world)).values()

    assert {part.note.removeprefix("File ") for reading in readings for part in reading.parts} == missing
    _is_whole(filed_world)


def test_mlstack_alone_is_killed_and_its_engine_is_waited_for(filed_world: World) -> None:
    filed_world.order("e3-service", slow=600)
    with _updating(filed_world) as process:
        _wait_for_lines(process, 9)
        engine = _engine_of(process)
        process.send_signal(signal.SIGKILL)
        process.wait(_PATIENCE)
        filed_world.order("e3-service")
        _is_whole(filed_world)
        assert wait_until(lambda: _has_ended(engine), seconds=_PATIENCE)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_lock_of_somebody_else_is_left_alone(filed_world: World) -> None:
    filed_world.made([filed_world.unit("one")])
    locks = filed_world.engine().place.locks(STACK)
    records = filed_world.engine().place.records
    lock = b'{"pid": 1, "username": "ann", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"}'
    records.replace(f"{locks}theirs.json", lock, tag=None)

    with pytest.raises(MlstackError) as failure:
        filed_world.up([filed_world.unit("one")])

    assert failure.value.diagnostics[0].code == "stack-locked"
    assert "ann on elsewhere" in failure.value.diagnostics[0].detail
    assert records.get(f"{locks}theirs.json") is not None


def test_a_lock_that_cannot_be_read_is_nobodys_to_remove(filed_world: World) -> None:
    filed_world.made([filed_world.unit("one")])
    place = filed_world.engine().place
    place.records.replace(f"{place.locks(STACK)}half.json", b'{"pid": 1', tag=None)

    with pytest.raises(MlstackError, match="Somebody on some machine"):
        filed_world.up([filed_world.unit("one")])


def test_a_lock_whose_process_is_gone_goes_also_when_another_one_has_its_number(filed_world: World) -> None:
    filed_world.made([filed_world.unit("one")])
    place = filed_world.engine().place
    for name, pid, since in (
        ("gone", 2**22 + 1, "2026-01-01T00:00:00Z"),
        ("reused", os.getpid(), "2001-01-01T00:00:00Z"),
    ):
        lock = {"pid": pid, "username": "ann", "hostname": socket.gethostname(), "timestamp": since}
        place.records.replace(f"{place.locks(STACK)}{name}.json", json.dumps(lock).encode(), tag=None)

    filed_world.made([filed_world.unit("one", value=2)])

    assert [key for key in place.records.keys(place.locks(STACK)) if key.endswith(".json")] == []


def test_a_lock_of_an_mlstack_on_a_machine_that_is_gone_is_removed(
    filed_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    filed_world.made([filed_world.unit("one")])
    place = filed_world.engine().place
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        note_begin(place, STACK, 1)
    lock = b'{"pid": 1, "username": "ann", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"}'
    place.records.replace(f"{place.locks(STACK)}ours.json", lock, tag=None)

    filed_world.made([filed_world.unit("one", value=2)])

    assert place.records.get(f"{place.locks(STACK)}ours.json") is None
    assert filed_world.read("one-deployment")["value"] == 2


def test_the_wait_for_an_engine_is_told_and_ends(filed_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    filed_world.made([filed_world.unit("one")])
    place = filed_world.engine().place
    monkeypatch.setattr(repair, "PATIENCE", 0.5)
    monkeypatch.setattr(repair, "_is_at_work", lambda lock: True)
    lock = f'{{"pid": 1, "hostname": "{socket.gethostname()}", "timestamp": "{time.strftime("%FT%TZ")}"}}'
    place.records.replace(f"{place.locks(STACK)}busy.json", lock.encode(), tag=None)

    with pytest.raises(MlstackError, match="Somebody else works"):
        filed_world.up([filed_world.unit("one")])

    assert filed_world.lines[-1] == ("endpoints.one waiting for an update that goes on without its mlstack (process 1)")
