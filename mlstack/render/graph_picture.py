"""What a picture of the graph consists of, whatever it is drawn with: nodes, edges, labels, actions.

Pools are places and not steps on the way from data to endpoint: they stand in the labels of what runs on them.
"""

from collections.abc import Iterable

import msgspec

from mlstack.graph.change import Action
from mlstack.graph.graph import ResourceGraph
from mlstack.planner.plan import Plan
from mlstack.render.escape import plain
from mlstack.spec.address import Address, Kind, kind_of, parse_address
from mlstack.spec.spec import Endpoint, Resource, Stage

_NOTES = {Kind.IMAGE: "image", Kind.DATASET: "dataset", Kind.MODEL: "model", Kind.ENDPOINT: "endpoint"}


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One resource. `name` is a short word for the picture, `note` a second line, `action` what a plan would do."""

    address: Address
    kind: Kind
    name: str
    note: str = ""
    action: Action | None = None

    @property
    def action_word(self) -> str:
        """What a plan would do, in a word; empty for no change."""
        return "" if self.action in (None, Action.NO_OP) else self.action.value


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes in topological order, edges from what is needed to what needs it, components in the order of the file."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Address, Address], ...]
    components: tuple[str, ...]


def build_picture(graph: ResourceGraph, plan: Plan | None = None) -> Picture:
    """Take from the graph what is drawn; with a plan, mark what it would do."""
    actions = {change.address: change.action for change in plan.changes} if plan is not None else {}
    shown = [address for address in graph.order if kind_of(address) is not Kind.POOL]
    nodes = tuple(_node(address, graph.resources[address], actions.get(address)) for address in shown)
    known = set(shown)
    edges = tuple((need, address) for address in shown for need in graph.needs.get(address, ()) if need in known)
    components = dict.fromkeys(component_of(address) for address in shown)
    return Picture(nodes=nodes, edges=tuple(dict.fromkeys(edges)), components=tuple(components))


def component_of(address: Address) -> str:
    """Return the component of an address, "" at the top level."""
    parts = parse_address(address)
    return parts.component if parts else ""


def used_kinds(picture: Picture) -> Iterable[Kind]:
    """Yield the kinds that the picture shows."""
    used = {node.kind for node in picture.nodes}
    return (kind for kind in Kind if kind in used)


def _node(address: Address, resource: Resource, action: Action | None) -> Node:
    parts = parse_address(address)
    name = parts.name + (f"[{parts.instance}]" if parts.instance else "") if parts else address
    if parts and parts.component:
        name = f"{parts.component}/{name}"
    note = _NOTES.get(kind_of(address), "stage")
    if isinstance(resource, Stage | Endpoint):
        note = f"{note} on {resource.pool.partition('.')[2]}"
    return Node(address=address, kind=kind_of(address), name=plain(name), note=plain(note), action=action)
