"""The graph for tools that draw: Mermaid (GitHub shows it in Markdown) and DOT (Graphviz)."""

from mlstack.graph.change import Action
from mlstack.render.escape import plain
from mlstack.render.graph_picture import Node, Picture, used_kinds
from mlstack.spec.address import Kind

# Mermaid's brackets around a label, by kind.
_MERMAID: dict[Kind, tuple[str, str]] = {
    Kind.POOL: ("[[", "]]"),
    Kind.IMAGE: ("[/", "/]"),
    Kind.DATASET: ("[(", ")]"),
    Kind.STAGE: ("[", "]"),
    Kind.MODEL: ("{{", "}}"),
    Kind.ENDPOINT: ("([", "])"),
}
_DOT: dict[Kind, str] = {
    Kind.POOL: "box3d",
    Kind.IMAGE: "parallelogram",
    Kind.DATASET: "cylinder",
    Kind.STAGE: "box",
    Kind.MODEL: "hexagon",
    Kind.ENDPOINT: "oval",
}
FILLS: dict[Kind, tuple[str, str]] = {
    Kind.POOL: ("#eceff1", "#607d8b"),
    Kind.IMAGE: ("#e0f4f6", "#12808f"),
    Kind.DATASET: ("#e3f2fd", "#1e77c2"),
    Kind.STAGE: ("#fff4e0", "#d98200"),
    Kind.MODEL: ("#f1e7fb", "#8447c9"),
    Kind.ENDPOINT: ("#e4f5e8", "#2a8c48"),
}
"""Fill and stroke of each kind on a light ground."""

ACTION_STROKES: dict[Action, str] = {
    Action.CREATE: "#2a8c48",
    Action.IMPORT: "#2a8c48",
    Action.UPDATE: "#c98500",
    Action.MOVE: "#c98500",
    Action.ACCEPT: "#c98500",
    Action.FORGET: "#c98500",
    Action.REPLACE: "#d1293d",
    Action.DELETE: "#d1293d",
    Action.CANCEL: "#d1293d",
    Action.RUN: "#1287a8",
    Action.RESTORE: "#1287a8",
    Action.FOLLOW: "#1287a8",
}


def render_mermaid(picture: Picture) -> str:
    """Return a Mermaid flowchart; ends in a newline."""
    names = _names(picture)
    lines = ["flowchart LR"]
    for node in picture.nodes:
        left, right = _MERMAID[node.kind]
        lines.append(f'  {names[node.address]}{left}"{_mermaid_text(node)}"{right}:::{node.kind.value}')
    lines.extend(f"  {names[source]} --> {names[target]}" for source, target in picture.edges)
    for kind in used_kinds(picture):
        fill, stroke = FILLS[kind]
        lines.append(f"  classDef {kind.value} fill:{fill},stroke:{stroke},color:#1b1f24")
    lines.extend(
        f"  style {names[node.address]} stroke:{ACTION_STROKES[node.action]},stroke-width:3px"
        for node in picture.nodes
        if node.action is not None and node.action in ACTION_STROKES
    )
    return "\n".join(lines) + "\n"


def _mermaid_text(node: Node) -> str:
    rows = [node.name, node.note, *([f"({node.action_word})"] if node.action_word else [])]
    return "<br/>".join(mermaid_escape(row) for row in rows)


def mermaid_escape(text: str) -> str:
    """Write what Mermaid or HTML would act on as Mermaid's entity codes."""
    return "".join(char if char.isalnum() or char in " /.,=_-:()[]+" else f"#{ord(char)};" for char in text)


def render_dot(picture: Picture) -> str:
    """Return a Graphviz digraph; ends in a newline."""
    names = _names(picture)
    lines = [
        "digraph mlstack {",
        "  rankdir=LR;",
        '  graph [fontname="Helvetica"];',
        '  node [fontname="Helvetica", fontsize=11, style=filled, fontcolor="#1b1f24"];',
        '  edge [color="#7d8590"];',
    ]
    for node in picture.nodes:
        fill, stroke = FILLS[node.kind]
        if node.action is not None:
            stroke = ACTION_STROKES.get(node.action, stroke)
        width = 2 if node.action_word else 1
        rows = [node.name, node.note, *([f"({node.action_word})"] if node.action_word else [])]
        label = "\\n".join(_dot_escape(row) for row in rows)
        lines.append(
            f'  {names[node.address]} [label="{label}", shape={_DOT[node.kind]}, fillcolor="{fill}", '
            f'color="{stroke}", penwidth={width}, tooltip="{_dot_escape(node.address)}"];'
        )
    lines.extend(f"  {names[source]} -> {names[target]};" for source, target in picture.edges)
    return "\n".join([*lines, "}"]) + "\n"


def _dot_escape(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace('"', '\\"')


def _names(picture: Picture) -> dict[str, str]:
    return {node.address: f"n{index}" for index, node in enumerate(picture.nodes)}
