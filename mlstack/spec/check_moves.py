"""Announced renames: `moved`."""

from mlstack.spec.address import Address, parse_address
from mlstack.spec.faults import Faults, suggest
from mlstack.spec.file import File
from mlstack.spec.node import Node
from mlstack.spec.spec import Move


def build_moves(model: File, node: Node, known: set[Address], faults: Faults, *, broken: bool) -> tuple[Move, ...]:
    """Return the moves; each goes from an address that is gone to one of the same kind that exists."""
    section = node.get("moved")
    found: list[Move] = []
    for move, item in zip(model.moved or [], section.items if section is not None else [], strict=True):
        source, target = parse_address(move.source), parse_address(move.target)
        for text, parts, key in ((move.source, source, "from"), (move.target, target, "to")):
            if parts is None:
                place = item.map[key].place
                faults.add(
                    "invalid-reference", place, f"`{text}` is not an address.", "Write for example stages.train."
                )
        if source is None or target is None:
            continue
        place = item.map["from"].place
        if source.kind is not target.kind:
            detail = f"`{move.source}` and `{move.target}` are of different kinds."
            faults.add("moved", place, detail, "Only the name or the component can change.")
        elif move.source in known:
            detail = f"`{move.source}` still exists."
            faults.add("moved", place, detail, "Remove this move, or rename the resource.")
        elif not _exists(move.target, known) and not broken:
            near = suggest(move.target, known)
            detail = f"`{move.target}` does not exist." + near
            faults.add("moved", item.map["to"].place, detail, "Name the resource as it is called now.")
        elif any(move.source == other.source for other in found):
            faults.add("moved", place, f"`{move.source}` is moved twice.", "Keep one of them.")
        else:
            found.append(Move(Address(move.source), Address(move.target)))
    return tuple(found)


def _exists(target: str, known: set[Address]) -> bool:
    return target in known or any(address.startswith(target + "[") for address in known)
