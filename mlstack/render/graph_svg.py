"""The graph as an SVG that stands alone: shapes and colours by kind, readable on light and on dark ground."""

from collections.abc import Iterable

from mlstack.render.columns import columns
from mlstack.render.escape import plain
from mlstack.render.graph_layout import Layout, Point, lay_out
from mlstack.render.graph_picture import Node, Picture, used_kinds
from mlstack.render.graph_text import ACTION_STROKES, FILLS
from mlstack.spec.address import Address, Kind

_MARGIN = 24.0
_HEIGHT = 46.0
_CHAR, _SMALL_CHAR = 7.9, 6.3
_PADDING = 34.0
_LEGEND = 40.0
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="tip" d="M0 0.6 L7.4 4 L0 7.4 z"/></marker></defs>'
)
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_DARK: dict[Kind, tuple[str, str]] = {
    Kind.POOL: ("#263238", "#90a4ae"),
    Kind.IMAGE: ("#0b3035", "#4fbccb"),
    Kind.DATASET: ("#0f2b45", "#5aa9e6"),
    Kind.STAGE: ("#3a2a08", "#f0ad3d"),
    Kind.MODEL: ("#2c1a40", "#b98af0"),
    Kind.ENDPOINT: ("#0f3320", "#56c27a"),
}
_KIND_WORDS = {
    Kind.POOL: "pool",
    Kind.IMAGE: "image",
    Kind.DATASET: "dataset",
    Kind.STAGE: "stage",
    Kind.MODEL: "model",
    Kind.ENDPOINT: "endpoint",
}


def render_svg(picture: Picture, *, title: str) -> str:
    """Return an SVG document; ends in a newline. `title` is read out by screen readers."""
    sizes = {node.address: _size(node) for node in picture.nodes}
    layout = lay_out([node.address for node in picture.nodes], picture.edges, sizes)
    width = max(layout.width, _legend_width(picture)) + 2 * _MARGIN
    height = layout.height + 2 * _MARGIN + _LEGEND
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{_escape(title)}">',
        f"<title>{_escape(title)}</title>",
        f"<style>{_css(picture)}</style>",
        _ARROW,
        '<rect class="ground" width="100%" height="100%"/>',
        f'<g transform="translate({_MARGIN:.0f} {_MARGIN:.0f})">',
        *(_edge(layout.paths[edge]) for edge in picture.edges),
        *(_node(node, layout, sizes) for node in picture.nodes),
        "</g>",
        *_legend(picture, height - _MARGIN),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _size(node: Node) -> Point:
    widest = max(columns(node.name) * _CHAR, columns(_note(node)) * _SMALL_CHAR)
    return widest + _PADDING, _HEIGHT


def _note(node: Node) -> str:
    return f"{node.note}: {node.action_word}" if node.action_word else node.note


def _css(picture: Picture) -> str:
    rules = [
        f"text{{font-family:{_FONT};fill:#1b1f24;text-anchor:middle}}",
        ".name{font-size:13px;font-weight:600}.note{font-size:10.5px;fill:#59636e}",
        ".legend{font-size:11px;text-anchor:start;fill:#59636e}",
        ".ground{fill:#ffffff}.edge{fill:none;stroke:#8c959f;stroke-width:1.4}.tip{fill:#8c959f}",
        ".shape{stroke-width:1.4}.planned{stroke-width:3}",
    ]
    dark = ["text{fill:#f0f3f6}.note,.legend{fill:#a8b1bb}.ground{fill:#0d1117}.edge{stroke:#7d8590}.tip{fill:#7d8590}"]
    for kind in used_kinds(picture):
        rules.append(f".{kind.value}{{fill:{FILLS[kind][0]};stroke:{FILLS[kind][1]}}}")
        dark.append(f".{kind.value}{{fill:{_DARK[kind][0]};stroke:{_DARK[kind][1]}}}")
    for action in dict.fromkeys(node.action for node in picture.nodes):
        if action in ACTION_STROKES:
            rules.append(f".shape.do-{action}{{stroke:{ACTION_STROKES[action]};stroke-width:3}}")
            dark.append(f".shape.do-{action}{{stroke:{ACTION_STROKES[action]}}}")
    return "".join(rules) + "@media (prefers-color-scheme:dark){" + "".join(dark) + "}"


def _edge(points: tuple[Point, ...]) -> str:
    """Draw a curve that leaves and arrives level, through the bends of a long edge."""
    (x, y), *rest = points
    path = f"M{x:.1f} {y:.1f}"
    for to_x, to_y in rest:
        middle = (x + to_x) / 2
        path += f" C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
    return f'<path class="edge" d="{path}" marker-end="url(#arrow)"/>'


def _node(node: Node, layout: Layout, sizes: dict[Address, Point]) -> str:
    x, y = layout.places[node.address]
    width, height = sizes[node.address]
    classes = f"shape {node.kind.value}" + (f" do-{node.action.value}" if node.action in ACTION_STROKES else "")
    down = 4 if node.kind is Kind.DATASET else 0  # below the rim of the cylinder
    hover = _escape(node.address + (f": {node.action_word}" if node.action_word else ""))
    return (
        f'<g transform="translate({x:.1f} {y:.1f})"><title>{hover}</title>{_shape(node.kind, width, height, classes)}'
        f'<text class="name" y="{down - 2}">{_escape(node.name)}</text>'
        f'<text class="note" y="{down + 13}">{_escape(_note(node))}</text></g>'
    )


def _shape(kind: Kind, width: float, height: float, classes: str) -> str:
    w, h = width / 2, height / 2
    match kind:
        case Kind.DATASET:
            lid = 5
            body = f"M{-w:.1f} {-h + lid:.1f} A{w:.1f} {lid} 0 0 1 {w:.1f} {-h + lid:.1f} V{h - lid:.1f}"
            body += f" A{w:.1f} {lid} 0 0 1 {-w:.1f} {h - lid:.1f} Z"
            rim = f"M{-w:.1f} {-h + lid:.1f} A{w:.1f} {lid} 0 0 0 {w:.1f} {-h + lid:.1f}"
            return f'<path class="{classes}" d="{body} {rim}"/>'
        case Kind.MODEL:
            cut = 12
            points = [(-w, 0), (-w + cut, -h), (w - cut, -h), (w, 0), (w - cut, h), (-w + cut, h)]
            text = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            return f'<polygon class="{classes}" points="{text}"/>'
        case Kind.IMAGE:
            lean = 8
            points = [(-w + lean, -h), (w, -h), (w - lean, h), (-w, h)]
            text = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            return f'<polygon class="{classes}" points="{text}"/>'
        case Kind.ENDPOINT:
            radius = h
        case Kind.STAGE:
            radius = 6
        case Kind.POOL:
            radius = 0
    box = f'x="{-w:.1f}" y="{-h:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{classes}" {box} rx="{radius:.1f}"/>'


def _legend_width(picture: Picture) -> float:
    return sum(_legend_step(kind) for kind in used_kinds(picture))


def _legend_step(kind: Kind) -> float:
    return len(_KIND_WORDS[kind]) * 7.0 + 58


def _legend(picture: Picture, y: float) -> Iterable[str]:
    x = _MARGIN
    for kind in used_kinds(picture):
        yield f'<g transform="translate({x + 15:.0f} {y - 4:.0f})">{_shape(kind, 30, 16, f"shape {kind.value}")}</g>'
        yield f'<text class="legend" x="{x + 38:.0f}" y="{y:.0f}">{_KIND_WORDS[kind]}</text>'
        x += _legend_step(kind)


def _escape(text: str) -> str:
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
