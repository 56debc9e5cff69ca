"""An image that is gone from the registry is built again: what runs in it gets a digest that a plan cannot know."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mlstack.drivers import preflight as asked
from mlstack.drivers.base import Absent, ImageReading, Observation, Present, Readings
from mlstack.drivers.stacks import UnitReading
from mlstack.graph.change import Action, Change, ReasonCode
from mlstack.graph.graph import ImagePlan, ResourceGraph
from mlstack.planner.diff import diff
from mlstack.planner.images import image_attributes
from mlstack.planner.plan import Scope
from mlstack.planner.stacks import StackQuestion
from mlstack.spec.address import Address, Kind
from mlstack.state.state import Record, State
from tests.unit.drivers_kubernetes.kubernetes_projects import STAGES, graph_of, write

_POOL, _ENDPOINT = Address("compute.serve"), Address("endpoints.quality")
_FILE = (
    "compute: {local: {target: local}, serve: {target: kubernetes}}\n"
    + STAGES.replace("POOL", "local")
    + "endpoints: {quality: {compute: serve, model: models.wine}}\n"
)


@pytest.fixture
def graph(tmp_path: Path) -> ResourceGraph:
    return graph_of(write(tmp_path, _FILE))


def recorded(graph: ResourceGraph) -> dict[Address, Record]:
    """Return records of all images, as they should be."""
    digest = {"digest": f"sha256:{'d' * 64}"}
    return {
        address: Record(address=address, driver="docker-image", attributes=image_attributes(plan) | digest)
        for address, plan in graph.images.items()
    }


def plan(graph: ResourceGraph, gone: Sequence[Address]) -> tuple[list[StackQuestion], dict[Address, Change], list[str]]:
    """Return what stacks were asked, the rows, and which images were looked at."""
    questions: list[StackQuestion] = []
    looked: list[str] = []

    def ask(question: StackQuestion) -> dict[Address, UnitReading]:
        questions.append(question)
        return {_POOL: UnitReading(), _ENDPOINT: UnitReading()}

    def look_at(image: ImagePlan, _record: Record | None) -> ImageReading:
        looked.append(image.address)
        return ImageReading(observation=Absent(reason="it is not there") if image.address in gone else Present())

    found = diff(
        graph,
        State(project="wine", environment="local", lineage="l", resources=recorded(graph)),
        Readings(),
        scope=Scope(),
        describe=lambda _resource, _versions: {"namespace": "a"},
        pins={},
        look_at=look_at,
        ask_stacks=ask,
    )
    return questions, {row.address: row for row in found.changes}, looked


def test_images_that_are_there_are_known(graph: ResourceGraph) -> None:
    questions, rows, _ = plan(graph, [])
    assert [question.rebuilt for question in questions] == [frozenset()]
    assert {rows[each].action for each in graph.images} == {Action.NO_OP}


def test_one_that_is_gone_is_known_after_apply(graph: ResourceGraph) -> None:
    image = graph.image_of[_ENDPOINT]
    questions, rows, looked = plan(graph, [image])
    assert [question.rebuilt for question in questions] == [frozenset(), {image}]
    assert (rows[image].action, rows[image].reasons[0].code) == (Action.UPDATE, ReasonCode.GONE)
    assert rows[_ENDPOINT].action is Action.CREATE
    assert len(looked) == len(set(looked)), "each is asked for once"


class _Registry:
    """Has nothing, or everything."""

    def __init__(self, *, is_empty: bool) -> None:
        self._is_empty = is_empty

    def read(self, _resource: object, _record: object) -> Observation:
        return Absent(reason="x@sha256:d is not in the registry") if self._is_empty else Present()


@pytest.mark.parametrize("is_empty", [True, False])
def test_without_a_look_when_planning_apply_looks(
    graph: ResourceGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_empty: bool
) -> None:
    """`mlstack run` and `--no-refresh`: better than pods that wait for their image."""
    monkeypatch.setattr(asked, "driver_named", lambda _name, root: _Registry(is_empty=is_empty))
    row = Change(address=_ENDPOINT, kind=Kind.ENDPOINT, action=Action.UPDATE, reasons=())
    image = graph.image_of[_ENDPOINT]
    found = {each.address: each for each in asked._gone_images([row], graph, recorded(graph), root=tmp_path)}
    assert found.keys() == ({image, graph.runner_of[_ENDPOINT]} if is_empty else set())
    if is_empty:
        assert found[image].command == f"mlstack apply --target {image}"
        built = Change(address=image, kind=Kind.IMAGE, action=Action.UPDATE, reasons=())
        again = asked._gone_images([row, built], graph, recorded(graph), root=tmp_path)
        assert [each.address for each in again] == [graph.runner_of[_ENDPOINT]]
