"""Where the nodes of a picture stand: layered from left to right by grandalf, one connected part below the other.

Coordinates are SVG user units; x and y of a node are those of its middle.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mlstack.spec.address import Address

LAYER_GAP = 70.0
NODE_GAP = 22.0
PART_GAP = 34.0
_MOST_FOR_SUGIYAMA = 1500

Point = tuple[float, float]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """`places` of nodes, `paths` of edges (from the right side of one node to the left side of the other), the size."""

    places: dict[Address, Point]
    paths: dict[tuple[Address, Address], tuple[Point, ...]]
    width: float
    height: float


class _Box:
    """The view that grandalf wants of a node. It lays out from top to bottom, so width and height change places."""

    def __init__(self, width: float, height: float) -> None:
        self.w, self.h = height, width
        self.xy = (0.0, 0.0)


class _Path:
    """The view that grandalf wants of an edge."""

    def __init__(self) -> None:
        self.points: Sequence[Point] = ()

    def setpath(self, points: Sequence[Point]) -> None:
        self.points = list(points)


def lay_out(
    nodes: Sequence[Address], edges: Sequence[tuple[Address, Address]], sizes: Mapping[Address, Point]
) -> Layout:
    """Place nodes of the given sizes (width, height). The order of `nodes` decides ties, so equal input looks equal."""
    from grandalf.graphs import Edge, Graph, Vertex
    from grandalf.layouts import SugiyamaLayout

    vertices = {address: Vertex(address) for address in nodes}
    for address, vertex in vertices.items():
        vertex.view = _Box(*sizes[address])
    links = [Edge(vertices[source], vertices[target], data=(source, target)) for source, target in edges]
    for link in links:
        link.view = _Path()
    places: dict[Address, Point] = {}
    paths: dict[tuple[Address, Address], tuple[Point, ...]] = {}
    top = width = 0.0
    for part in Graph(list(vertices.values()), links).C:
        layout = SugiyamaLayout(part)
        layout.xspace, layout.yspace = NODE_GAP, LAYER_GAP
        layout.route_edge = _keep_bends
        roots = [vertex for vertex in part.sV if not vertex.e_in()]
        layout.init_all(roots=roots, inverted_edges=[])
        layout.draw(3 if len(part.sV) <= _MOST_FOR_SUGIYAMA else 1)
        wide, high = _take_part(part, top, places, paths, sizes)
        width = max(width, wide)
        top += high + PART_GAP
    return Layout(places=places, paths=paths, width=width, height=max(0.0, top - PART_GAP))


def _keep_bends(edge: Any, points: Sequence[Point]) -> None:
    """Keep grandalf's points as they are: its own routers clip at boxes, which are turned here."""
    edge.view.setpath(points)


def _take_part(
    part: Any,
    top: float,
    places: dict[Address, Point],
    paths: dict[tuple[Address, Address], tuple[Point, ...]],
    sizes: Mapping[Address, Point],
) -> Point:
    """Turn one laid-out part, move it below `top`, and return its size."""
    found = {vertex.data: (vertex.view.xy[1], vertex.view.xy[0]) for vertex in part.sV}
    bends = {edge.data: [(y, x) for x, y in list(edge.view.points)[1:-1]] for edge in part.sE}
    ys = [y for points in bends.values() for _, y in points]
    left = min(x - sizes[a][0] / 2 for a, (x, _) in found.items())
    right = max(x + sizes[a][0] / 2 for a, (x, _) in found.items())
    upper = min([*(y - sizes[a][1] / 2 for a, (_, y) in found.items()), *ys])
    lower = max([*(y + sizes[a][1] / 2 for a, (_, y) in found.items()), *ys])
    reach: dict[int, float] = {}
    for address, (x, y) in found.items():
        places[address] = (x - left, y - upper + top)
        reach[round(x)] = max(reach.get(round(x), 0.0), sizes[address][0] / 2)
    for (source, target), points in bends.items():
        start, end = places[source], places[target]
        paths[source, target] = (
            (start[0] + sizes[source][0] / 2, start[1]),
            *(
                (x - left + side * reach.get(round(x), 0.0), y - upper + top)
                for x, y in points
                for side in (-1, 1)  # level past the whole layer, so that the curve touches none of its nodes
            ),
            (end[0] - sizes[target][0] / 2, end[1]),
        )
    return right - left, lower - upper
