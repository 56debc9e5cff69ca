"""Merging what is generated beside `dvc.lock`: `dvc.yaml` stage by stage, `params.mlstack.yaml` value by value.

Where both sides changed one thing, each in its own way, the merged `mlstack.yaml` says what it has to be (`wanted`);
without it, while Git merges, it is a clash. Stages that mlstack did not write are a person's: never decided here.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mlstack.diagnostics import MlstackError
from mlstack.drivers.dvc.definitions import address_of
from mlstack.drivers.dvc.documents import parse_document, unreadable
from mlstack.drivers.dvc.lockfile import LockText, split_text
from mlstack.drivers.dvc.yaml_text import dump_yaml
from mlstack.graph.merge import (
    MergedFile,
    Ruling,
    Sides,
    Verdict,
    around,
    conflict_text,
    each_side,
    names_in_order,
    rule,
    sides_of,
    unchanged,
)

GENERATED_ANEW = "written as mlstack.yaml says"
_OUTSIDE = "what stands outside of `stages`"


class _Stage(msgspec.Struct, frozen=True):
    text: str
    data: Any

    def identity(self) -> object:
        return msgspec.json.encode(self.data)


def merge_definitions(
    sides: Sides[bytes], path: str, *, wanted: Mapping[str, Any] | None = None, size: int = 7
) -> MergedFile:
    """Merge one `dvc.yaml`. Raises `MlstackError` for one that cannot be read, or is laid out in a way of its own."""
    whole = unchanged(sides)
    if whole is not None:
        return MergedFile(text=whole.value or None)
    texts = each_side(sides, lambda side: _parse(side, path))
    maps = each_side(texts, lambda found: found[1])
    rulings: dict[str, Ruling[_Stage]] = {}
    for name in names_in_order(maps):
        each = sides_of(maps, name)
        ruling = rule(each, key=_Stage.identity)
        rulings[name] = _choose(name, each, wanted) if ruling.verdict is Verdict.CLASH else ruling
    header = around(each_side(texts, lambda found: found[0].header))
    tail = around(each_side(texts, lambda found: found[0].tail))
    clashes = [name for name, ruling in rulings.items() if ruling.verdict is Verdict.CLASH]
    ours, theirs = (_join(rulings, header, tail, side) for side in (texts.ours, texts.theirs))
    if Verdict.CLASH in (header.verdict, tail.verdict) and ours != theirs:  # alike where no stage is left
        clashes.append(_OUTSIDE)
    decided = {name: (ruling.verdict, ruling.why) for name, ruling in rulings.items() if ruling.why}
    if clashes:
        text = conflict_text(ours, theirs, size=size)
        return MergedFile(text=text.encode(), decided=decided, clashes=tuple(clashes))
    parse_document(ours.encode(), path)
    return MergedFile(text=ours.encode() or None, decided=decided)


_Parsed = tuple[LockText, dict[str, _Stage]]


def _parse(side: bytes, path: str) -> _Parsed | None:
    if not side.strip():
        return None
    stages = parse_document(side, path).get("stages") or {}
    text = split_text(side.decode(), list(stages), path) if isinstance(stages, dict) and stages else None
    if text is None:
        raise MlstackError(unreadable(path, "it is laid out in a way of its own, so it has to be merged by hand"))
    return text, {str(name): _Stage(text.blocks[str(name)], data) for name, data in stages.items()}


def _choose(name: str, sides: Sides[_Stage], wanted: Mapping[str, Any] | None) -> Ruling[_Stage]:
    ours_all = all(side is None or address_of(side.data) is not None for side in sides)
    if wanted is None or not ours_all:
        return Ruling(Verdict.CLASH)
    if name not in wanted:
        return Ruling(Verdict.LEFT_OUT, None, "mlstack.yaml has no such stage any more")
    return Ruling(Verdict.FITS, _Stage(dump_yaml({name: wanted[name]}, indent=2), wanted[name]), GENERATED_ANEW)


def _join(rulings: Mapping[str, Ruling[_Stage]], header: Ruling[str], tail: Ruling[str], side: _Parsed | None) -> str:
    """Return the file as it is with one side's version of what clashes."""
    text, stages = side if side is not None else (LockText(header="", blocks={}), {})
    blocks: dict[str, str] = {}
    for name, ruling in rulings.items():
        stage = stages.get(name) if ruling.verdict is Verdict.CLASH else ruling.value
        if stage is not None:
            blocks[name] = stage.text
    before = text.header if header.verdict is Verdict.CLASH else header.value or ""
    after = text.tail if tail.verdict is Verdict.CLASH else tail.value or ""
    return LockText(header=before, blocks=blocks, tail=after).join() if blocks or after else ""


