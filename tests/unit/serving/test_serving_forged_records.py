"""A record of an endpoint that somebody has edited removes and ends nothing that is not mlstack's."""

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from mlstack.drivers.local.endpoint_process import birth_of
from mlstack.graph.change import Action

if TYPE_CHECKING:
    from tests.unit.serving.conftest import Project


def test_forged_folder_is_not_removed(project: "Project") -> None:
    record = project.apply(action=Action.CREATE)
    victim = project.root.parent / "victim"
    (victim / "0001").mkdir(parents=True)
    (victim / "precious.txt").write_text("mine")
    project.delete(msgspec.structs.replace(record, attributes=record.attributes | {"folder": str(victim / "0001")}))
    assert (victim / "precious.txt").read_text() == "mine"
    assert project.servers() == []  # those below the endpoint's own folder are ended


def test_forged_process_is_not_ended(project: "Project") -> None:
    record = project.apply(action=Action.CREATE)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        forged = {"pid": other.pid, "birth": birth_of(other.pid)}
        project.delete(msgspec.structs.replace(record, attributes=record.attributes | forged))
        assert other.poll() is None
        other.kill()
