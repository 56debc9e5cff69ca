"""Who makes what: no two stages one output, no output inside another, no dataset inside an output."""

from collections.abc import Iterable, Mapping

from mlstack.diagnostics import Position
from mlstack.spec.address import Address
from mlstack.spec.draft import Draft
from mlstack.spec.faults import Faults
from mlstack.spec.node import Node
from mlstack.spec.paths import ancestors
from mlstack.spec.scope import Scope
from mlstack.spec.spec import Dataset


def check_outputs(
    drafts: Iterable[Draft], datasets: Mapping[Address, Dataset], scopes: Mapping[str, Scope], faults: Faults
) -> None:
    """Collect a fault for every two things that would write at one place."""
    outputs: dict[str, tuple[Draft, Node]] = {}
    for draft in drafts:
        for made in draft.made:
            path, item = made.out.path, made.node
            first = outputs.setdefault(path, (draft, item))
            if first[1] is not item or first[0] is not draft:
                _twice(path, first[0], draft, item, faults)
    for path, (draft, item) in outputs.items():
        for folder in ancestors(path):
            if folder in outputs:
                outer = outputs[folder][0]
                detail = f"`{path}` of {draft.address} lies inside `{folder}` of {outer.address}."
                hint = "Give each output a place of its own."
                faults.add("output-inside-output", _place(item), detail, hint, address=draft.address)
    _check_looks(outputs, faults)
    _check_datasets(datasets, outputs, scopes, faults)


def _check_looks(outputs: Mapping[str, tuple[Draft, Node]], faults: Faults) -> None:
    """Two spellings of one name in Unicode are one file on some systems, and one to the eye on all."""
    from unicodedata import normalize

    first: dict[str, str] = {}
    for path, (draft, item) in outputs.items():
        if not path.isascii() and (other := first.setdefault(normalize("NFC", path), path)) != path:
            spelled = [each.encode("unicode_escape").decode() for each in (path, other)]
            detail = (
                f"`{path}` is made by {outputs[other][0].address} and by {draft.address}: written with other Unicode "
            )
            detail += f'characters ("{spelled[1]}" and "{spelled[0]}"), but it is the same name.'
            hint = "Every output has one maker: give them different paths."
            faults.add("output-twice", _place(item), detail, hint, address=draft.address)


def _twice(path: str, first: Draft, second: Draft, item: Node, faults: Faults) -> None:
    if first.address == second.address:
        detail = f"{second.address} lists the output `{path}` twice."
        faults.add("duplicate-item", _place(item), detail, "Remove one of them.", address=second.address)
        return
    detail = f"`{path}` is made by {first.address} and by {second.address}."
    hint = "Every output has one maker: give them different paths."
    if first.combination and second.combination and first.name == second.name:
        name = next(iter(second.combination))
        hint = f'Use a value of the matrix in the path, for example "{_example(path, name)}".'
    faults.add("output-twice", _place(item), detail, hint, address=second.address)


def _example(path: str, name: str) -> str:
    stem, dot, suffix = path.rpartition(".")
    return f"{stem or path}-${{{{ matrix.{name} }}}}{dot}{suffix if dot else ''}"


def _check_datasets(
    datasets: Mapping[Address, Dataset],
    outputs: Mapping[str, tuple[Draft, Node]],
    scopes: Mapping[str, Scope],
    faults: Faults,
) -> None:
    first: dict[str, Dataset] = {}
    for dataset in datasets.values():
        first.setdefault(dataset.path, dataset)
    for address, dataset in datasets.items():
        node = _declared(address, scopes)
        place = (node.get("path") or node).place
        for path in (dataset.path, *ancestors(dataset.path)):
            if path in outputs:
                maker = outputs[path][0].address
                where = "is also made by" if path == dataset.path else f"lies inside `{path}`, which is made by"
                detail = f"`{dataset.path}` of {address} {where} {maker}."
                hint = f"A dataset comes from outside. Remove it and depend on {maker}, or change one of the paths."
                faults.add("dataset-overlaps-output", place, detail, hint, address=address)
            other = first.get(path)
            if other is not None and other is not dataset:
                detail = f"`{dataset.path}` of {address} is in the place of {other.address} (`{path}`)."
                faults.add("dataset-overlap", place, detail, "Declare the data once.", address=address)
    for path, (draft, item) in outputs.items():
        for folder in ancestors(path):
            if folder in first:
                detail = f"`{path}` of {draft.address} lies inside the dataset {first[folder].address} (`{folder}`)."
                hint = "Write outputs elsewhere: a dataset is only read."
                faults.add("dataset-overlaps-output", _place(item), detail, hint, address=draft.address)


def _place(item: Node) -> Position:
    return (item.get("path") or item).place


def _declared(address: Address, scopes: Mapping[str, Scope]) -> Node:
    component, _, rest = address.rpartition("/")
    scope = scopes[component]
    return scope.interpolated.get("datasets", rest.partition(".")[2]) or scope.interpolated