# ---------------------------------------------------------------------------------------------------- params

_Leaf = tuple[str, ...]


def merge_params(
    sides: Sides[bytes], path: str, *, wanted: Mapping[str, Any] | None = None, size: int = 7
) -> MergedFile:
    """Merge one generated params file. Raises `MlstackError` for one that cannot be read."""
    whole = unchanged(sides)
    if whole is not None:
        return MergedFile(text=whole.value or None)
    maps = each_side(sides, lambda side: dict(_leaves(parse_document(side, path))))
    asked = None if wanted is None else dict(_leaves(wanted))
    rulings: dict[_Leaf, Ruling[Any]] = {}
    for leaf in dict.fromkeys(leaf for side in maps if side is not None for leaf in side):
        ruling = rule(sides_of(maps, leaf), key=_identity)
        rulings[leaf] = _choose_value(leaf, asked) if ruling.verdict is Verdict.CLASH else ruling
    header = around(each_side(sides, _comment))
    comment = min(filter(None, map(_comment, filter(None, sides[1:]))), default="")
    comment = comment if header.verdict is Verdict.CLASH else header.value or ""
    ours, theirs = (_params_text(comment, rulings, side or {}) for side in (maps.ours, maps.theirs))
    decided = {".".join(leaf): (ruling.verdict, ruling.why) for leaf, ruling in rulings.items() if ruling.why}
    clashes = sorted(".".join(leaf) for leaf, ruling in rulings.items() if ruling.verdict is Verdict.CLASH)
    if not clashes:
        return MergedFile(text=ours.encode() or None, decided=decided)
    text = conflict_text(ours, theirs, size=size)
    return MergedFile(text=text.encode(), decided=decided, clashes=tuple(clashes))


def _params_text(comment: str, rulings: Mapping[_Leaf, Ruling[Any]], side: Mapping[_Leaf, Any]) -> str:
    """Return the file as it is with one side's version of what clashes."""
    values: dict[_Leaf, Any] = {}
    for leaf, ruling in rulings.items():
        if ruling.verdict is Verdict.CLASH and leaf in side:
            values[leaf] = side[leaf][0]
        elif ruling.verdict is not Verdict.CLASH and ruling.value is not None:
            values[leaf] = ruling.value[0]
    return f"{comment}{dump_yaml(_nest(values))}" if values else ""


def _identity(value: Any) -> object:
    return msgspec.json.encode(value, order="deterministic")


def _choose_value(leaf: _Leaf, wanted: Mapping[_Leaf, Any] | None) -> Ruling[Any]:
    if wanted is None:
        return Ruling(Verdict.CLASH)
    if leaf not in wanted:
        return Ruling(Verdict.LEFT_OUT, None, "nothing uses it any more")
    return Ruling(Verdict.FITS, wanted[leaf], GENERATED_ANEW)


def _leaves(data: Mapping[str, Any], above: _Leaf = ()) -> list[tuple[_Leaf, tuple[Any]]]:
    """Return path → value, in a tuple of its own so that null is a value too."""
    found: list[tuple[_Leaf, tuple[Any]]] = []
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(value, (*above, str(key)))
        else:
            found.append(((*above, str(key)), (value,)))
    return found


def _nest(values: Mapping[_Leaf, Any]) -> dict[str, Any]:
    """Put leaves together again, in the order in which mlstack writes them (by their dotted names)."""
    nested: dict[str, Any] = {}
    for leaf in sorted(values, key=".".join):
        inner: dict[str, Any] = nested
        for part in leaf[:-1]:
            following = inner.setdefault(part, {})
            if not isinstance(following, dict):  # one side made a map of what is a value on the other
                inner[part] = following = {}
            inner = following
        if not isinstance(inner.get(leaf[-1]), dict):
            inner[leaf[-1]] = values[leaf]
    return nested


def _comment(side: bytes) -> str:
    lines = side.decode(errors="replace").splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])
