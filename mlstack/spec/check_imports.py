"""What is there already and is taken in: `import` of the file and of an environment."""

from collections.abc import Collection, Iterator

from mlstack.spec.address import Address, Kind, parse_address
from mlstack.spec.faults import Faults, suggest
from mlstack.spec.file import File, ImportModel
from mlstack.spec.node import Node
from mlstack.spec.spec import Import

_KINDS = (Kind.POOL, Kind.ENDPOINT)


def build_imports(
    file: File, tree: Node, known: Collection[str], faults: Faults, *, environment: str, broken: bool
) -> tuple[Import, ...]:
    """Return what the file and this environment take in. Which objects a resource has is known to its driver."""
    found: dict[tuple[str, str], Import] = {}
    for written, item in _written(file, tree, environment):
        place = item.map["to"].place
        parts = parse_address(written.to)
        if parts is None:
            faults.add("import", place, f"`{written.to}` is not an address.", "Write for example compute.gpu.")
        elif parts.kind not in _KINDS:
            detail = f"`{written.to}` is made by no target, so that there is nothing to take in."
            faults.add("import", place, detail, "Only pools and endpoints can be imported to.")
        elif written.to not in known:
            if not broken:
                detail = f"`{written.to}` does not exist.{suggest(written.to, known)}"
                faults.add("import", place, detail, "Declare it, or name one that is declared.")
        elif (written.to, written.id or "") in found:
            faults.add("import", place, f"`{written.to}` is imported to twice.", "Remove one of them.")
        else:
            one = Import(to=Address(written.to), id=written.id or "", place=place)
            found[one.to, one.id] = one
    return tuple(found.values())


def _written(file: File, tree: Node, environment: str) -> Iterator[tuple[ImportModel, Node]]:
    chosen = (file.environments or {}).get(environment)
    for models, at in (
        (file.imports, tree.get("import")),
        (chosen.imports if chosen is not None else None, tree.get("environments", environment, "import")),
    ):
        if models and at is not None:
            yield from zip(models, at.items, strict=True)
