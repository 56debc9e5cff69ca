"""A record of an endpoint that somebody has edited removes and ends nothing that is not mlstack's."""

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from mlstack.drivers.local.endpoint_process import birth_of
from mlstack.graph.change import Action
from mlstack.spec.spec import Pool

if TYPE_CHECKING:
    from tests.unit.serving.serving_project import Project


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


def test_plan_warns_of_an_endpoint_that_others_can_reach(project: "Project") -> None:
    graph = project.graph()
    for host, codes in (("127.0.0.1", []), ("localhost", []), ("0.0.0.0", ["endpoint-open-to-others"])):
        resources = dict(graph.resources)
        resources[project.endpoint.pool] = Pool(address=project.endpoint.pool, settings={"host": host})
        found = project.driver.check(project.endpoint, msgspec.structs.replace(graph, resources=resources))
        assert [problem.code for problem in found] == codes
