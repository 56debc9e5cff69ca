"""What comes from what, from data to live endpoint, with the version that each has. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mlstack.graph.graph import LockEntry, fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.spec.address import Address, Kind, kind_of
from mlstack.spec.spec import Dataset, Endpoint, Model, Spec, Stage
from mlstack.state.state import HistoryRecord, Record

_SERVING_STEPS = frozenset({"create", "update", "replace"})


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One thing at one commit.

    `version` is the hash of its content (None: nothing is recorded); a stage has the fingerprint of its computation
    instead. `contents` are a stage's other inputs and its outputs: path → hash. Of an endpoint, `serves` is what runs
    by the record: model → hash.
    """

    address: Address
    kind: Kind
    version: str | None = None
    path: str = ""
    source: str | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    serves: dict[str, str | None] = {}


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`target` was made of `source`, by way of the content at `path`."""

    source: Address
    target: Address
    path: str = ""
    version: str | None = None


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one project at one commit (None: the working tree)."""

    project: str
    commit: str | None
    nodes: dict[Address, Node]
    edges: tuple[Edge, ...]

    def select(self, address: Address, *, up: bool = True, down: bool = True) -> "Lineage":
        """Return what `address` came from, what came from it, or both."""
        kept = {address}
        if up:
            kept |= _reach(address, [(edge.target, edge.source) for edge in self.edges])
        if down:
            kept |= _reach(address, [(edge.source, edge.target) for edge in self.edges])
        return msgspec.structs.replace(
            self,
            nodes={name: node for name, node in self.nodes.items() if name in kept},
            edges=tuple(edge for edge in self.edges if {edge.source, edge.target} <= kept),
        )


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """One time that an endpoint served one version of a model. Times are ISO 8601; `until` None: it still does."""

    endpoint: Address
    environment: str
    model: str
    version: str
    since: str
    until: str | None = None
    by: str = ""
    apply_id: str = ""


def build_lineage(
    spec: Spec,
    *,
    entries: Mapping[Address, LockEntry],
    data: Mapping[str, FileDigest],
    records: Mapping[Address, Record],
    commit: str | None = None,
) -> Lineage:
    """Put together what the file says with what was recorded: `entries` of stages, `data` by path, endpoints."""
    nodes: dict[Address, Node] = {}
    edges: list[Edge] = []
    for address, resource in spec.resources.items():
        match resource:
            case Dataset():
                digest = data.get(resource.path)
                nodes[address] = Node(
                    address=address,
                    kind=Kind.DATASET,
                    version=digest.md5 if digest is not None else None,
                    path=resource.path,
                    source=resource.source,
                )
            case Stage():
                nodes[address], found = _stage(resource, entries.get(address))
                edges += found
            case Model():
                entry = entries.get(resource.stage)
                version = _md5(entry, resource.out)
                nodes[address] = Node(address=address, kind=Kind.MODEL, version=version, path=resource.out)
                edges.append(Edge(source=resource.stage, target=address, path=resource.out, version=version))
            case Endpoint():
                serves = serving_now(records.get(address))
                nodes[address] = Node(address=address, kind=Kind.ENDPOINT, serves=serves)
                edges += [
                    Edge(source=variant.model, target=address, version=serves.get(variant.model))
                    for variant in resource.variants.values()
                ]
            case _:
                pass
    return Lineage(project=spec.project, commit=commit, nodes=nodes, edges=tuple(edges))


def _stage(stage: Stage, entry: LockEntry | None) -> tuple[Node, list[Edge]]:
    known = {dep.path: dep.digest.md5 for dep in entry.key.deps} if entry is not None else {}
    produced = {dep.path for dep in stage.deps if dep.producer is not None}
    node = Node(
        address=stage.address,
        kind=Kind.STAGE,
        version=fingerprint(entry.key) if entry is not None else None,
        path=stage.directory,
        inputs={path: md5 for path, md5 in known.items() if path not in produced},
        outputs={out.path: out.digest.md5 for out in entry.outs} if entry is not None else {},
    )
    edges = [
        Edge(source=dep.producer, target=stage.address, path=dep.path, version=known.get(dep.path))
        for dep in stage.deps
        if dep.producer is not None
    ]
    return node, edges


def serving_now(record: Record | None) -> dict[str, str | None]:
    """Return what an endpoint's record says that it serves: model → hash."""
    variants = record.attributes.get("variants") if record is not None else None
    found: dict[str, str | None] = {}
    for variant in variants.values() if isinstance(variants, dict) else ():
        if isinstance(variant, dict) and isinstance(variant.get("model"), str):
            found[variant["model"]] = str(variant["version"]) if variant.get("version") else None
    return found


def servings(
    history: Iterable[HistoryRecord], models_of: Mapping[Address, Sequence[str]], *, environment: str
) -> list[Serving]:
    """Return which versions endpoints have served, oldest first. `models_of`: endpoint → its models, as in the file."""
    running: dict[Address, list[Serving]] = {}
    ended: list[Serving] = []
    for record in history:
        for step in record.steps:
            if step.outcome != "done" or kind_of(step.address) is not Kind.ENDPOINT:
                continue
            if step.action in _SERVING_STEPS or step.action == "delete":
                before = running.pop(step.address, [])
                ended += [msgspec.structs.replace(each, until=record.ended_at) for each in before]
            if step.action in _SERVING_STEPS:
                running[step.address] = [
                    Serving(
                        endpoint=step.address,
                        environment=environment,
                        model=model,
                        version=version,
                        since=record.ended_at,
                        by=record.who,
                        apply_id=record.id,
                    )
                    for model in models_of.get(step.address, ())
                    if (version := record.versions.get(Address(model))) is not None
                ]
    return sorted([*ended, *(each for found in running.values() for each in found)], key=lambda each: each.since)


def places_of(lineage: Lineage, prefix: str) -> list[tuple[Address, str, str]]:
    """Return where a hash (or its beginning) occurs: address, path, whole hash. Models and datasets come first."""
    found: dict[tuple[Address, str], str] = {}
    for address, node in lineage.nodes.items():
        if node.version is not None and node.version.startswith(prefix):
            found[address, node.path if node.kind is not Kind.STAGE else ""] = node.version
        for contents in (node.outputs, node.inputs):
            found.update({(address, path): md5 for path, md5 in contents.items() if md5.startswith(prefix)})
    order = (Kind.MODEL, Kind.DATASET, Kind.STAGE, Kind.ENDPOINT)
    rows = [(address, path, md5) for (address, path), md5 in found.items()]
    return sorted(rows, key=lambda row: (order.index(lineage.nodes[row[0]].kind), row))


def _md5(entry: LockEntry | None, path: str) -> str | None:
    digest = entry.digests().get(path) if entry is not None else None
    return digest.md5 if digest is not None else None


def _reach(start: Address, pairs: Sequence[tuple[Address, Address]]) -> set[Address]:
    """Return what can be reached along pairs (from, to)."""
    following: dict[Address, list[Address]] = {}
    for source, target in pairs:
        following.setdefault(source, []).append(target)
    seen: set[Address] = set()
    waiting = [start]
    while waiting:
        for found in following.get(waiting.pop(), ()):
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return seen
