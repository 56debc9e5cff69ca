"""The graph as Mermaid, DOT and SVG."""

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from mlstack.graph.change import Action, ReasonCode
from mlstack.graph.graph import ResourceGraph
from mlstack.render.graph_layout import lay_out
from mlstack.render.graph_picture import Picture, build_picture
from mlstack.render.graph_svg import render_svg
from mlstack.render.graph_text import render_dot, render_mermaid
from mlstack.spec.address import Address
from mlstack.spec.spec import Dataset, Endpoint, Model, Pool, Resource, Spec, Stage
from tests.unit.render.plans_by_hand import change, plan_of, reason

POOL = Address("compute.cpu")
EVIL = 'stages.evil["];click n0 "javascript:x" <script>&\x1b\\]'


def graph_of(extra: int = 0) -> ResourceGraph:
    resources: dict[Address, Resource] = {}
    needs: dict[Address, tuple[Address, ...]] = {}

    def add(resource: Resource, *need: str) -> None:
        resources[resource.address] = resource
        needs[resource.address] = tuple(Address(word) for word in need)

    def stage(name: str, *need: str) -> None:
        add(Stage(address=Address(name), cmd="x", pool=POOL), "compute.cpu", *need)

    add(Pool(address=POOL))
    add(Dataset(address=Address("datasets.wine"), path="d"))
    stage("stages.prepare", "datasets.wine")
    for depth in range(3):
        stage(f"stages.train[depth={depth}]", "stages.prepare")
    stage("stages.evaluate", "stages.prepare", *(f"stages.train[depth={depth}]" for depth in range(3)))
    add(
        Model(address=Address("models.wine"), stage=Address("stages.train[depth=0]"), out="o", framework="sklearn"),
        "stages.train[depth=0]",
        "stages.evaluate",
    )
    add(Endpoint(address=Address("endpoints.quality"), pool=POOL, variants={}), "models.wine")
    stage("churn/stages.alone")
    stage(EVIL)
    for number in range(extra):
        stage(f"stages.s{number}", *([f"stages.s{number - 1}", f"stages.s{number // 2}"] if number > 1 else []))
    spec = Spec(file="mlstack.yaml", project="p", environment="e", resources=resources)
    return ResourceGraph(spec=spec, resources=resources, needs=needs, order=tuple(resources), stages={})


@pytest.fixture
def picture() -> Picture:
    plan = plan_of(
        change("stages.prepare", Action.RUN, reason(ReasonCode.FORCED)),
        change("endpoints.quality", Action.CREATE, reason(ReasonCode.NOT_RECORDED)),
    )
    return build_picture(graph_of(), plan)


def test_pools_are_words_and_not_nodes(picture: Picture) -> None:
    assert POOL not in {node.address for node in picture.nodes}
    assert all(POOL not in edge for edge in picture.edges)
    assert next(node for node in picture.nodes if node.name == "prepare").note == "stage on cpu"
    assert "churn/alone" in {node.name for node in picture.nodes}


def test_mermaid(picture: Picture) -> None:
    text = render_mermaid(picture)
    assert text.startswith("flowchart LR\n")
    assert 'n0[("wine<br/>dataset")]:::datasets' in text
    assert 'n1["prepare<br/>stage on cpu<br/>(run)"]:::stages' in text
    assert "  n0 --> n1\n" in text
    assert text.count("-->") == len(picture.edges)
    for line in text.splitlines():
        assert line.count('"') in (0, 2), line
        assert "<script" not in line
        assert "click n0" not in line.replace('"]', "").partition('"')[0]


def test_dot(picture: Picture) -> None:
    text = render_dot(picture)
    assert text.startswith("digraph mlstack {")
    assert text.count("->") == len(picture.edges)
    for line in text.splitlines()[5:-1]:
        without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert re.fullmatch(r"  n\d+ (-> n\d+|\[[a-z=, 0-9]*\]);", without_strings), line
    assert "\x1b" not in text


def test_svg_is_xml_with_every_node_and_edge(picture: Picture) -> None:
    root = ET.fromstring(render_svg(picture, title="wine <&>"))
    space = "{http://www.w3.org/2000/svg}"
    names = [text.text for text in root.iter(f"{space}text") if text.get("class") == "name"]
    assert names == [node.name for node in picture.nodes]
    assert len([path for path in root.iter(f"{space}path") if path.get("class") == "edge"]) == len(picture.edges)
    assert not list(root.iter(f"{space}script"))
    assert "run" in {(text.text or "").rpartition(": ")[2] for text in root.iter(f"{space}text")}


def test_nodes_do_not_overlap_and_edges_go_right() -> None:
    nodes = [Address(f"stages.s{number}") for number in range(40)]
    edges = [(nodes[number // 3], nodes[number]) for number in range(1, 40)]
    edges += [(nodes[0], nodes[number]) for number in range(30, 38)]
    sizes = {node: (80.0 + 5 * index, 46.0) for index, node in enumerate(nodes)}
    layout = lay_out(nodes, edges, sizes)
    for one, other in combinations(nodes, 2):
        (x, y), (u, v) = layout.places[one], layout.places[other]
        apart = abs(x - u) >= (sizes[one][0] + sizes[other][0]) / 2 or abs(y - v) >= 46
        assert apart, (one, other)
    for (source, target), path in layout.paths.items():
        assert layout.places[source][0] < layout.places[target][0]
        assert [x for x, _ in path] == sorted(x for x, _ in path)
    for x, y in layout.places.values():
        assert 0 <= x <= layout.width
        assert 0 <= y <= layout.height


def test_the_same_graph_is_drawn_the_same() -> None:
    assert render_svg(build_picture(graph_of()), title="t") == render_svg(build_picture(graph_of()), title="t")


def test_nothing_to_draw() -> None:
    empty = Picture(nodes=(), edges=(), components=())
    assert render_mermaid(empty) == "flowchart LR\n"
    ET.fromstring(render_svg(empty, title="nothing"))


def test_five_hundred_stages_are_drawn() -> None:
    picture = build_picture(graph_of(500))
    assert render_svg(picture, title="t").count('class="edge"') == len(picture.edges)
