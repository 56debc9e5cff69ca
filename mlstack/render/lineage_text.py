"""Lineage as a tree for people, and as Mermaid."""

from collections.abc import Sequence

from mlstack.provenance.lineage import Edge, Lineage, Node, Serving
from mlstack.render.escape import plain
from mlstack.render.graph_text import FILLS, mermaid_escape
from mlstack.render.human import age
from mlstack.render.style import Style
from mlstack.render.table import Column, render_table
from mlstack.spec.address import Address, Kind

_SHORT = 8
_DEEPEST = 60
_SHAPES = {Kind.DATASET: ("[(", ")]"), Kind.STAGE: ("[", "]"), Kind.MODEL: ("{{", "}}"), Kind.ENDPOINT: ("([", "])")}


def render_tree(lineage: Lineage, address: Address, *, up: bool, down: bool, style: Style) -> str:
    """Return what `address` came from, itself, and what came from it; ends in a newline."""
    parts = []
    if up:
        rows = _branches(lineage, address, upwards=True, style=style)
        parts.append(_titled("Comes from", rows, "nothing that is declared", style))
    node = lineage.nodes[address]
    parts.insert(0, f"{style.paint(plain(address), 'strong')}  {_facts(node, style)}".rstrip() + "\n")
    if down:
        rows = _branches(lineage, address, upwards=False, style=style)
        parts.append(_titled("Leads to", rows, "nothing that is declared", style))
    return "\n".join(parts)


def _titled(title: str, rows: list[str], nothing: str, style: Style) -> str:
    body = "\n".join(rows) if rows else f"  {style.paint(nothing, 'quiet')}"
    return f"{style.paint(title, 'strong')}\n{body}\n"


def _branches(lineage: Lineage, address: Address, *, upwards: bool, style: Style) -> list[str]:
    """Return the lines below one node, each thing once in full; where it comes again it is only named."""
    following: dict[Address, list[Edge]] = {}
    for edge in lineage.edges:
        following.setdefault(edge.target if upwards else edge.source, []).append(edge)
    tee, corner, bar = ("├─ ", "└─ ", "│  ") if style.unicode else ("|- ", "`- ", "|  ")
    seen: set[Address] = set()
    rows: list[str] = []

    def walk(at: Address, indent: str, depth: int) -> None:
        edges = sorted(following.get(at, ()), key=lambda edge: (edge.source, edge.target, edge.path))
        for number, edge in enumerate(edges, 1):
            found = edge.source if upwards else edge.target
            again = found in seen
            seen.add(found)
            node = lineage.nodes.get(found)
            via = f"  {style.paint('via ' + plain(edge.path), 'quiet')}" if _is_telling(edge, node) else ""
            facts = style.paint("(see above)", "quiet") if again else _facts(node, style) if node is not None else ""
            rows.append(f"{indent}{corner if number == len(edges) else tee}{plain(found)}  {facts}{via}".rstrip())
            if not again and depth < _DEEPEST:
                walk(found, indent + ("   " if number == len(edges) else bar), depth + 1)

    walk(address, "  ", 0)
    return rows


def _is_telling(edge: Edge, node: Node | None) -> bool:
    return bool(edge.path) and node is not None and node.kind is Kind.STAGE


def _facts(node: Node, style: Style) -> str:
    if node.kind is Kind.ENDPOINT:
        if not node.serves:
            return style.paint("not deployed", "quiet")
        served = ", ".join(f"{plain(model)} {(version or '?')[:_SHORT]}" for model, version in node.serves.items())
        return f"serves {served}"
    if node.version is None:
        return style.paint("nothing recorded", "quiet")
    shown = f"{'run ' if node.kind is Kind.STAGE else ''}{node.version[:_SHORT]}"
    where = "" if node.kind is Kind.STAGE else f"  {plain(node.path)}"
    return shown + where + (f"  from {plain(node.source)}" if node.source else "")


def render_servings(found: Sequence[Serving], *, style: Style) -> str:
    """Return which endpoints serve or served something, newest first; "" for none."""
    if not found:
        return ""
    heads = (Column("ENDPOINT", keep=True), "ENVIRONMENT", "MODEL", "VERSION", "SINCE", "UNTIL", "BY")
    rows = [
        (
            each.endpoint,
            each.environment,
            each.model,
            each.version[:_SHORT],
            age(each.since),
            age(each.until) if each.until else "now",
            each.by,
        )
        for each in reversed(found)
    ]
    return f"{style.paint('Served', 'strong')}\n{render_table(heads, rows, style=style)}"


def render_lineage_mermaid(lineage: Lineage) -> str:
    """Return a Mermaid flowchart; ends in a newline."""
    names = {address: f"n{number}" for number, address in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    for address, node in lineage.nodes.items():
        left, right = _SHAPES[node.kind]
        version = node.version or next((each for each in node.serves.values() if each), None)
        label = mermaid_escape(plain(address)) + (f"<br/>{version[:_SHORT]}" if version else "")
        lines.append(f'  {names[address]}{left}"{label}"{right}:::{node.kind.value}')
    for edge in lineage.edges:
        if edge.source in names and edge.target in names:
            label = f'|"{mermaid_escape(plain(edge.path))}"| ' if edge.path else ""
            lines.append(f"  {names[edge.source]} --> {label}{names[edge.target]}")
    for kind in dict.fromkeys(node.kind for node in lineage.nodes.values()):
        fill, stroke = FILLS[kind]
        lines.append(f"  classDef {kind.value} fill:{fill},stroke:{stroke},color:#1b1f24")
    return "\n".join(lines) + "\n"
